"""Reads the layers of a catalog, and puts what they hold together.

Order is that of a dictionary: an item that was changed keeps its place, a new one comes last, and
so does one that was removed and came back.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from reclane.errors import CatalogDamaged
from reclane_worker import manifest as layout
from reclane_worker import vectors
from reclane_worker.index.lexical import Ints, Postings, joined, restore
from reclane_worker.manifest import Manifest
from reclane_worker.vectors import Passages

Row = dict[str, Any]


@dataclass(frozen=True)
class Items:
    """Items by position: their lines, these as JSON, vectors (items, dim) float32, those of
    passages, and postings."""

    lines: Sequence[bytes]
    rows: Sequence[Row]
    vectors: torch.Tensor
    passages: Passages
    postings: Postings


@dataclass(frozen=True)
class Whole(Items):
    """The items of a whole catalog. `base` are the ids of its first layer, in order."""

    base: Sequence[str]

    def positions(self) -> dict[str, int]:
        return {row["id"]: position for position, row in enumerate(self.rows)}


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """What is not as a build writes it raises CatalogDamaged: a digest shows accidents, not who
    made the folder."""
    try:
        yield
        return
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        why = type(error).__name__
    except SafetensorError:
        why = "safetensors"
    raise CatalogDamaged(f"{folder} cannot be read ({why}); build the catalog again")


def read_items(folder: Path, manifest: Manifest) -> Whole:
    """All items that a manifest names, verified before.

    Raises:
        CatalogDamaged: the files do not hold them.
    """
    parts = [_read(folder / layer, manifest.dim) for layer in manifest.layers]
    removed = [(), *(removed_in(folder / layer) for layer in manifest.segments)]
    whole = _together(parts, removed)
    if len(whole.rows) != manifest.items or len(whole.positions()) != manifest.items:
        raise _no_items(folder)
    return whole


def removed_in(segment: Path) -> tuple[str, ...]:
    """Ids of the items that a segment takes out of the layers before it."""
    found = from_json((segment / layout.REMOVED).read_bytes())
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("not a list of ids")
    return tuple(found)


def _read(folder: Path, dim: int) -> Items:
    lines = (folder / layout.ITEMS).read_bytes().splitlines()
    rows = [from_json(line) for line in lines]
    if not all(map(_is_item, rows)):
        raise _no_items(folder)
    encoded = vectors.restore(load_file(folder / layout.VECTORS), len(rows), dim)
    if encoded is None:
        raise _unfit(folder / layout.VECTORS)
    vocabulary = json.loads((folder / layout.VOCABULARY).read_text("utf-8"))
    postings = restore(vocabulary, load_arrays(folder / layout.LEXICAL))
    if not postings.is_sound() or len(postings.lengths) != len(rows):
        raise _unfit(folder / layout.LEXICAL)
    return Items(lines, rows, encoded.vectors, encoded.passages, postings)


def _no_items(folder: Path) -> CatalogDamaged:
    return CatalogDamaged(f"{folder / layout.ITEMS} does not hold items; build the catalog again")


def _unfit(path: Path) -> CatalogDamaged:
    return CatalogDamaged(f"{path} does not fit the items; build the catalog again")


def _is_item(row: Row) -> bool:
    texts = row["id"], row["title"], row["text"]
    return all(isinstance(one, str) for one in texts) and isinstance(row["attributes"], dict)


def _together(parts: Sequence[Items], removed: Sequence[Sequence[str]]) -> Whole:
    first = parts[0]
    base = [row["id"] for row in first.rows]
    if len(parts) == 1:
        return Whole(first.lines, first.rows, first.vectors, first.passages, first.postings, base)
    taken: dict[str, int] = {}  # id -> its row, as if all layers were one below the other
    rows: list[Row] = []
    lines: list[bytes] = []
    for part, gone in zip(parts, removed, strict=True):
        for item in gone:
            taken.pop(item, None)
        taken.update((row["id"], len(rows) + n) for n, row in enumerate(part.rows))
        rows += part.rows
        lines += part.lines
    chosen = list(taken.values())
    places = _places(parts, chosen)
    return Whole(
        [lines[row] for row in chosen],
        [rows[row] for row in chosen],
        torch.cat([part.vectors for part in parts])[chosen],
        vectors.joined(
            [part.passages for part in parts], [torch.from_numpy(one).long() for one in places]
        ),
        joined([part.postings for part in parts], places, len(chosen)),
        base,
    )


def _places(parts: Sequence[Items], chosen: Sequence[int]) -> list[Ints]:
    """Of each row of each part its position, or -1."""
    ends = np.cumsum([len(part.rows) for part in parts])
    places = np.full(ends[-1], -1, dtype=np.int32)
    places[chosen] = np.arange(len(chosen), dtype=np.int32)
    return np.split(places, ends[:-1])
