"""Changes a built catalog without building it again: upsert, delete, compact.

Each change writes a segment with what it changes, and at last the manifest: whoever loads the
folder sees the catalog before or after, whatever is killed when. What it costs grows with the
change; only a compaction looks at all items, and even that encodes none.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from reclane.errors import ItemsInvalid
from reclane_worker import disk
from reclane_worker import manifest as layout
from reclane_worker.building import (
    encoded,
    item_of,
    line_of,
    write_learnt,
    write_parts,
    write_schema,
)
from reclane_worker.catalog import read_schema, read_taste, require_model
from reclane_worker.encoder import Encoder
from reclane_worker.layers import read_items, reading, removed_in
from reclane_worker.lookup import Lookup
from reclane_worker.manifest import Manifest, path_in, read_manifest, verify
from reclane_worker.reading import SourceItem
from reclane_worker.taste import signals
from reclane_worker.vectors import Encoded, Progress, Text
from reclane_worker.versions import clean, install, next_name
from reclane_worker.weights import read_learnt


@dataclass(slots=True)
class Tally:
    """Items by what became of them."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    absent: int = 0  # to be removed, and not there


@dataclass(frozen=True, slots=True)
class Change:
    """The catalog afterwards, and what became of the items that were given."""

    manifest: Manifest
    tally: Tally


def upsert(
    folder: Path,
    items: Iterable[SourceItem],
    encoder: Encoder,
    progress: Progress = lambda done: None,
) -> Change:
    """Add items, and change those that the catalog has; only these are encoded. Items that are
    equal to what is there change nothing.

    Raises:
        CatalogBusy: another process changes the folder.
        CatalogDamaged, CatalogMismatch: it is no catalog, or of another model.
        CatalogError: it cannot be written.
        ItemsInvalid: from reading the items, or one comes twice.
    """
    require_model(folder, read_manifest(folder), encoder)
    with disk.locked(folder):
        manifest = _with_room(folder)
        require_model(folder, manifest, encoder)
        tally = Tally()
        with disk.scratch(folder) as new, closing(Known(folder, manifest)) as known:
            written = write_parts(
                _changed(items, known, tally),
                new,
                manifest.fields,
                encoded(encoder),
                encoder.dim,
                progress,
            )
            if written:
                manifest = _add_segment(folder, new, manifest, (), manifest.items + tally.added)
        return Change(manifest, tally)


def _changed(items: Iterable[SourceItem], known: "Known", tally: Tally) -> Iterator[SourceItem]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ItemsInvalid(f"item {item.id!r} comes twice; leave one of them out")
        seen.add(item.id)
        line = known.line(item.id)
        if line == line_of(item):
            tally.unchanged += 1
            continue
        if line is None:
            tally.added += 1
        else:
            tally.updated += 1
        yield item


def delete(folder: Path, ids: Iterable[str]) -> Change:
    """Take items out; ids that the catalog has not are counted.

    Raises:
        CatalogBusy, CatalogDamaged, CatalogError: as `upsert`.
    """
    read_manifest(folder)
    with disk.locked(folder):
        manifest = _with_room(folder)
        wanted = list(dict.fromkeys(ids))
        with disk.scratch(folder) as new, closing(Known(folder, manifest)) as known:
            found = [item for item in wanted if known.line(item) is not None]
            if found:
                write_parts((), new, manifest.fields, _none, manifest.dim)
                manifest = _add_segment(folder, new, manifest, found, manifest.items - len(found))
        return Change(manifest, Tally(removed=len(found), absent=len(wanted) - len(found)))


def _none(first: int, texts: list[Text], progress: Progress) -> Encoded:
    raise AssertionError("no items, no vectors")


def compact(folder: Path) -> Manifest:
    """Make one base of all layers: the folder that a build of the same items would have made, but
    that vectors are not computed again.

    Versions since the last compaction can be loaded until the next one. Takes the memory of the
    loaded catalog.

    Raises:
        CatalogBusy, CatalogDamaged, CatalogError: as `upsert`; also where a file is damaged.
    """
    read_manifest(folder)
    with disk.locked(folder):
        manifest = read_manifest(folder)
        clean(folder, manifest)
        return _compacted(folder, manifest) if manifest.segments else manifest


def _compacted(folder: Path, manifest: Manifest) -> Manifest:
    verify(folder, manifest)
    with reading(folder):
        items = read_items(folder, manifest)
        schema = read_schema(folder, manifest, items)
        taste = read_taste(folder, manifest, items, torch.device("cpu"))
        learnt = read_learnt(folder, manifest)

    def copied(first: int, texts: list[Text], progress: Progress) -> Encoded:
        end = first + len(texts)
        return Encoded(items.vectors[first:end], items.passages.between(first, end))

    with disk.scratch(folder) as new:
        write_parts(map(item_of, items.rows), new, manifest.fields, copied, manifest.dim)
        write_schema(new, schema)
        if taste is not None:
            save_file(signals.tensors_of(taste), new / layout.TASTE)
        if learnt is not None:
            write_learnt(new, learnt)
        name = next_name(folder, "base")
        files = _digests(new, name, layout.present(new))
        after = _sealed(manifest, files, name)
        install(folder, new, name, manifest, after)
    clean(folder, after)
    return after


class Known:
    """What the layers of a catalog hold, by id."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._layers: list[tuple[Lookup, frozenset[str]]] = []  # the newest first
        with ExitStack() as stack, reading(folder):
            for name in reversed(manifest.layers):
                gone = removed_in(folder / name) if name in manifest.segments else ()
                lookup = stack.enter_context(closing(Lookup(folder / name)))
                self._layers.append((lookup, frozenset(gone)))
            self._opened = stack.pop_all()

    def line(self, item: str) -> bytes | None:
        """An item's line as it is now, None where there is no such item.

        Raises:
            CatalogDamaged: the files are not as a build writes them.
        """
        with reading(self._folder):
            for lookup, removed in self._layers:
                line = lookup.line(item)
                if line is not None or item in removed:
                    return line
        return None

    def close(self) -> None:
        self._opened.close()


# ---- the folder


def _with_room(folder: Path) -> Manifest:
    """The manifest, after a compaction where there are too many segments to add one."""
    manifest = read_manifest(folder)
    clean(folder, manifest)
    if len(manifest.segments) >= layout.MAX_SEGMENTS:
        manifest = _compacted(folder, manifest)
    return manifest


def _add_segment(
    folder: Path, new: Path, manifest: Manifest, removed: Sequence[str], items: int
) -> Manifest:
    (new / layout.REMOVED).write_text(json.dumps(removed, ensure_ascii=False), "utf-8")
    name = next_name(folder, "segment")
    files = manifest.files | _digests(new, name, layout.SEGMENT)
    segments = (*manifest.segments, name)
    after = _sealed(manifest, files, manifest.base, segments, items)
    install(folder, new, name, manifest, after)
    return after


def _digests(new: Path, name: str, files: Iterable[str]) -> dict[str, str]:
    return {path_in(name, one): layout.file_digest(new / one) for one in files}


def _sealed(
    before: Manifest,
    files: dict[str, str],
    base: str,
    segments: tuple[str, ...] = (),
    items: int | None = None,
) -> Manifest:
    changes = {
        "version": layout.version_of(files, base, segments),
        "items": before.items if items is None else items,
        "created": layout.now(),
        "files": files,
        "base": base,
        "segments": segments,
    }
    return before.model_copy(update=changes)
