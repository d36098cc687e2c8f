"""`reclane bulk`: start a run over many rows, watch it, pause, resume or cancel it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import click

from reclane.bulk import runs
from reclane.bulk.runs import Run
from reclane.cli import options, printing, progress
from reclane.cli.bulk_options import run_spec, spec_options
from reclane.errors import BrokerUnavailable, BulkError, ReclaneError

LOOK_EVERY_S: Final = 0.5
SHOWN_RUNS: Final = 20
SHOWN_BAD: Final = 5
NEEDS_NEW_RUN: Final = frozenset({"nothing_answered", "source_changed"})

run_argument = click.argument("run_id", metavar="RUN")


@click.group()
def bulk() -> None:
    """Recommendations for every row of a file or table, made by the workers."""


@bulk.command("run")
@spec_options
@click.option("--id", "run_id", help="Name of the run; starting one name twice runs once.")
@click.option("--detach", is_flag=True, help="Print the run's id and do not wait.")
@options.as_json
def run_(run_id: str | None, detach: bool, as_json: bool, **given: Any) -> None:
    """Answer every row of IN (files, globs, or a database's URL) and write the answers to --out.

    Workers do it: they must see the same files and databases. This command only watches; stop it
    and the run goes on.
    """
    spec = run_spec(given)
    run_id = run_id or runs.new_id()
    with options.server() as (client, settings):
        begun = runs.start(client, settings.keys, run_id, spec)
    if not begun:
        click.echo(f"reclane: run {run_id} began before; this starts nothing", err=True)
    if detach:
        click.echo(run_id)
        return
    _watch(run_id, as_json)


@bulk.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("-n", "count", type=click.IntRange(1, runs.MAX_RUNS), default=SHOWN_RUNS)
@options.as_json
def status(run_id: str | None, count: int, as_json: bool) -> None:
    """One run in full, or the newest of all runs, past ones too."""
    with options.server() as (client, settings):
        if run_id is not None:
            run = runs.read(client, settings.keys, run_id)
            _report(run, runs.bad_rows(client, settings.keys, run_id), as_json)
            return
        found = runs.known(client, settings.keys, count)
    if as_json:
        printing.document([_fields(run) for run in found])
        return
    rows: list[list[object]] = [["run", "state", "started", "rows", "failed", "bad", ""]]
    for run in found:
        counts = [run.counts["failed"], run.counts["bad"]]
        rows.append([run.id, run.state, printing.moment(run.started), _done(run), *counts, run.why])
    printing.table(rows, right=(3, 4, 5))


@bulk.command()
@run_argument
@options.as_json
def watch(run_id: str, as_json: bool) -> None:
    """Follow a run until it is over."""
    _watch(run_id, as_json)


@bulk.command()
@run_argument
def pause(run_id: str) -> None:
    """Send no more requests; what was sent is answered and written."""
    _move(runs.pause, run_id)


@bulk.command()
@run_argument
def resume(run_id: str) -> None:
    """Go on with a run that was paused or has failed, where it stood."""
    _move(runs.resume, run_id)


@bulk.command()
@run_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(run_id: str, yes: bool) -> None:
    """Give a run up. An earlier result in files stays as it was."""
    options.confirm(f"Give up run {run_id}?", yes)
    _move(runs.cancel, run_id)


def _move(move: Callable[..., None], run_id: str) -> None:
    with options.server() as (client, settings):
        move(client, settings.keys, run_id)
        click.echo(f"{run_id}: {runs.read(client, settings.keys, run_id).state}")


def _watch(run_id: str, as_json: bool) -> None:
    """Follow the run, then report it.

    Raises:
        BulkError: it failed, or was cancelled.
    """
    try:
        with options.server() as (client, settings), progress.shown(run_id) as show:
            for run in runs.watch(client, settings.keys, run_id, LOOK_EVERY_S):
                show(run)
    except (KeyboardInterrupt, BrokerUnavailable):
        click.echo(
            f"reclane: run {run_id} goes on without you; `reclane bulk watch {run_id}` follows it, "
            f"`reclane bulk cancel {run_id}` gives it up",
            err=True,
        )
        raise
    with options.server() as (client, settings):
        _report(run, runs.bad_rows(client, settings.keys, run_id), as_json)
    if run.state != "done":
        raise _ended_badly(run)


def _ended_badly(run: Run) -> ReclaneError:
    reason = f": {run.why}" if run.trouble else ""
    code = run.trouble[0] if run.trouble else ""
    resumable = run.state == "failed" and code not in NEEDS_NEW_RUN
    more = "; `reclane bulk resume` goes on where it stood" if resumable else ""
    return BulkError(f"run {run.id} is {run.state}{reason}{more}")


def _report(run: Run, bad: list[runs.Bad], as_json: bool) -> None:
    if as_json:
        rows = [{"place": one.place, "reason": one.reason} for one in bad]
        printing.document({**_fields(run), "bad_rows": rows})
        return
    lines: list[list[object]] = [["run", run.id], ["state", run.state]]
    if run.trouble:
        lines.append(["trouble", run.why])
    lines += [["started", printing.moment(run.started)], ["rows", _done(run)]]
    if run.ended is not None:
        lines.append(["took", printing.duration(run.ended - run.started)])
    lines += [[name, f"{count:,}"] for name, count in run.counts.items() if count]
    if run.failures:
        lines.append(["failed with", runs.shown_failures(run.failures)])
    printing.table(lines)
    for one in bad[:SHOWN_BAD]:
        click.echo(printing.printable(f"bad row {one.place}: {one.reason}"))
    if run.counts["bad"] > SHOWN_BAD < len(bad):
        click.echo(f"and {run.counts['bad'] - SHOWN_BAD} more; --json shows {len(bad)}")


def _fields(run: Run) -> dict[str, Any]:
    """A run as data; URLs without their passwords."""
    return {
        "id": run.id,
        "state": run.state,
        "started": printing.moment(run.started),
        "ended": None if run.ended is None else printing.moment(run.ended),
        "done": run.done,
        "total": run.total,
        "counts": run.counts,
        "failures": run.failures,
        "trouble": run.trouble and {"code": run.trouble[0], "message": run.trouble[1]},
        "spec": _spec(run),
    }


def _spec(run: Run) -> Any:
    """None where this release cannot read it."""
    with suppress(BulkError):
        return printing.plain(run.spec.model_dump(exclude_defaults=True))


def _done(run: Run) -> str:
    return f"{run.done:,}" if run.total is None else f"{run.done:,} of {run.total:,}"
