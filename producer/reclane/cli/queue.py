"""`reclane queue`: what waits, what comes next, and purging it."""

from dataclasses import asdict

import click

from reclane.cli import options, printing
from reclane.operations import purging, queues

_SHORT = {name.rpartition(".")[2]: name for name in queues.QUEUES}


def _full(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return _SHORT.get(value, value)


queue_argument = click.argument(
    "name",
    metavar="QUEUE",
    type=click.Choice([*_SHORT, *_SHORT.values()]),
    callback=_full,
)


@click.group()
def queue() -> None:
    """See what waits, and purge it."""


@queue.command()
@options.as_json
def ls(as_json: bool) -> None:
    """Every queue and its priorities, and what each worker holds.

    `oldest` is how long the message that is served next has waited, where its sender said when
    it was sent.
    """
    with options.server() as (client, settings):
        found = queues.overview(client, settings.keys)
    if as_json:
        lengths = [{"length": state.length} for state in found.queues]
        shown = asdict(found)
        shown["queues"] = [a | b for a, b in zip(shown["queues"], lengths, strict=True)]
        printing.document(shown)
        return
    rows: list[list[object]] = [["queue", "waiting", "priorities", "oldest"]]
    for state in found.queues:
        split = " ".join(f"{step}:{count}" for step, count in state.by_priority.items() if count)
        rows.append([state.queue, state.length, split or "-", printing.duration(state.oldest_s)])
    printing.table(rows, right=(1, 3))
    click.echo()
    rows = [["worker", "in flight", "lease ends in"]]
    for one in found.workers:
        rows.append([one.worker, one.in_flight, printing.duration(one.lease_left_s)])
    printing.table(rows, right=(1, 2))
    click.echo()
    due = "" if found.next_due_s is None else f", next in {printing.duration(found.next_due_s)}"
    click.echo(f"scheduled     {found.scheduled} ({found.overdue} overdue{due})")
    click.echo(f"dead letters  {found.dead_letters}")


@queue.command()
@queue_argument
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, queues.MAX_PEEK),
    default=5,
    show_default=True,
    help="How many.",
)
@options.show_text
@options.as_json
def peek(name: str, count: int, show_text: bool, as_json: bool) -> None:
    """The messages of QUEUE that are served next; nothing is taken."""
    with options.server() as (client, settings):
        found = queues.peek(client, settings.keys, name, count, show_text)
    if as_json:
        printing.document([asdict(one) for one in found])
        return
    rows: list[list[object]] = [["id", "priority", "bytes", "age", "expires in", "due in", ""]]
    for one in found:
        times = [printing.duration(one.age_s)]
        times += [_until(one.expires_in_s, "expired"), _until(one.due_in_s, "due")]
        text = one.problem or (printing.compact(one.request) if show_text else "")
        rows.append([one.id or "-", one.priority, one.bytes, *times, text])
    printing.table(rows, right=(1, 2, 3, 4, 5))


def _until(seconds: float | None, passed: str) -> str:
    return passed if seconds is not None and seconds <= 0 else printing.duration(seconds)


@queue.command()
@queue_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def purge(name: str, yes: bool, as_json: bool) -> None:
    """End everything that waits in QUEUE: each request as revoked, with the reason `purged`.

    Whoever awaits one hears of it at once. What a worker holds and what is scheduled stays, and
    so does a message with Celery links, a chain, a group or a chord: revoke that with Celery.
    """
    with options.server() as (client, settings):
        waiting = sum(client.llen(key) for key in settings.keys.lists(name))
        if waiting:
            options.confirm(f"End {waiting} requests that wait in {name}?", yes)
        done = purging.purge(client, settings, name)
    if as_json:
        printing.document({"queue": name, **asdict(done)})
        return
    click.echo(f"{name}: {done.ended} ended as purged")
    if done.without_id:
        click.echo(f"{done.without_id} of them had no id: nobody can have awaited them")
    if done.left:
        click.echo(f"{done.left} left: only Celery can end messages with links, groups or chords")
