"""`reclane catalog info`: what a catalog folder holds."""

import json
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

from reclane_worker.cli.items import folder_argument
from reclane_worker.intent.schema import Schema, stored_schema
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
    schema = stored_schema(folder, manifest)
    if as_json:
        told = manifest.model_dump(mode="json")
        told |= {"passages": passages} if passages else {}
        told |= {"taste": taste} if taste else {}
        told |= {"weights": learnt.weights.model_dump()} if learnt else {}
        told |= {"attributes": schema.model_dump(exclude_defaults=True).get("attributes", {})}
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
    Console().print(_attributes(schema))


def _attributes(schema: Schema) -> Table:
    """How requests and filters may use each attribute."""
    table = Table("attribute", "read as", "values", title="attributes, as built")
    for name, one in schema.attributes.items():
        read = one.kind.replace("_", " or ") + (", a small vocabulary" if one.closed else "")
        read += f": {_CONCEPTS.get(one.concept, one.concept)}" if one.concept else ""
        values = f"separated by {one.separator}" if one.separator else ""
        if one.kind == "number":
            values = f"{one.low:g} to {one.high:g} {one.unit}".strip()
        table.add_row(name, read, values)
    return table


_CONCEPTS: Final = {"clock": "time of day, minutes since midnight"}


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
