"""`reclane schedule`: bulk runs by a cron: add, list, pause, resume, remove, run now."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import click

from reclane.bulk import cron, runs, schedules
from reclane.bulk.runs import Run
from reclane.bulk.schedules import Plan, Schedule
from reclane.cli import options, printing
from reclane.cli.bulk_options import run_spec, spec_options
from reclane.errors import UnknownRun

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

name_argument = click.argument("name")


@click.group()
def schedule() -> None:
    """Bulk runs by a cron. `reclane beat` begins them, workers do them."""


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", value, re.ASCII)
    if not found:
        raise click.BadParameter("write 90s, 30m, 2h or 1d", ctx, param)
    return int(found[1]) * _UNITS[found[2]]


@schedule.command()
@name_argument
@click.option(
    "--cron",
    "expression",
    required=True,
    help="Minute, hour, day of the month, month, day of the week: '0 3 * * *' is 3:00 every day.",
)
@click.option("--tz", "zone", default="UTC", show_default=True, help="Time zone: Europe/Berlin.")
@click.option(
    "--within",
    "within_s",
    callback=_seconds,
    metavar="TIME",
    help="Leave out what is later than 90s, 30m, 2h or 1d, as after a pause of all beats. "
    "Unless told, the newest run that was missed is made up for.",
)
@click.option("--replace", is_flag=True, help="Put it in the place of the one of this name.")
@spec_options
@options.as_json
def add(
    name: str,
    expression: str,
    zone: str,
    within_s: int | None,
    replace: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Answer every row of IN and write the answers to --out, as `reclane bulk run` does, by a cron.

    A time at which the last run is not over yet is skipped.
    """
    plan = Plan(cron.parse(expression, zone), run_spec(given), within_s)
    with options.server() as (client, settings):
        added = schedules.add(client, settings.keys, name, plan, replace)
        _tell_without_beat(client, settings.keys)
    if as_json:
        printing.document(_fields(added, None))
    else:
        click.echo(f"{name}: {_when(added)}")


@schedule.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """All schedules: when each runs next, what became of its last run, what it skipped."""
    with options.server() as (client, settings):
        found = schedules.known(client, settings.keys)
        rows = [(one, _last_run(client, settings.keys, one)) for one in found]
        if found:
            _tell_without_beat(client, settings.keys)
    if as_json:
        printing.document([_fields(one, run) for one, run in rows])
        return
    heads = ["name", "cron", "time zone", "next there", "next in UTC", "last run", "state", ""]
    table: list[list[object]] = [list(heads)]
    for one, run in rows:
        when = one.plan.cron
        there = when.local(one.next()).strftime("%Y-%m-%d %H:%M")
        coming = ["paused", "-"] if one.paused else [there, printing.moment(one.next())]
        told = [one.run or "-", run.state if run else "-", _skipped(one)]
        table.append([one.name, when.text, when.zone, *coming, *told])
    printing.table(table)


@schedule.command()
@name_argument
def pause(name: str) -> None:
    """Begin no more runs; one that has begun goes on."""
    _move(schedules.pause, name)


@schedule.command()
@name_argument
def resume(name: str) -> None:
    """Run again, from the next time on."""
    _move(schedules.resume, name)


@schedule.command()
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(name: str, yes: bool) -> None:
    """Remove a schedule; a run that it has begun goes on."""
    options.confirm(f"Remove schedule {name}?", yes)
    with options.server() as (client, settings):
        schedules.remove(client, settings.keys, name)
    click.echo(f"{name}: removed")


@schedule.command("run-now")
@name_argument
def run_now(name: str) -> None:
    """Begin a run at once and print its id; the cron goes on as before."""
    with options.server() as (client, settings):
        click.echo(schedules.run_now(client, settings.keys, name))


def _move(move: Callable[..., None], name: str) -> None:
    with options.server() as (client, settings):
        move(client, settings.keys, name)
        click.echo(f"{name}: {_when(schedules.read(client, settings.keys, name))}")


def _tell_without_beat(client: Any, keys: Any) -> None:
    if not client.exists(keys.beat_lock):
        click.echo("reclane: no beat is running, start one: reclane beat", err=True)


def _last_run(client: Any, keys: Any, one: Schedule) -> Run | None:
    if one.run is not None:
        with suppress(UnknownRun):  # it ended long ago
            return runs.read(client, keys, one.run)
    return None


def _when(one: Schedule) -> str:
    if one.paused:
        return "paused"
    there = one.plan.cron.local(one.next()).strftime("%Y-%m-%d %H:%M")
    return f"runs next at {there} {one.plan.cron.zone}, {printing.moment(one.next())}"


def _skipped(one: Schedule) -> str:
    if one.skipped is None:
        return ""
    return f"skipped {printing.moment(one.skipped.slot)}: {one.skipped.reason}"


def _fields(one: Schedule, run: Run | None) -> dict[str, Any]:
    """A schedule as data; URLs without their passwords."""
    skipped = one.skipped
    return {
        "name": one.name,
        "cron": one.plan.cron.text,
        "tz": one.plan.cron.zone,
        "within_s": one.plan.within_s,
        "paused": one.paused,
        "next": None if one.paused else printing.moment(one.next()),
        "next_local": None if one.paused else one.plan.cron.local(one.next()).isoformat(),
        "run": one.run,
        "run_state": run.state if run else None,
        "skipped": skipped and {"slot": printing.moment(skipped.slot), "reason": skipped.reason},
        "spec": printing.plain(one.plan.spec.model_dump()),
    }
