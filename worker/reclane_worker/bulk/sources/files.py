"""A source of files: found by path or glob, sorted by name, pinned, read one after another."""

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from glob import glob, has_magic
from pathlib import Path, PurePath
from typing import Final

from reclane.bulk.spec import FilesSource
from reclane_worker.bulk.errors import SourceChanged, SourceUnusable
from reclane_worker.bulk.sources.delimited import DELIMITERS, read_delimited
from reclane_worker.bulk.sources.jsonl import read_jsonl
from reclane_worker.bulk.sources.parquet import count_parquet, read_parquet
from reclane_worker.bulk.sources.rows import Cursor, Met, Slice, take

MAX_FILES: Final = 10_000
SUPPORTED: Final = ".parquet, and .csv, .tsv, .jsonl, .ndjson, each also with .gz"

_PARQUET: Final = ".parquet"
_READERS: Final[dict[str, Callable[[Path, str, FilesSource, tuple[int, ...]], Iterator[Met]]]] = {
    _PARQUET: read_parquet,
    **dict.fromkeys((".jsonl", ".ndjson"), read_jsonl),
    **{
        ending: partial(read_delimited, delimiter=delimiter)
        for ending, delimiter in DELIMITERS.items()
    },
}


class Files:
    """A `Source`. Its cursor pins the files by name, size and time of change, which see all but
    a change in place that keeps both."""

    def __init__(self, spec: FilesSource) -> None:
        """Find the files.

        Raises:
            SourceUnusable: a path or glob finds none, or a file of an unknown kind.
        """
        self._spec = spec
        self._paths = _find(spec.paths)
        self._readers = [_READERS[_ending(path)] for path in self._paths]
        parent = os.path.commonpath([path.parent.absolute() for path in self._paths])
        self._names = [str(path.absolute().relative_to(parent)) for path in self._paths]
        self._at: tuple[int, ...] = ()
        self._met: Iterator[Met] | None = None  # from `_at` on

    def check(self) -> None:
        for number in range(len(self._paths)):
            next(self._read_file(number, ()), None)

    def read(self, cursor: Cursor | None, limit: int) -> Slice:
        pin = self._pin()
        if cursor is not None and cursor["pin"] != pin:
            raise SourceChanged(self._changed(cursor))
        at = tuple(cursor["at"]) if cursor else (0,)
        met, self._met = self._met if self._at == at else None, None
        met = met or self._read_from(*at)
        rows, bad, after = take(met, limit)
        if self._pin() != pin:
            raise SourceChanged(self._changed(cursor))
        if after is None:
            return Slice(rows, bad, None)
        self._at, self._met = after, met
        file = self._paths[after[0]]
        return Slice(rows, bad, {"pin": pin, "file": _identity(file), "at": list(after)})

    def count(self) -> int | None:
        if self._spec.changed_since or {_ending(path) for path in self._paths} != {_PARQUET}:
            return None
        return sum(count_parquet(path) for path in self._paths)

    def close(self) -> None:
        self._met = None  # a generator that nobody holds closes its file

    def _read_from(self, first: int, *at: int) -> Iterator[Met]:
        for number in range(first, len(self._paths)):
            yield from self._read_file(number, at if number == first else ())

    def _read_file(self, number: int, at: tuple[int, ...]) -> Iterator[Met]:
        """A file's rows; their `after` begins with the file's number."""
        read = self._readers[number]
        for met in read(self._paths[number], self._names[number], self._spec, at):
            yield Met((number, *met.after), met.place, met.key, met.request, met.size, met.reason)

    def _pin(self) -> str:
        """What all files are now, in 16 characters."""
        pins = hashlib.sha256()
        for path in self._paths:
            pins.update(repr((str(path), _identity(path))).encode())
        return pins.hexdigest()[:16]

    def _changed(self, cursor: Cursor | None) -> str:
        number = cursor["at"][0] if cursor else len(self._paths)
        if cursor and number < len(self._paths):
            path = self._paths[number]
            if _identity(path) != cursor["file"]:
                return f"{path} was changed while the run read it; start a new run"
        return (
            f"of the files that the run reads (now {len(self._paths)}), some were changed, added "
            "or removed since it began; start a new run"
        )


def _find(paths: tuple[str, ...]) -> list[Path]:
    found: set[Path] = set()
    for path in paths:
        found.update(_match(path))
        if len(found) > MAX_FILES:
            raise SourceUnusable(f"more than {MAX_FILES} files; write fewer and larger ones")
    for file in found:
        if _ending(file) not in _READERS:
            raise SourceUnusable(f"{file}: unknown kind of file; supported are {SUPPORTED}")
    return sorted(found)


def _match(path: str) -> list[Path]:
    if Path(path).is_dir():
        raise SourceUnusable(f"{path} is a folder; write which files in it: {path}/*{_PARQUET}")
    if not has_magic(path) or Path(path).exists():
        if not Path(path).is_file():
            raise SourceUnusable(f"{Path(path).absolute()}: there is no such file")
        return [Path(path)]
    names = glob(path, recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
    files = [Path(name) for name in names if Path(name).is_file()]
    if not files:
        raise SourceUnusable(f"{Path(path).absolute()} matches no file")
    return files


def _ending(path: Path) -> str:
    """Lower case; .gz counts only behind lines of text."""
    name = path.name.lower()
    ending = PurePath(name.removesuffix(".gz")).suffix
    return "" if ending == _PARQUET and name.endswith(".gz") else ending


def _identity(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError as error:
        raise SourceUnusable(f"{path}: cannot be read: {error.strerror}") from None
    return [found.st_size, found.st_mtime_ns]
