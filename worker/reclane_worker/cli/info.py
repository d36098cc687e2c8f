"""`reclane catalog info`: what a catalog folder holds."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from reclane_worker.cli.items import folder_argument
from reclane_worker.manifest import TASTE, path_in, read_manifest, verify


@click.command()
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def info(folder: Path, as_json: bool) -> None:
    """Verify FOLDER and say what it holds."""
    manifest = read_manifest(folder)
    verify(folder, manifest)
    taste_path = path_in(manifest.base, TASTE)
    weights = _weights(folder / taste_path) if taste_path in manifest.files else {}
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


def _weights(path: Path) -> dict[str, float]:
    from reclane_worker.taste.signals import read_weights  # which imports torch

    return read_weights(path)
