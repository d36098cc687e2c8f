"""`reclane catalog build`: a catalog from items."""

from pathlib import Path

import click
from rich.console import Console

from reclane_worker.asked import add_learnt
from reclane_worker.building import Learn, build_catalog
from reclane_worker.cases import read_cases
from reclane_worker.cli.bad_rows import BadRows
from reclane_worker.cli.interactions import interaction_options
from reclane_worker.cli.items import fields_option, item_options, shown_progress
from reclane_worker.encoder import load_encoder
from reclane_worker.intent.schema import read_aliases
from reclane_worker.reading import Columns, count_rows, read_items
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import InteractionColumns
from reclane_worker.taste.learning import add_taste


@click.command()
@click.argument("items", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@item_options
@fields_option
@click.option(
    "--aliases",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON with other names of attributes and values, for reading requests.",
)
@interaction_options
@click.option(
    "--requests",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Requests with known answers, as for `reclane eval`: what counts is learnt from them.",
)
@click.option("--replace", is_flag=True, help="Replace the folder if it exists.")
def build(
    items: Path,
    out: Path,
    model: str | None,
    columns: Columns,
    fields: tuple[str, ...],
    aliases: Path | None,
    interactions: Path | None,
    named: InteractionColumns,
    requests: Path | None,
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

    learn: list[Learn] = []
    if interactions is not None:
        path = interactions
        learn.append(lambda folder: add_taste(folder, path, named, bad, settings.history_decay))
    if requests is not None:
        cases = read_cases(requests)
        learn.append(lambda folder: add_learnt(folder, cases, encoder, settings))
    with shown_progress(console, count_rows(items)) as progress:
        manifest = build_catalog(
            read_items(items, columns, bad),
            out,
            encoder,
            fields=fields,
            aliases=None if aliases is None else read_aliases(aliases),
            replace=replace,
            progress=progress,
            learn=learn,
        )
    bad.report(console)
    click.echo(f"{out}: {manifest.items} items, version {manifest.version}")
