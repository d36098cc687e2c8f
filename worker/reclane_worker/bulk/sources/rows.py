"""What a source gives: slices of rows and bad rows, each bounded, and where to go on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

Cursor: TypeAlias = dict[str, Any]
"""Where to go on: JSON, under a kilobyte; only the source that made it reads it."""

MAX_ROW_BYTES: Final = 1 << 20  # of a line or CSV record; a longer one is bad
MAX_SLICE_BYTES: Final = 8 << 20  # of requests; a slice ends early there
MAX_MET: Final = 100_000  # rows that one slice may meet, those passed over included


@dataclass(frozen=True, slots=True)
class Row:
    """One good row. `place` says where it stands, for people: `users.csv.gz:1832`,
    `part-3.parquet row 77`, `users row id=17`."""

    key: str
    request: dict[str, Any]
    place: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that makes no request, and why; the reason never quotes the row."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class Slice:
    """The next rows in order. It may hold fewer than asked for, even none; only a cursor of
    None means that the source has ended."""

    rows: list[Row]
    bad: list[BadRow]
    cursor: Cursor | None


class Source(Protocol):
    """Rows by cursor. Reading again from a cursor gives the same rows.

    Whoever keeps a source open between reads spares it finding its place again, which takes
    as long as reading a .gz, or a Parquet row group, up to there.
    """

    def check(self) -> None:
        """Open everything that will be read, and see that the columns are there.

        Raises:
            StepFailed: it cannot be read; the message says what to do.
        """

    def read(self, cursor: Cursor | None, limit: int) -> Slice:
        """The next `limit` rows, good and bad together; from the start where `cursor` is None.

        Raises:
            SourceUnusable: it cannot be read at all.
            SourceChanged: the files are not those that the cursor was made with.
            StoreUnavailable: the database cannot be reached.
        """

    def count(self) -> int | None:
        """About how many rows there are, good and bad; None where only reading them would tell."""

    def close(self) -> None:
        """Let go of files and connections; the source can still be read."""


@dataclass(frozen=True, slots=True)
class Met:
    """A row as a reader met it: good, bad (`reason`), or passed over (neither).

    `after` is where reading goes on behind it: a list of JSON scalars.
    """

    after: tuple[Any, ...]
    place: str
    key: str = ""
    request: dict[str, Any] | None = None
    size: int = 0
    reason: str | None = None


def take(met: Iterator[Met], limit: int) -> tuple[list[Row], list[BadRow], tuple[Any, ...] | None]:
    """The next rows, up to `limit` or a slice's bounds, and where to go on; None at the end."""
    rows: list[Row] = []
    bad: list[BadRow] = []
    size = 0
    for count, one in enumerate(met, start=1):
        if one.reason is not None:
            bad.append(BadRow(one.place, one.reason))
        elif one.request is not None:
            rows.append(Row(one.key, one.request, one.place))
            size += one.size
        if len(rows) + len(bad) >= limit or size >= MAX_SLICE_BYTES or count >= MAX_MET:
            return rows, bad, one.after
    return rows, bad, None
