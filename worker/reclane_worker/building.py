"""Builds a catalog folder from items: streaming, bounded memory, written atomically."""

import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from pydantic_core import to_json
from safetensors.numpy import save_file

from reclane.errors import CatalogError
from reclane_worker import disk
from reclane_worker import manifest as layout
from reclane_worker.encoder import Encoder
from reclane_worker.index.lexical import LexicalBuilder, arrays_of
from reclane_worker.intent.learning import SchemaBuilder
from reclane_worker.intent.schema import Aliases, Schema
from reclane_worker.layers import Row
from reclane_worker.lookup import write_lookup
from reclane_worker.passages import heading
from reclane_worker.reading import OWN_FIELDS, SourceItem
from reclane_worker.text import normalise
from reclane_worker.vectors import CHUNK, Encoded, Progress, Text, VectorsFile, encode_items
from reclane_worker.weights import Learnt

MAX_TEXT_CHARS: Final = 20_000

Learn = Callable[[Path], None]  # adds an optional file to the folder
Vectors = Callable[[int, list[Text], Progress], Encoded]
"""Vectors of some items in a row, given the position of the first and their texts; may tell how
many there are, those before included."""


def build_catalog(
    items: Iterable[SourceItem],
    out: Path,
    encoder: Encoder,
    *,
    fields: tuple[str, ...] = OWN_FIELDS,
    aliases: Aliases | None = None,
    replace: bool = False,
    progress: Progress = lambda done: None,
    learn: Sequence[Learn] = (),
) -> layout.Manifest:
    """Build `out` from items; `fields` are what is encoded and indexed, joined in order, and
    `aliases` other names of attributes and values. Each of `learn` is called with the folder, a
    catalog already, before it appears.

    Memory grows with vocabulary, ids and postings (about 12 bytes each), not with vectors or texts.
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
        schema, unseen = SchemaBuilder(aliases), set(fields).difference(OWN_FIELDS)

        def seen() -> Iterator[SourceItem]:
            for item in items:
                schema.add(item.title, item.attributes)
                unseen.difference_update(item.attributes)
                yield item

        count = write_parts(seen(), folder, fields, encoded(encoder), encoder.dim, progress)
        if unseen and count:
            raise CatalogError(f"no item has a field {', '.join(sorted(unseen))}; see --fields")
        write_schema(folder, schema.build())
        manifest = _seal(folder, encoder, fields, count)
        for one in learn:
            one(folder)
            manifest = _seal(folder, encoder, fields, count)
        disk.settle(folder)
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


def write_parts(
    items: Iterable[SourceItem],
    folder: Path,
    fields: tuple[str, ...],
    vectors: Vectors,
    dim: int,
    progress: Progress = lambda done: None,
) -> int:
    """Write all files that a layer has of its items, whatever becomes a layer: a build, a change,
    a compaction. Returns how many items there were.

    `progress` hears how many vectors were written.
    """
    lexical = LexicalBuilder()
    ids: list[str] = []
    starts = array("q")
    with (folder / layout.ITEMS).open("wb") as lines, VectorsFile(folder, dim) as written:
        for chunk in _chunks(items):
            first = len(ids)
            texts = [(heading(one.title, fields), indexed_text(one, fields)) for one in chunk]
            for item, (_, text) in zip(chunk, texts, strict=True):
                ids.append(item.id)
                starts.append(lines.tell())
                lines.write(line_of(item) + b"\n")
                lexical.add(text)
            written.add(vectors(first, texts, progress))
        written.store()
    postings = lexical.build()
    save_file(arrays_of(postings), folder / layout.LEXICAL)
    vocabulary = json.dumps(list(postings.vocabulary), ensure_ascii=False)
    (folder / layout.VOCABULARY).write_text(vocabulary, "utf-8")
    write_lookup(folder, ids, starts)
    return len(ids)


def write_schema(folder: Path, schema: Schema) -> None:
    described = schema.model_dump_json(indent=1, exclude_defaults=True)
    (folder / layout.SCHEMA).write_text(described, "utf-8")


def encoded(encoder: Encoder) -> Vectors:
    """Vectors that the model makes of the texts."""

    def made(first: int, texts: list[Text], progress: Progress) -> Encoded:
        return encode_items(texts, encoder, lambda done: progress(first + done))

    return made


def _chunks(items: Iterable[SourceItem]) -> Iterator[list[SourceItem]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def item_of(row: Row) -> SourceItem:
    """The item of a stored line, as JSON."""
    return SourceItem(row["id"], row["title"], row["text"], row["attributes"])


def line_of(item: SourceItem) -> bytes:
    """What a catalog stores of an item, without the line's end; equal for equal items."""
    row = {
        "id": item.id,
        "title": item.title,
        "text": item.text,
        "attributes": item.attributes,
    }
    return to_json(row)


def write_learnt(folder: Path, learnt: Learnt) -> None:
    (folder / layout.LEARNT).write_text(learnt.model_dump_json(indent=1), "utf-8")


def _seal(folder: Path, encoder: Encoder, fields: tuple[str, ...], count: int) -> layout.Manifest:
    """Write the manifest of what is in the folder."""
    digests = {name: layout.file_digest(folder / name) for name in layout.present(folder)}
    manifest = layout.Manifest(
        format=layout.FORMAT,
        version=layout.version_of(digests),
        model=encoder.name,
        model_revision=encoder.revision,
        pooling=encoder.pooling,
        dim=encoder.dim,
        items=count,
        fields=fields,
        created=layout.now(),
        files=digests,
    )
    (folder / layout.MANIFEST).write_text(layout.shown(manifest), "utf-8")
    return manifest


def _publish(folder: Path, out: Path) -> None:
    """Make the folder visible under its name; nobody may be changing what it replaces."""
    if not out.exists():
        folder.rename(out)
        return
    with disk.locked(out):
        old = out.with_name(f".{out.name}-old-{os.getpid()}")
        out.rename(old)
        folder.rename(out)
    shutil.rmtree(old)
