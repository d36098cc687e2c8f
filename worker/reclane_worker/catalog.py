"""A built catalog: verified on loading, immutable afterwards. `building.py` makes one."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file

from reclane.errors import CatalogDamaged, CatalogMismatch
from reclane_worker.encoder import Encoder
from reclane_worker.index.filters import Attributes
from reclane_worker.index.lexical import LexicalIndex, restore
from reclane_worker.intent.parse import Reader
from reclane_worker.intent.schema import Schema
from reclane_worker.taste import signals

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
ITEMS: Final = "items.jsonl"
VECTORS: Final = "vectors.safetensors"
LEXICAL: Final = "lexical.safetensors"
VOCABULARY: Final = "vocabulary.json"
SCHEMA: Final = "schema.json"
TASTE: Final = "taste.safetensors"  # only of a catalog built with interactions
FILES: Final = (ITEMS, VECTORS, LEXICAL, VOCABULARY, SCHEMA)
OPTIONAL: Final = (TASTE,)


class Manifest(BaseModel):
    """What a catalog folder says of itself. `version` is a digest of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    version: str
    model: str
    model_revision: str
    pooling: str
    dim: int
    items: int
    fields: tuple[str, ...]
    created: str
    files: dict[str, str]


@dataclass(frozen=True)
class Catalog:
    """Items, their vectors (items, dim) float32 on the device and the mean of these (dim,), lexical
    index and attributes, what reads requests for them, and what is known of tastes, if anything.
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


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, unverified files.

    Raises:
        CatalogDamaged: not a catalog folder, or of a format this version does not know.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise CatalogDamaged(
            f"{folder} is no catalog (no {MANIFEST}); make one with: reclane catalog build"
        ) from None
    except (OSError, ValidationError):
        raise CatalogDamaged(
            f"{folder / MANIFEST} cannot be read; build the catalog again"
        ) from None
    if manifest.format != FORMAT:
        raise CatalogDamaged(
            f"{folder} has format {manifest.format}, this reclane reads {FORMAT}; build it again"
        )
    return manifest


def load_catalog(name: str, folder: Path, encoder: Encoder) -> Catalog:
    """Verify and load a catalog folder for `encoder`.

    Raises:
        CatalogDamaged: a file is missing, its SHA-256 differs, or it does not hold what a build
            writes: a digest shows accidents, not who made the folder.
        CatalogMismatch: its vectors were made by another model.
    """
    manifest = read_manifest(folder)
    if manifest.model_revision != encoder.revision or manifest.dim != encoder.dim:
        raise CatalogMismatch(
            f"{folder} was built with {manifest.model}@{manifest.model_revision}, the worker runs "
            f"{encoder.name}@{encoder.revision}; build it again or set RECLANE_MODEL"
        )
    verify(folder, manifest)
    try:
        return _read(name, folder, manifest, encoder)
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        why = type(error).__name__
    except SafetensorError:
        why = "safetensors"
    raise CatalogDamaged(f"{folder} cannot be read ({why}); build the catalog again")


def _read(name: str, folder: Path, manifest: Manifest, encoder: Encoder) -> Catalog:
    lines = (folder / ITEMS).read_bytes().splitlines()
    rows = [from_json(line) for line in lines]
    ids = [row["id"] for row in rows]
    positions = {item: position for position, item in enumerate(ids)}
    if len(positions) != manifest.items or not all(map(_is_item, rows)):
        raise CatalogDamaged(f"{folder / ITEMS} does not hold items; build the catalog again")
    vectors = load_file(folder / VECTORS)["vectors"]
    fits = vectors.shape == (len(ids), manifest.dim) and vectors.dtype == torch.float32
    if not fits or not vectors.isfinite().all():
        raise CatalogDamaged(f"{folder / VECTORS} does not fit the items; build the catalog again")
    vocabulary = json.loads((folder / VOCABULARY).read_text("utf-8"))
    lexical = restore(vocabulary, load_file(folder / LEXICAL), len(ids))
    if not lexical.is_sound():
        raise CatalogDamaged(f"{folder / LEXICAL} does not fit the items; build the catalog again")
    titles = [row["title"] for row in rows]
    attributes = Attributes((row["attributes"] for row in rows), len(ids))
    schema = Schema.model_validate_json((folder / SCHEMA).read_bytes())
    taste = None
    if TASTE in manifest.files:
        taste = signals.restore(load_file(folder / TASTE), len(ids), encoder.device)
    return Catalog(
        name=name,
        version=manifest.version,
        ids=ids,
        titles=titles,
        positions=positions,
        vectors=vectors.to(encoder.device),
        centre=_centre(vectors).to(encoder.device),
        lexical=lexical.to(encoder.device),
        attributes=attributes,
        reader=Reader(schema, attributes.texts, titles, lexical.spread, encoder.knows),
        lines=lines,
        taste=taste,
    )


def _centre(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.mean(0) if len(vectors) else vectors.new_zeros(vectors.shape[1])


def _is_item(row: dict[str, Any]) -> bool:
    texts = row["id"], row["title"], row["text"]
    return all(isinstance(one, str) for one in texts) and isinstance(row["attributes"], dict)


def version_of(digests: Mapping[str, str]) -> str:
    """The version that files with these SHA-256 make."""
    joined = "".join(digests[name] for name in _stored(digests))
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def _stored(names: Collection[str]) -> tuple[str, ...]:
    """Files of a catalog that has these, in their order: all that each has, what more is there."""
    return (*FILES, *(name for name in OPTIONAL if name in names))


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest's SHA-256, and the version with the files.

    Raises:
        CatalogDamaged: naming the first file that is missing or differs.
    """
    names = _stored(manifest.files)
    if set(manifest.files) != set(names) or manifest.version != version_of(manifest.files):
        raise CatalogDamaged(f"{folder / MANIFEST} was altered; build the catalog again")
    for name in names:
        try:
            digest = file_digest(folder / name)
        except FileNotFoundError:
            raise CatalogDamaged(f"{folder / name} is missing; build the catalog again") from None
        except OSError as error:
            raise CatalogDamaged(f"{folder / name} cannot be read ({error.strerror})") from None
        if digest != manifest.files.get(name):
            raise CatalogDamaged(
                f"{folder / name} was altered or cut short (SHA-256 differs); "
                "build the catalog again or restore it"
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
