"""Seals a catalog's folder anew, as whoever damages one on purpose could."""

from pathlib import Path

from reclane_worker import manifest as layout
from reclane_worker.manifest import read_manifest


def seal(folder: Path) -> None:
    """Let the manifest name what the files of a catalog without changes hold now."""
    manifest = read_manifest(folder)
    files = {name: layout.file_digest(folder / name) for name in manifest.files}
    sealed = manifest.model_copy(update={"files": files, "version": layout.version_of(files)})
    (folder / layout.MANIFEST).write_text(layout.shown(sealed), "utf-8")
