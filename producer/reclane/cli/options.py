"""Options that several commands share: what to ask for, and which Redis."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click
import redis

from reclane._connection import connect
from reclane._outbox import unavailable
from reclane.cli.filters import SYNTAX, BadFilter, parse_filters
from reclane.settings import Settings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
show_text = click.option("--show-text", is_flag=True, help="Show what people asked for, too.")
timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for answers.",
)


def _filters(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    try:
        return parse_filters(value)
    except BadFilter as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _ids(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    return [part.strip() for text in value for part in text.split(",") if part.strip()]


def _list(name: str, help_text: str, field: str = "") -> Decorator:
    field = field or name.removeprefix("--")
    return click.option(
        name, field, multiple=True, callback=_ids, metavar="A,B,...", help=help_text
    )


_REQUEST: Final[tuple[Decorator, ...]] = (
    click.argument("query", required=False),
    click.option("-k", "k", type=int, help="How many items; 10 unless told."),
    click.option("--catalog", help="Which catalog; the worker's first unless told."),
    click.option(
        "--filter", "filters", multiple=True, callback=_filters, metavar="FILTER", help=SYNTAX + "."
    ),
    _list("--history", "Items seen, newest last."),
    click.option("--user", "user_id", help="Whose profile to use."),
    _list("--exclude", "Items not to show."),
    _list("--candidates", "Choose among these items only."),
    click.option("--diversity", type=float, help="0 relevance only, to 1."),
    _list("--fields", "Attributes to print with each item."),
    click.option("--offset", type=int, help="Skip so many of the best items."),
    click.option("--deadline", "deadline_s", type=float, help="Seconds after which nobody waits."),
)


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds QUERY and the options of one request; `request_fields` takes them."""
    return together(_REQUEST, command)


def together(options: Sequence[Decorator], command: Callable[..., Any]) -> Callable[..., Any]:
    """Add several options, shown in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def request_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The request's fields that were given, to be validated by the contract.

    A query of `-`, or none beside a pipe, is read from stdin.
    """
    fields = {name: value for name, value in given.items() if value not in (None, [], {})}
    asks = fields.keys() & {"query", "history", "user_id"}
    if fields.get("query") == "-" or not (asks or _at_terminal()):
        fields["query"] = stdin().read().strip()
    return fields


def stdin() -> TextIO:
    """Where a - is read from.

    Raises:
        click.UsageError: whoever started the command closed it.
    """
    if sys.stdin is None:
        raise click.UsageError("stdin is closed: say it as an argument, or pipe it in")
    return sys.stdin


def _at_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def server() -> Iterator[tuple[Any, Settings]]:
    """A plain connection and the settings; Redis's errors become ours.

    Raises:
        BrokerUnavailable: saying what Redis refused, or that it is away.
    """
    settings = Settings.load()
    connection: Any = connect(settings)  # redis-py types replies loosely
    try:
        with connection:
            yield connection, settings
    except redis.RedisError as error:
        raise unavailable(error) from error


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be undone.

    Raises:
        click.UsageError: nobody can be asked; pass --yes.
        click.Abort: interrupted.
        click.ClickException: the answer was no.
    """
    if yes:
        return
    if not _at_terminal():
        raise click.UsageError("this needs a yes, and nobody can be asked here: pass --yes")
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was changed")
