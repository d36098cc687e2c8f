"""`reclane dlq`: dead letters, the requests that no worker could read or survive."""

import json
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import click

from reclane.cli import exits, options, printing
from reclane.contract import RecommendRequest, parse_request
from reclane.errors import InvalidRequest, NotRequeueable
from reclane.names import Keys
from reclane.operations import letters
from reclane.operations.letters import Letter

_WHICH: Final[tuple[options.Decorator, ...]] = (
    click.argument("ids", nargs=-1, metavar="ID..."),
    click.option("--all", "everything", is_flag=True, help="Every dead letter, oldest first."),
    click.option("--yes", is_flag=True, help="Do not ask; --all does."),
)


def _selection(command: Callable[..., Any]) -> Callable[..., Any]:
    return options.together(_WHICH, command)


@click.group()
def dlq() -> None:
    """Read, mend, requeue or drop dead letters.

    A letter is called by its request's id, or by @ and a digest where the message had none.
    """


@dlq.command()
@click.option(
    "-n", "count", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many."
)
@options.as_json
def ls(count: int, as_json: bool) -> None:
    """Dead letters, newest first; with --json one a line."""
    now_s = time.time()
    with options.server() as (client, settings):
        rows: list[list[object]] = [["id", "age", "code", "crashes", "bytes", "from", "why"]]
        for letter in letters.newest(client, settings.keys, count):
            if as_json:
                printing.line(_fields(letter))
                continue
            age = printing.duration(now_s - letter.at_ms / 1e3 if letter.at_ms else None)
            sizes = (letter.crashes, letter.size)
            rows.append([letter.name, age, letter.code, *sizes, letter.origin, letter.message])
    if not as_json:
        printing.table(rows, right=(1, 3, 4))


@dlq.command()
@click.argument("letter_id", metavar="ID")
@options.show_text
@options.as_json
def show(letter_id: str, show_text: bool, as_json: bool) -> None:
    """One dead letter; --show-text adds what it asks, which can be edited and given back:

    \b
    reclane dlq show ID --show-text --json | jq .request > request.json
    reclane dlq requeue ID --request request.json
    """
    with options.server() as (client, settings):
        letter = letters.find(client, settings.keys, [letter_id])[-1]
    fields = _fields(letter)
    if show_text:
        try:
            fields["request"] = letters.request_of(letter)
        except NotRequeueable as error:
            fields |= {"request": None, "problem": str(error)}
    if as_json:
        printing.document(fields)
    else:
        printing.table(
            [[name, v if isinstance(v, str) else printing.compact(v)] for name, v in fields.items()]
        )


@dlq.command()
@_selection
@click.option(
    "--request",
    "source",
    type=click.File("rb"),
    help="Ask this instead: a file with a JSON request; - is stdin.",
)
@click.option("--edit", is_flag=True, help="Edit what it asks in $EDITOR first.")
@options.as_json
@click.pass_context
def requeue(
    ctx: click.Context,
    ids: tuple[str, ...],
    everything: bool,
    yes: bool,
    source: IO[bytes] | None,
    edit: bool,
    as_json: bool,
) -> None:
    """Send dead letters to the end of the queue they came from, under their old ids.

    The stored failure is taken back and crashes are forgotten. An expiry that has passed is taken
    off. One that was answered or revoked meanwhile, or whose idempotency key waits for another
    request by now, stays a letter.
    """
    if (source or edit) and (everything or len(ids) != 1 or (source and edit)):
        raise click.UsageError("--request or --edit mends one letter; name it")
    request = _parsed(source.read()) if source else None
    codes = {exits.OK}
    with options.server() as (client, settings):
        for letter in _selected(client, settings.keys, ids, everything, yes, "Requeue"):
            try:
                asked = _edited(letter) if edit else request
                raw = letters.message_for(letter, time.time(), asked)
                outcome: str = letters.requeue(client, settings.keys, letter, raw)
                why = ""
            except NotRequeueable as error:
                outcome, why = "refused", str(error)
            codes.add(exits.OK if outcome in ("requeued", "gone") else exits.ERROR)
            _report(letter, outcome, why, as_json)
    ctx.exit(max(codes))


@dlq.command()
@_selection
@options.as_json
def drop(ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool) -> None:
    """Remove dead letters for good; their failures were stored when they died."""
    with options.server() as (client, settings):
        for letter in _selected(client, settings.keys, ids, everything, yes, "Drop"):
            gone = letters.drop(client, settings.keys, letter)
            _report(letter, "dropped" if gone else "gone", "", as_json)


def _selected(
    client: Any, keys: Keys, ids: tuple[str, ...], everything: bool, yes: bool, verb: str
) -> Iterator[Letter]:
    if bool(ids) == everything:
        raise click.UsageError("name dead letters by their ids, or pass --all")
    if ids:
        yield from letters.find(client, keys, ids)
        return
    count = client.llen(keys.dead_letters)
    if count:
        options.confirm(f"{verb} {count} dead letters?", yes)
        yield from letters.oldest_first(client, keys, count)
    else:
        click.echo("reclane: there are no dead letters", err=True)


def _parsed(text: bytes | str) -> RecommendRequest:
    try:
        return parse_request(json.loads(text))
    except ValueError:
        raise InvalidRequest("the request is not valid JSON") from None


def _edited(letter: Letter) -> RecommendRequest:
    """What a person makes of it in their editor.

    Raises:
        InvalidRequest: it breaks the contract; the letter stays.
    """
    text = json.dumps(letters.request_of(letter), ensure_ascii=False, indent=2) + "\n"
    edited = click.edit(text, extension=".json", require_save=False)
    return _parsed(text if edited is None else edited)


def _fields(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.name,
        "code": letter.code,
        "message": letter.message,
        "origin": letter.origin,
        "crashes": letter.crashes,
        "at_ms": letter.at_ms,
        "bytes": letter.size,
    }


def _report(letter: Letter, outcome: str, why: str, as_json: bool) -> None:
    if as_json:
        printing.line({"id": letter.name, "outcome": outcome, "why": why})
    else:
        click.echo(printing.printable(f"{letter.name} {outcome}"))
        if why:
            click.echo(printing.printable(f"reclane: {why}"), err=True)
