"""Builds a catalog folder from items: streaming, bounded memory, written atomically."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Final

import numpy as np
import torch
from pydantic_core import to_json
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

from reclane.errors import CatalogError
from reclane_worker import catalog as layout
from reclane_worker.batching import Limits, plan
from reclane_worker.encoder import Encoder
from reclane_worker.index.lexical import LexicalBuilder, tensors_of
from reclane_worker.intent.schema import Aliases, SchemaBuilder
from reclane_worker.reading import SourceItem
from reclane_worker.text import normalise

CHUNK: Final = 2_048  # items encoded together, sorted by length; bounds memory
LIMITS: Final = Limits(max_tokens=4_096, max_requests=CHUNK, overhead_tokens=256)
MAX_TEXT_CHARS: Final = 20_000

Progress = Callable[[int], None]
Learn = Callable[[Path], None]  # adds an optional file to the folder


def build_catalog(
    items: Iterable[SourceItem],
    out: Path,
    encoder: Encoder,
    *,
    fields: tuple[str, ...] = ("title", "text"),
    aliases: Aliases | None = None,
    replace: bool = False,
    progress: Progress = lambda done: None,
    learn: Learn | None = None,
) -> layout.Manifest:
    """Build `out` from items; `fields` are what is encoded and indexed, joined in order, and
    `aliases` other names of attributes and values. `learn` is called with the folder before it is
    sealed.

    Memory grows with vocabulary and postings (about 12 bytes each), not with vectors or texts.
    The folder appears complete or not at all: it is written beside `out` and renamed.

    Raises:
        CatalogError: `out` exists and `replace` is not set, or is no catalog; or no item has one
            of the fields.
        ItemsInvalid: from reading the items.
    """
    out = out.resolve()
    _check_place(out, replace)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        count = _write_parts(items, folder, encoder, fields, SchemaBuilder(aliases), progress)
        if learn is not None:
            learn(folder)
        manifest = _write_manifest(folder, encoder, fields, count)
        _publish(folder, out)
        return manifest
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_place(out: Path, replace: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise CatalogError(f"{out} is a file; choose another name")
    if not any(out.iterdir()):
        return
    if not (out / layout.MANIFEST).is_file():
        raise CatalogError(f"{out} holds something else than a catalog; choose another folder")
    if not replace:
        raise CatalogError(f"{out} exists; choose another folder or pass --replace")


def indexed_text(item: SourceItem, fields: tuple[str, ...]) -> str:
    """What is encoded and indexed of an item: the fields' values, normalised and joined."""
    parts = []
    for name in fields:
        value = {"title": item.title, "text": item.text}.get(name, item.attributes.get(name))
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if value not in (None, ""):
            parts.append(str(value))
    return normalise(". ".join(parts))[:MAX_TEXT_CHARS]


def _write_parts(
    items: Iterable[SourceItem],
    folder: Path,
    encoder: Encoder,
    fields: tuple[str, ...],
    schema: SchemaBuilder,
    progress: Progress,
) -> int:
    lexical = LexicalBuilder()
    unseen = set(fields) - {"title", "text"}
    raw_vectors = folder / "vectors.raw"
    count = 0
    with (folder / layout.ITEMS).open("wb") as lines, raw_vectors.open("wb") as vectors:
        for chunk in _chunks(items):
            texts = [indexed_text(item, fields) for item in chunk]
            for item, text in zip(chunk, texts, strict=True):
                unseen.difference_update(item.attributes)
                lines.write(_line(item))
                lexical.add(text)
                schema.add(item.title, item.attributes)
            for part in encode_into(vectors, texts, encoder):
                count += part
                progress(count)
    if unseen and count:
        raise CatalogError(f"no item has a field {', '.join(sorted(unseen))}; see --fields")
    _store_vectors(raw_vectors, folder, count, encoder.dim)
    index = lexical.build()
    save_file(tensors_of(index), folder / layout.LEXICAL)
    vocabulary = json.dumps(list(index.vocabulary), ensure_ascii=False)
    (folder / layout.VOCABULARY).write_text(vocabulary, "utf-8")
    described = schema.build().model_dump_json(indent=1, exclude_defaults=True)
    (folder / layout.SCHEMA).write_text(described, "utf-8")
    return count


def _chunks(items: Iterable[SourceItem]) -> Iterator[list[SourceItem]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _line(item: SourceItem) -> bytes:
    row = {
        "id": item.id,
        "title": item.title,
        "text": item.text,
        "attributes": item.attributes,
    }
    return to_json(row) + b"\n"


def encode_into(out: IO[bytes], texts: list[str], encoder: Encoder) -> Iterator[int]:
    """Write a chunk's vectors, float32, in the order of its texts; yields how many were encoded.

    Raises:
        CatalogError: the model gives vectors that are not numbers.
    """
    tokens = encoder.tokenise([text or " " for text in texts], "document")
    vectors = np.empty((len(texts), encoder.dim), dtype=np.float32)  # (chunk, dim)
    for group in plan([len(ids) for ids in tokens], LIMITS):
        encoded = encoder.encode([tokens[i] for i in group], "document")
        if not bool(torch.isfinite(encoded).all()):
            raise CatalogError(
                f"{encoder.name} gave vectors that are not numbers; use another model"
            )
        vectors[group] = encoded.cpu().numpy()
        yield len(group)
    out.write(vectors.tobytes())


def _store_vectors(raw: Path, folder: Path, count: int, dim: int) -> None:
    shape = (count, dim)
    empty = np.zeros(shape, dtype=np.float32)
    mapped = np.memmap(raw, dtype=np.float32, mode="r", shape=shape) if count else empty
    save_numpy({"vectors": mapped}, folder / layout.VECTORS)
    raw.unlink()


def _write_manifest(
    folder: Path, encoder: Encoder, fields: tuple[str, ...], count: int
) -> layout.Manifest:
    digests = {
        name: layout.file_digest(folder / name)
        for name in (*layout.FILES, *layout.OPTIONAL)
        if (folder / name).exists()
    }
    manifest = layout.Manifest(
        format=layout.FORMAT,
        version=layout.version_of(digests),
        model=encoder.name,
        model_revision=encoder.revision,
        pooling=encoder.pooling,
        dim=encoder.dim,
        items=count,
        fields=fields,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=digests,
    )
    (folder / layout.MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    return manifest


def _publish(folder: Path, out: Path) -> None:
    """Make the folder durable, then visible under its name in one rename."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.chmod(0o755 if path == folder else 0o644)  # a worker may be another user
    if out.exists():
        old = out.with_name(f".{out.name}-old-{os.getpid()}")
        out.rename(old)
        folder.rename(out)
        shutil.rmtree(old)
    else:
        folder.rename(out)
