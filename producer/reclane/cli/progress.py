"""Shows how a bulk run goes: a bar where there is a terminal and rich, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from reclane.bulk.runs import Run
from reclane.cli.printing import duration, printable

LINE_EVERY_S: Final = 10.0


@contextmanager
def shown(run_id: str) -> Iterator[Callable[[Run], None]]:
    """Gives what is to be called with each state of the run. Everything goes to stderr."""
    bar = _bar() if sys.stderr.isatty() else None
    if bar is None:
        yield _Lines().show
        return
    with bar:
        task = bar.add_task(run_id, total=None, said="")
        yield lambda run: bar.update(task, completed=run.done, total=run.total, said=said(run))


def said(run: Run) -> str:
    """What a person wants to know beside the numbers of rows."""
    words: list[str] = [] if run.state == "running" else [run.state]
    words += [f"{run.counts[name]:,} {name}" for name in ("failed", "bad") if run.counts[name]]
    if run.trouble:
        words.append(printable(f"{run.trouble[1]} [{run.trouble[0]}]"))
    return ", ".join(words)


class _Lines:
    """One line at first, when the state changes, and every ten seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._state = ""
        self._first: tuple[float, int] | None = None  # when we looked first, and how many rows

    def show(self, run: Run) -> None:
        now = time.monotonic()
        self._first = self._first or (now, run.done)
        if now < self._next and run.state == self._state:
            return
        self._next, self._state = now + LINE_EVERY_S, run.state
        of = "" if run.total is None else f" of {run.total:,}"
        click.echo(f"{run.id}: {run.done:,}{of} rows{self._pace(run, now)}{_then(run)}", err=True)

    def _pace(self, run: Run, now: float) -> str:
        assert self._first is not None
        seconds, rows = now - self._first[0], run.done - self._first[1]
        if run.over or rows <= 0:
            return ""
        eta = "" if run.total is None else duration((run.total - run.done) * seconds / rows)
        return f", {rows / seconds:,.0f}/s" + (f", eta {eta}" if eta else "")


def _then(run: Run) -> str:
    return f", {said(run)}" if said(run) else ""


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
        progress.TaskProgressColumn(show_speed=True),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[said]}", markup=False),
        console=Console(stderr=True),
    )
