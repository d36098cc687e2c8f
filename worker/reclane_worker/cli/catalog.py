"""`reclane catalog`: build a catalog from items, look at one, change one, publish one."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from reclane_worker.building import build_catalog
from reclane_worker.cli.bad_rows import BadRows
from reclane_worker.cli.changes import compact, delete, upsert
from reclane_worker.cli.interactions import interaction_options
from reclane_worker.cli.items import item_options, shown_progress
from reclane_worker.cli.publish import publish, published, rollback
from reclane_worker.encoder import load_encoder
from reclane_worker.intent.schema import read_aliases
from reclane_worker.manifest import TASTE, path_in, read_manifest, verify
from reclane_worker.reading import Columns, count_rows, read_items
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import InteractionColumns
from reclane_worker.taste.learning import add_taste
from reclane_worker.taste.signals import read_weights


@click.group()
def catalog() -> None:
    """Build, inspect, change and publish item catalogs."""


@catalog.command()
@click.argument("items", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@item_options
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
@click.option("--replace", is_flag=True, help="Replace the folder if it exists.")
def build(
    items: Path,
    out: Path,
    model: str | None,
    columns: Columns,
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

    with shown_progress(console, count_rows(items)) as progress:
        manifest = build_catalog(
            read_items(items, columns, bad),
            out,
            encoder,
            fields=tuple(name.strip() for name in fields.split(",") if name.strip()),
            aliases=None if aliases is None else read_aliases(aliases),
            replace=replace,
            progress=progress,
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
    taste_path = path_in(manifest.base, TASTE)
    weights = read_weights(folder / taste_path) if taste_path in manifest.files else {}
    if as_json:
        taste = {"taste": weights} if weights else {}
        click.echo(json.dumps(manifest.model_dump(mode="json") | taste, indent=2))
        return
    table = Table(title=str(folder), show_header=False)
    for name, value in manifest.model_dump(exclude={"files", "base", "segments"}).items():
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    table.add_row("changes", f"{len(manifest.segments)} since it was built or compacted")
    if weights:
        shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
        table.add_row("taste", f"weights of a history: {shown}")
    table.add_row("files", "all SHA-256 as built")
    Console().print(table)


for command in (upsert, delete, compact, publish, rollback, published):
    catalog.add_command(command)
