"""Shows how a bulk run goes: a bar where there is a terminal and rich, else a line now and then."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from reclane.bulk.runs import Run
from reclane.cli.printing import duration, printable

LINE_EVERY_S: Final = 10.0
PACE_S: Final = 30.0


@contextmanager
def shown(
    run_id: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Run], None]]:
    """Gives what is to be called with each state of the run. Everything goes to stderr."""
    pace = _Pace(clock)
    bar = _bar() if sys.stderr.isatty() else None
    if bar is None:
        yield _Lines(pace, clock).show
        return
    with bar:
        task = bar.add_task(run_id, total=None, said="")

        def show(run: Run) -> None:
            bar.update(
                task, completed=run.done, total=run.total, said=_joined(pace(run), said(run))
            )

        yield show


def said(run: Run) -> str:
    """What a person wants to know beside the numbers of rows."""
    words: list[str] = [] if run.state == "running" else [run.state]
    words += [f"{run.counts[name]:,} {name}" for name in ("failed", "bad") if run.counts[name]]
    if run.trouble:
        words.append(printable(run.why))
    return ", ".join(words)


class _Pace:
    """Rows per second over the last half minute, and how long the rest takes at that."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, run: Run) -> str:
        now = self._clock()
        self._seen.append((now, run.done))
        while now - self._seen[0][0] > PACE_S:
            self._seen.popleft()
        seconds, rows = now - self._seen[0][0], run.done - self._seen[0][1]
        if run.over or rows <= 0:
            return ""
        rate = rows / seconds
        left = None if run.total is None else max(0, run.total - run.done) / rate
        return f"{rate:,.0f}/s" + ("" if left is None else f", eta {duration(left)}")


class _Lines:
    """One line at first, when the state changes, and every ten seconds."""

    def __init__(self, pace: _Pace, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._next = 0.0
        self._state = ""

    def show(self, run: Run) -> None:
        now, pace = self._clock(), self._pace(run)
        if now < self._next and run.state == self._state:
            return
        self._next, self._state = now + LINE_EVERY_S, run.state
        of = "" if run.total is None else f" of {run.total:,}"
        click.echo(_joined(f"{run.id}: {run.done:,}{of} rows", pace, said(run)), err=True)


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _bar() -> Any:
    """A bar that follows the run; None without rich, which a worker's installation has."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[said]}", markup=False),
        console=Console(stderr=True),
    )
