"""`reclane catalog info`: what a catalog folder holds."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

from reclane_worker.cli.items import folder_argument
from reclane_worker.manifest import (
    OWNERS,
    TASTE,
    VECTORS,
    Manifest,
    path_in,
    read_manifest,
    verify,
)
from reclane_worker.weights import read_learnt


@click.command()
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def info(folder: Path, as_json: bool) -> None:
    """Verify FOLDER and say what it holds."""
    manifest = read_manifest(folder)
    verify(folder, manifest)
    passages = _passages(folder, manifest)
    taste, learnt = _taste(folder, manifest), read_learnt(folder, manifest)
    if as_json:
        told = manifest.model_dump(mode="json")
        told |= {"passages": passages} if passages else {}
        told |= {"taste": taste} if taste else {}
        told |= {"weights": learnt.weights.model_dump()} if learnt else {}
        click.echo(json.dumps(told, indent=2))
        return
    table = Table(title=str(folder), show_header=False)
    for name, value in manifest.model_dump(exclude={"files", "base", "segments"}).items():
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    table.add_row("changes", f"{len(manifest.segments)} since it was built or compacted")
    if passages:
        table.add_row("passages", f"{passages:,} of long items, those changed since included")
    if taste:
        table.add_row("taste", f"weights of a history: {_shown(taste)}")
    if learnt:
        shown = _shown(learnt.weights.model_dump())
        table.add_row("weights", f"{shown}; learnt from {learnt.requests:,} requests")
    table.add_row("files", "all SHA-256 as built")
    Console().print(table)


def _passages(folder: Path, manifest: Manifest) -> int:
    """How many vectors the layers hold beside one for each item."""
    found = 0
    for layer in manifest.layers:
        with safe_open(folder / layer / VECTORS, "np") as file:
            if OWNERS in file.keys():  # noqa: SIM118  # no mapping
                found += file.get_slice(OWNERS).get_shape()[0]
    return found


def _taste(folder: Path, manifest: Manifest) -> dict[str, float]:
    path = path_in(manifest.base, TASTE)
    if path not in manifest.files:
        return {}
    from reclane_worker.taste.signals import read_weights  # which imports torch

    return read_weights(folder / path)


def _shown(weights: dict[str, float]) -> str:
    return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
