"""Which layers and versions a catalog's folder keeps, and how a new one comes to be.

All versions since the last compaction and since the one before can be loaded: a worker may still
read one, and a rollback may want it. What none of them needs goes with the next change. For who
holds the folder's lock.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from reclane_worker import disk
from reclane_worker import manifest as layout
from reclane_worker.manifest import Manifest


def next_name(folder: Path, kind: str) -> str:
    """Of a new layer; `kind` is base or segment."""
    return f"{kind}-{max(map(_number, _layers(folder)), default=0) + 1:06}"


def install(folder: Path, new: Path, name: str, before: Manifest, after: Manifest) -> None:
    """Give a layer its name, keep the manifest before, and at last write the one after: until then
    nobody sees anything of it."""
    disk.settle(new)
    new.rename(folder / name)
    versions = folder / layout.VERSIONS
    versions.mkdir(exist_ok=True)
    disk.flush(folder)
    disk.replace(versions / f"{before.version}.json", layout.shown(before))
    disk.replace(folder / layout.MANIFEST, layout.shown(after))


def clean(folder: Path, manifest: Manifest) -> None:
    """Remove versions from before the last two compactions, and what no version needs."""
    earlier = dict(_earlier(folder))
    others = {one.base for one in earlier.values()} - {manifest.base}
    bases = {manifest.base, *sorted(others, key=_number)[-1:]}
    needed = set(manifest.layers)
    for path, one in earlier.items():
        if one.base in bases:
            needed.update(one.layers)
        else:
            path.unlink()
    for name in set(_layers(folder)) - needed:
        shutil.rmtree(folder / name)
    if "" not in needed:
        for name in (*layout.FILES, *layout.OPTIONAL):
            (folder / name).unlink(missing_ok=True)
    for left in (*folder.glob(f"{disk.SCRATCH}*"), *folder.glob(f"*/{disk.SCRATCH}*")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _earlier(folder: Path) -> Iterator[tuple[Path, Manifest]]:
    for path in (folder / layout.VERSIONS).glob("[0-9a-f]*.json"):
        with suppress(ValidationError):  # nobody can load that
            yield path, Manifest.model_validate_json(path.read_bytes())


def _layers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if layout.LAYER.fullmatch(path.name)]


def _number(layer: str) -> int:
    """When a layer came; the folder itself was first."""
    found = layout.LAYER.fullmatch(layer)
    return int(found[1]) if found else 0
