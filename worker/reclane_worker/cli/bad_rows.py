"""What becomes of bad rows: the first ends a command, or all are left out and told at its end."""

from rich.console import Console

from reclane.errors import ItemsInvalid
from reclane_worker.reading import BadRow

SHOWN_BAD_ROWS = 20


class BadRows:
    """Collects bad rows: the first ends the build unless they are to be skipped."""

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self._first: list[BadRow] = []
        self._count = 0

    def __call__(self, row: BadRow) -> None:
        if not self._skip:
            raise ItemsInvalid(
                f"line {row.line}: {row.reason}; mend it, or pass --skip-bad to leave it out"
            )
        self._count += 1
        if len(self._first) < SHOWN_BAD_ROWS:
            self._first.append(row)

    def report(self, console: Console) -> None:
        if not self._count:
            return
        console.print(f"{self._count} rows were left out:")
        for row in self._first:
            console.print(f"  line {row.line}: {row.reason}", markup=False)
        if self._count > len(self._first):
            console.print(f"  and {self._count - len(self._first)} more")
