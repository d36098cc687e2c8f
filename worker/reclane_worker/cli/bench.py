"""`reclane bench`: how fast, as ratios inside one run; nothing else should run beside it."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.table import Table

from reclane_worker import demo
from reclane_worker.bench.bulk import Bench
from reclane_worker.bench.sides import Sides
from reclane_worker.cases import read_cases

PARTS = ("speed", "live", "histories")


@click.group()
def bench() -> None:
    """Measure speed on this machine: a server, workers and a model of its own."""


@bench.command()
@click.option("--rows", default=4_000, show_default=True, help="Rows of a run.")
@click.option("--repeats", default=3, show_default=True, help="Rounds of each comparison.")
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this; all unless told."
)
@click.option(
    "--catalog",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Items for histories: a built folder; the demo's unless told.",
)
@click.option("--model", default=demo.MODEL, show_default=True, help="What built that catalog.")
@click.option(
    "--requests",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts for speed: a file as `reclane eval` takes; the demo's short ones unless told.",
)
def bulk(
    rows: int,
    repeats: int,
    parts: tuple[str, ...],
    catalog: Path | None,
    model: str,
    requests: Path | None,
) -> None:
    """Bulk runs: against the bare encoder, beside live traffic, and of users without a text."""
    texts = [one.request.query or "" for one in read_cases(requests)] if requests else None
    console = Console()
    table = Table("", "measured", "goal", title="bulk runs", title_justify="left")
    with TemporaryDirectory(prefix="reclane-bench-") as name, ExitStack() as stack:
        sides = Sides(stack, Path(name))
        measured = Bench(sides, Path(name), rows, repeats)
        for part in parts or PARTS:
            if part == "histories":
                found = measured.histories(model, catalog or sides.catalog(model))
            else:
                found = measured.speed(texts) if part == "speed" else measured.live()
            for row in found:
                table.add_row(row.what, row.measured, row.goal)
                console.print(row.what, row.measured, row.goal, sep="  ", style="dim")
    console.print(table)
