"""What lies in a catalog's folder, and the manifest that names it: read and verified here.

A catalog is a base, as it was built, and segments that changed it since; each is a layer. Only the
manifest changes: no file that a manifest names is ever written again.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from reclane.errors import CatalogDamaged

FORMAT: Final = 3
MANIFEST: Final = "manifest.json"
VERSIONS: Final = "versions"  # a folder with the manifests of versions before, named after them

ITEMS: Final = "items.jsonl"
VECTORS: Final = "vectors.safetensors"
PASSAGES: Final = "passages"  # in VECTORS, only where an item is long: vectors, and
OWNERS: Final = "owners"  # the row of the item that each is of
LEXICAL: Final = "lexical.safetensors"
VOCABULARY: Final = "vocabulary.json"
LOOKUP: Final = "lookup.safetensors"
SCHEMA: Final = "schema.json"
TASTE: Final = "taste.safetensors"  # only of a catalog built with interactions
LEARNT: Final = "learnt.json"  # only of one built with requests
REMOVED: Final = "removed.json"

PARTS: Final = (ITEMS, VECTORS, LEXICAL, VOCABULARY, LOOKUP)  # of the items of a layer
FILES: Final = (*PARTS, SCHEMA)  # of a base
OPTIONAL: Final = (TASTE, LEARNT)
SEGMENT: Final = (*PARTS, REMOVED)
MAX_SEGMENTS: Final = 100
LAYER: Final = re.compile(r"(?:base|segment)-(\d{6,})")

_Base = Annotated[str, StringConstraints(pattern=r"^(base-\d{6,})?$")]
_Segment = Annotated[str, StringConstraints(pattern=r"^segment-\d{6,}$")]


class Manifest(BaseModel):
    """What a catalog folder says of itself. `version` is a digest of its files.

    `base` is a folder in it, '' the folder itself; `segments` are folders, the newest last. `files`
    are paths in the folder and their SHA-256.
    """

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
    base: _Base = ""
    segments: tuple[_Segment, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The base, then what changed it, in that order."""
        return self.base, *self.segments


def read_manifest(folder: Path, version: str | None = None) -> Manifest:
    """The manifest alone, unverified files; of the present version, or of one before.

    Raises:
        CatalogDamaged: not a catalog folder, of a format this version does not know, or it does
            not hold the version.
    """
    manifest = _read(folder / MANIFEST, folder)
    if version in (None, manifest.version):
        return manifest
    path = folder / VERSIONS / f"{version}.json"
    if not path.exists():
        raise CatalogDamaged(
            f"{folder} holds version {manifest.version}, and {version} no more; "
            "publish one that it holds"
        )
    return _read(path, folder)


def _read(path: Path, folder: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CatalogDamaged(
            f"{folder} is no catalog (no {MANIFEST}); make one with: reclane catalog build"
        ) from None
    except (OSError, ValidationError):
        raise CatalogDamaged(f"{path} cannot be read; build the catalog again") from None
    if manifest.format != FORMAT:
        raise CatalogDamaged(
            f"{folder} has format {manifest.format}, this reclane reads {FORMAT}; build it again"
        )
    return manifest


def version_of(digests: Mapping[str, str], base: str = "", segments: Sequence[str] = ()) -> str:
    """The version that files with these SHA-256 make, wherever the base lies."""
    joined = "".join(digests[name] for name in stored(digests, base, segments))
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def stored(names: Collection[str], base: str = "", segments: Sequence[str] = ()) -> list[str]:
    """Paths of a catalog that has these, in their order: all that each has, what more is there."""
    needed = [path_in(base, name) for name in FILES]
    more = [path_in(base, name) for name in OPTIONAL if path_in(base, name) in names]
    return [*needed, *more, *(path_in(one, name) for one in segments for name in SEGMENT)]


def present(folder: Path) -> list[str]:
    """The files of a base that lie in a folder."""
    return [name for name in (*FILES, *OPTIONAL) if (folder / name).exists()]


def shown(manifest: Manifest) -> str:
    """As it is written."""
    return manifest.model_dump_json(indent=2) + "\n"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def path_in(layer: str, name: str) -> str:
    """The path in a catalog's folder of a file of one of its layers."""
    return f"{layer}/{name}" if layer else name


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest's SHA-256, and the version with the files.

    Raises:
        CatalogDamaged: naming the first file that is missing or differs.
    """
    paths = stored(manifest.files, manifest.base, manifest.segments)
    made = set(manifest.files) == set(paths) and version_of(
        manifest.files, manifest.base, manifest.segments
    )
    if manifest.version != made:
        raise CatalogDamaged(f"{folder / MANIFEST} was altered; build the catalog again")
    for path in paths:
        try:
            digest = file_digest(folder / path)
        except FileNotFoundError:
            raise CatalogDamaged(f"{folder / path} is missing; build the catalog again") from None
        except OSError as error:
            raise CatalogDamaged(f"{folder / path} cannot be read ({error.strerror})") from None
        if digest != manifest.files[path]:
            raise CatalogDamaged(
                f"{folder / path} was altered or cut short (SHA-256 differs); "
                "build the catalog again or restore it"
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
