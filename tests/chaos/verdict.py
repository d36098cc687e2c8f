"""What was kept of the promise, from the ledger and what was left."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from chaos.ledger import Row
from chaos.memory import thirds
from chaos.recovery import Loss

GROWTH: Final = 1.25
NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict; `ok` None: told, not judged."""

    what: str
    found: str
    ok: bool | None = None


def of_requests(rows: Mapping[str, Row], strangers: int) -> list[Check]:
    """Each accepted request has exactly one terminal result, which never changes."""
    outcomes = Counter(row.outcome for row in rows.values() if row.value is not None)
    return [
        Check(
            "submitted, accepted", f"{len(rows):,}, {_count(r.accepted for r in rows.values()):,}"
        ),
        Check("outcomes", ", ".join(f"{n:,} {what}" for what, n in outcomes.most_common())),
        _none("lost", [i for i, row in rows.items() if row.accepted and row.value is None]),
        _none("published twice", [i for i, row in rows.items() if row.published > 1]),
        _none("changed after being visible", [i for i, row in rows.items() if row.changed]),
        Check("seen only by reading", f"{_count(_only_read(row) for row in rows.values()):,}"),
        Check("results that nobody asked for", f"{strangers}", strangers == 0),
    ]


def of_recovery(losses: Sequence[Loss], lease_s: float) -> list[Check]:
    """What a dead worker held is in other hands within two leases of a steady survivor."""
    held = [loss.held or 0 for loss in losses]
    longest_s = max((loss.waited_s for loss in losses), default=0.0)
    limit_s = 2 * lease_s
    found = f"longest {longest_s:.1f} s of {limit_s:.0f} s"
    return [
        Check("workers killed with messages", f"{_count(map(bool, held))} of {len(held)}"),
        Check("messages taken over", f"{sum(held):,}"),
        Check("until taken over", found, longest_s <= limit_s and all(one.over for one in losses)),
    ]


def of_memory(what: str, samples: Sequence[float], warm_up: int) -> Check:
    """The last third of the run takes little more than the first."""
    found = thirds(samples, warm_up)
    if found is None:
        return Check(what, "too short to compare")
    first, last = found
    told = f"{_size(first)} in the first third, {_size(last)} in the last"
    return Check(what, told, last <= GROWTH * first)


def of_rest(what: str, left: Sequence[str]) -> Check:
    """Nothing of that kind."""
    return _none(what, left)


def told(check: Check) -> Check:
    """The same figure, not judged: of what promises nothing."""
    return Check(check.what, check.found.split(":")[0])


def show(console: Console, title: str, checks: Sequence[Check]) -> bool:
    """Print the verdict; whether every check holds."""
    table = Table(title=title, title_justify="left", show_header=False)
    for check in checks:
        mark = {True: "ok", False: "FAILED", None: ""}[check.ok]
        table.add_row(check.what, check.found, mark)
    console.print(table)
    return all(check.ok is not False for check in checks)


def _none(what: str, found: Sequence[str]) -> Check:
    named = ": " + ", ".join(found[:NAMED]) if found else ""
    return Check(what, f"{len(found)}{named}", not found)


def _size(kilobytes: float) -> str:
    return f"{kilobytes:.2f} KB" if kilobytes < 1e3 else f"{kilobytes / 1e3:.0f} MB"


def _count(flags: Iterable[bool]) -> int:
    return sum(flags)


def _only_read(row: Row) -> bool:
    return row.value is not None and row.published == 0
