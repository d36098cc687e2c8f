"""The result that a folder shows while another run goes on: what the run need not ask again, and
what it takes over."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from reclane_worker.bulk.errors import SinkUnusable
from reclane_worker.bulk.sinks.forms import Form
from reclane_worker.bulk.sinks.hashes import Hashes
from reclane_worker.bulk.sinks.results import MANIFEST, Manifest, Part

_JOINED_ROWS: Final = 5_000  # as much as parts are joined to
_JOINED_BYTES: Final = 16 << 20


class Earlier:
    """A finished result, read one part at a time.

    Two sets stay in memory once they were asked for, at 16 bytes a row: of this result's rows
    (`unchanged`), and of those that replace some of them (`without`).
    """

    def __init__(self, folder: Path, form: Form) -> None:
        """Reads the manifest.

        Raises:
            SinkUnusable: it cannot be read.
        """
        self._folder = folder
        self._form = form
        with _readable(folder):
            self._parts = Manifest.model_validate_json((folder / MANIFEST).read_bytes()).parts
        self._known: Hashes | None = None
        self._newer: tuple[Sequence[Path], Hashes] | None = None

    def unchanged(self, wanted: Mapping[str, str]) -> set[str]:
        """The keys that stand here with the digest that is wanted."""
        if self._known is None:
            paths = self._paths(self._parts)
            self._known = Hashes(
                (_stamp(key, digest) for key, digest in self._digests(path) if digest)
                for path in paths
            )
        held = self._known.hold([_stamp(key, digest) for key, digest in wanted.items()])
        return {key for key, is_held in zip(wanted, held, strict=True) if is_held}

    def without(self, newer: Sequence[Path], at: int) -> tuple[bytes, int, int] | None:
        """What some parts from the one at `at` on say of rows that the files `newer` do not hold.

        Returns:
            The content of a file, its rows, and where to go on; None behind the last part.
        """
        if at >= len(self._parts):
            return None
        end = at + joined(self._parts[at:])
        hashes = self._keys_of(newer)
        with _readable(self._folder):
            content, rows = self._form.without(self._paths(self._parts[at:end]), hashes)
        return content, rows, end

    def _keys_of(self, newer: Sequence[Path]) -> Hashes:
        if self._newer is None or self._newer[0] != newer:
            keys = Hashes((key for key, _ in self._digests(path)) for path in newer)
            self._newer = newer, keys
        return self._newer[1]

    def _digests(self, path: Path) -> Iterator[tuple[str, str | None]]:
        with _readable(path):
            yield from self._form.digests(path)

    def _paths(self, parts: Iterable[Part]) -> list[Path]:
        return [self._folder / str(part.name) for part in parts]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError, LookupError) as error:
        raise SinkUnusable(
            f"{path}: what a run wrote there cannot be read ({type(error).__name__}); "
            "a run that asks for all rows replaces it"
        ) from error


def joined(parts: Sequence[Part]) -> int:
    """How many of the first parts become one part, by what they hold: as many as make a part of
    the usual size, or parts would get smaller with every run that replaces some of their rows."""
    rows = size = 0
    for count, part in enumerate(parts):
        rows, size = rows + part.rows, size + part.bytes
        if count and (rows > _JOINED_ROWS or size > _JOINED_BYTES):
            return count
    return len(parts)


def _stamp(key: str, digest: str) -> str:
    """Both in one text; a digest has no space in it."""
    return f"{digest} {key}"
