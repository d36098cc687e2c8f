"""Options that name a catalog and say how items are read, and a bar while they are encoded."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reclane_worker.reading import OWN_FIELDS, Columns

_USUAL_FIELDS: Final = ",".join(OWN_FIELDS)

folder_argument = click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


def _fields(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise click.BadParameter("name at least one column, as " + _USUAL_FIELDS)
    return names


fields_option = click.option(
    "--fields",
    default=_USUAL_FIELDS,
    show_default=True,
    callback=_fields,
    help="What is encoded and indexed, in this order; attributes may be named, too.",
)
_USUAL = Columns()
_OPTIONS = (
    click.option("--model", help="Model id or folder; default RECLANE_MODEL."),
    click.option("--id", "id_", default=_USUAL.id, show_default=True, help="Column with the id."),
    click.option("--title", default=_USUAL.title, show_default=True, help="With the title."),
    click.option("--text", default=_USUAL.text, show_default=True, help="With the text."),
    click.option("--skip-bad", is_flag=True, help="Leave out bad rows and report them."),
)


def item_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `model`, `columns` and `skip_bad`."""

    @functools.wraps(command)
    def called(*, id_: str, title: str, text: str, **rest: Any) -> None:
        command(columns=Columns(id_, title, text), **rest)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called


@contextmanager
def shown_progress(console: Console, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar; it is told how many items are done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("encoding", total=total)
        yield lambda done: progress.update(task, completed=done)
