"""`reclane catalog upsert`, `delete` and `compact`: change a catalog without building it again."""

from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console

from reclane.cli import options
from reclane_worker import changing
from reclane_worker.cli.bad_rows import BadRows
from reclane_worker.cli.items import folder_argument, item_options, shown_progress
from reclane_worker.encoder import load_encoder
from reclane_worker.reading import Columns, read_items
from reclane_worker.settings import WorkerSettings


@click.command()
@folder_argument
@click.argument("items", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@item_options
def upsert(folder: Path, items: Path, model: str | None, columns: Columns, skip_bad: bool) -> None:
    """Add ITEMS to FOLDER, and change those that it has; only these are encoded.

    ITEMS is a file as for build. An item that is changed is replaced whole, and keeps its place.
    """
    console = Console(stderr=True)
    bad = BadRows(skip=skip_bad)
    encoder = load_encoder(WorkerSettings.from_environment(model=model))
    with shown_progress(console, None) as progress:
        change = changing.upsert(folder, read_items(items, columns, bad), encoder, progress)
    bad.report(console)
    tally = change.tally
    click.echo(
        f"{folder}: {tally.added} added, {tally.updated} changed, {tally.unchanged} as they were; "
        f"{_shown(change)}"
    )


@click.command()
@folder_argument
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def delete(folder: Path, ids: tuple[str, ...]) -> None:
    """Take items out of FOLDER; - reads ids from stdin, one a line."""
    change = changing.delete(folder, _given(ids))
    absent = f", {change.tally.absent} were not there" if change.tally.absent else ""
    click.echo(f"{folder}: {change.tally.removed} removed{absent}; {_shown(change)}")


@click.command()
@folder_argument
def compact(folder: Path) -> None:
    """Make one catalog of FOLDER and its changes, as if it had been built anew; encodes nothing."""
    manifest = changing.compact(folder)
    click.echo(f"{folder}: {manifest.items} items, version {manifest.version}")


def _given(ids: Iterable[str]) -> Iterable[str]:
    for one in ids:
        if one == "-":
            yield from filter(None, (line.strip() for line in options.stdin()))
        else:
            yield one


def _shown(change: changing.Change) -> str:
    manifest = change.manifest
    return f"{manifest.items} items, version {manifest.version}"
