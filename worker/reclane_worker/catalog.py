"""A catalog in memory: verified on loading, immutable afterwards. `building.py` makes one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic_core import from_json
from safetensors.torch import load_file

from reclane.errors import CatalogMismatch
from reclane_worker import manifest as layout
from reclane_worker.encoder import Encoder
from reclane_worker.index.filters import Attributes
from reclane_worker.index.lexical import LexicalIndex
from reclane_worker.intent.learning import aliases_of, learn_schema
from reclane_worker.intent.parse import Reader
from reclane_worker.intent.schema import Schema, readers, stored_schema
from reclane_worker.layers import Whole, read_items, reading
from reclane_worker.manifest import Manifest, path_in, read_manifest, verify
from reclane_worker.taste import signals
from reclane_worker.taste.likeness import Likeness
from reclane_worker.vectors import Passages
from reclane_worker.weights import USUAL, Floats, Weights, read_learnt


@dataclass(frozen=True)
class Catalog:
    """Items, their vectors (items, dim) float32 on the device and the mean of these (dim,), lexical
    index and attributes, what reads requests for them, and what is known of tastes, if anything.
    `passages` are those of items that say more than their vector can hold, None where none does.
    `encoded` names the fields that vectors and index were made of; `demand` (items,) 0 to 1 is what
    the requests that it learnt from asked for; `likeness` is by attributes.
    """

    name: str
    version: str
    ids: Sequence[str]
    titles: Sequence[str]
    positions: dict[str, int]
    vectors: torch.Tensor
    centre: torch.Tensor
    lexical: LexicalIndex
    attributes: Attributes
    reader: Reader
    lines: Sequence[bytes]
    taste: signals.Taste | None
    encoded: tuple[str, ...]
    weights: Weights = USUAL
    demand: Floats | None = None
    likeness: Likeness | None = None
    passages: Passages | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def known(self, ids: Iterable[str]) -> list[int]:
        """Positions of those ids that the catalog has."""
        return [p for p in map(self.positions.get, ids) if p is not None]

    def fields(self, position: int, wanted: Sequence[str]) -> dict[str, Any]:
        """Attributes of one item, and its text, by name; absent ones are left out."""
        row = from_json(self.lines[position])
        known = {"text": row["text"], **row["attributes"]}
        return {name: known[name] for name in wanted if name in known}


def load_catalog(name: str, folder: Path, encoder: Encoder, version: str | None = None) -> Catalog:
    """Verify and load a catalog folder for `encoder`, in its present version or one before.

    Raises:
        CatalogDamaged: a file is missing, its SHA-256 differs, it does not hold what a build
            writes, or the folder has no such version.
        CatalogMismatch: its vectors were made by another model.
    """
    manifest = read_manifest(folder, version)
    require_model(folder, manifest, encoder)
    verify(folder, manifest)
    with reading(folder):
        return _read(name, folder, manifest, encoder)


def require_model(folder: Path, manifest: Manifest, encoder: Encoder) -> None:
    """Raises:
    CatalogMismatch: its vectors were made by another model.
    """
    if manifest.model_revision != encoder.revision or manifest.dim != encoder.dim:
        raise CatalogMismatch(
            f"{folder} was built with {manifest.model}@{manifest.model_revision}, the worker runs "
            f"{encoder.name}@{encoder.revision}; build it again or set RECLANE_MODEL"
        )


def _read(name: str, folder: Path, manifest: Manifest, encoder: Encoder) -> Catalog:
    device = encoder.device
    items = read_items(folder, manifest)
    rows, positions = items.rows, items.positions()
    titles = [row["title"] for row in rows]
    schema = read_schema(folder, manifest, items)
    attributes = Attributes((row["attributes"] for row in rows), len(rows), readers(schema))
    lexical = items.postings.index()
    taste = read_taste(folder, manifest, items, device)
    learnt = read_learnt(folder, manifest)
    return Catalog(
        name=name,
        version=manifest.version,
        ids=list(positions),
        titles=titles,
        positions=positions,
        vectors=items.vectors.to(device),
        centre=centre_of(items.vectors).to(device),
        lexical=lexical.to(device),
        attributes=attributes,
        reader=Reader(schema, attributes.texts, titles, lexical.spread, encoder.knows),
        lines=items.lines,
        taste=taste,
        encoded=manifest.fields,
        weights=learnt.weights if learnt else USUAL,
        demand=learnt.demand(positions) if learnt else None,
        likeness=Likeness.of(attributes, schema, device),
        passages=items.passages.to(device) if len(items.passages) else None,
    )


def read_schema(folder: Path, manifest: Manifest, items: Whole) -> Schema:
    """What a build learnt of the attributes; where items have changed since, it is learnt anew."""
    schema = stored_schema(folder, manifest)
    return learn_schema(items.rows, aliases_of(schema)) if manifest.segments else schema


def read_taste(
    folder: Path, manifest: Manifest, items: Whole, device: torch.device
) -> signals.Taste | None:
    """What a build learnt of tastes. It goes with ids: items that came since have none."""
    path = path_in(manifest.base, layout.TASTE)
    if path not in manifest.files:
        return None
    taste = signals.restore(load_file(folder / path), len(items.base), device)
    if not manifest.segments:
        return taste
    positions = items.positions()
    places = np.array([positions.get(item, -1) for item in items.base], dtype=np.int64)
    return signals.moved(taste, places, len(positions))


def centre_of(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.mean(0) if len(vectors) else vectors.new_zeros(vectors.shape[1])
