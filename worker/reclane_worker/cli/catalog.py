"""`reclane catalog`: build a catalog from items, look at one."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from reclane.errors import ItemsInvalid
from reclane_worker.building import build_catalog
from reclane_worker.catalog import TASTE, read_manifest, verify
from reclane_worker.cli.interactions import interaction_options
from reclane_worker.encoder import load_encoder
from reclane_worker.intent.schema import read_aliases
from reclane_worker.reading import BadRow, Columns, count_rows, read_items
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import InteractionColumns
from reclane_worker.taste.learning import add_taste
from reclane_worker.taste.signals import read_weights

SHOWN_BAD_ROWS = 20


@click.group()
def catalog() -> None:
    """Build and inspect item catalogs."""


@catalog.command()
@click.argument("items", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--model", help="Model id or folder; default RECLANE_MODEL.")
@click.option("--id", "id_column", default="id", show_default=True, help="Column with the id.")
@click.option("--title", default="title", show_default=True, help="Column with the title.")
@click.option("--text", default="text", show_default=True, help="Column with the text.")
@click.option(
    "--fields",
    default="title,text",
    show_default=True,
    help="What is encoded and indexed, in this order; attributes may be named, too.",
)
@click.option(
    "--aliases",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON with other names of attributes and values, for reading requests.",
)
@interaction_options
@click.option("--skip-bad", is_flag=True, help="Leave out bad rows and report them.")
@click.option("--replace", is_flag=True, help="Replace the folder if it exists.")
def build(
    items: Path,
    out: Path,
    model: str | None,
    id_column: str,
    title: str,
    text: str,
    fields: str,
    aliases: Path | None,
    interactions: Path | None,
    named: InteractionColumns,
    skip_bad: bool,
    replace: bool,
) -> None:
    """Build a catalog from ITEMS: JSONL, CSV, TSV or Parquet, also gzipped.

    Columns other than id, title and text become attributes, to filter by and to return.
    """
    console = Console(stderr=True)
    bad = BadRows(skip=skip_bad)
    settings = WorkerSettings.from_environment(model=model)
    encoder = load_encoder(settings)

    def learn(folder: Path) -> None:
        if interactions is not None:
            add_taste(folder, interactions, named, bad, settings.history_decay)

    columns = Columns(id=id_column, title=title, text=text)
    with _progress(console) as progress:
        task = progress.add_task("encoding", total=count_rows(items))
        manifest = build_catalog(
            read_items(items, columns, bad),
            out,
            encoder,
            fields=tuple(name.strip() for name in fields.split(",") if name.strip()),
            aliases=None if aliases is None else read_aliases(aliases),
            replace=replace,
            progress=lambda done: progress.update(task, completed=done),
            learn=learn,
        )
    bad.report(console)
    click.echo(f"{out}: {manifest.items} items, version {manifest.version}")


@catalog.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def info(folder: Path, as_json: bool) -> None:
    """Verify FOLDER and say what it holds."""
    manifest = read_manifest(folder)
    verify(folder, manifest)
    weights = read_weights(folder / TASTE) if TASTE in manifest.files else {}
    if as_json:
        taste = {"taste": weights} if weights else {}
        click.echo(json.dumps(manifest.model_dump(mode="json") | taste, indent=2))
        return
    table = Table(title=str(folder), show_header=False)
    for name, value in manifest.model_dump(exclude={"files"}).items():
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    if weights:
        shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
        table.add_row("taste", f"weights of a history: {shown}")
    table.add_row("files", "all SHA-256 as built")
    Console().print(table)


class BadRows:
    """Collects bad rows: the first ends the build unless they are to be skipped."""

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self._first: list[BadRow] = []
        self._count = 0

    def __call__(self, row: BadRow) -> None:
        if not self._skip:
            raise ItemsInvalid(
                f"line {row.line}: {row.reason}; mend it, or pass --skip-bad to leave it out"
            )
        self._count += 1
        if len(self._first) < SHOWN_BAD_ROWS:
            self._first.append(row)

    def report(self, console: Console) -> None:
        if not self._count:
            return
        console.print(f"{self._count} rows were left out:")
        for row in self._first:
            console.print(f"  line {row.line}: {row.reason}", markup=False)
        if self._count > len(self._first):
            console.print(f"  and {self._count - len(self._first)} more")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
