"""JSON lines, plain or gzipped, as the form of a part."""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json

from reclane_worker.bulk.sinks.hashes import Hashes

_GZIP: Final = ".gz"


class JsonLines:
    """A `Form`: one record on each line."""

    def __init__(self, gzipped: bool) -> None:
        self.ending = ".jsonl" + (_GZIP if gzipped else "")
        self.readable = (".jsonl", f".jsonl{_GZIP}")

    def encode(self, records: list[dict[str, Any]]) -> bytes:
        return self._content(to_json(one) + b"\n" for one in records)

    def digests(self, path: Path) -> Iterator[tuple[str, str | None]]:
        for line in _lines(path):
            record = from_json(line)
            yield record["key"], record.get("digest")

    def without(self, paths: Sequence[Path], newer: Hashes) -> tuple[bytes, int]:
        kept: list[bytes] = []
        for path in paths:
            lines = list(_lines(path))
            held = newer.hold([from_json(line)["key"] for line in lines])
            kept += [line for line, is_newer in zip(lines, held, strict=True) if not is_newer]
        return self._content(kept), len(kept)

    def _content(self, lines: Iterable[bytes]) -> bytes:
        content = b"".join(lines)
        # Without the time, so that the same records give the same bytes.
        return gzip.compress(content, mtime=0) if self.ending.endswith(_GZIP) else content


def _lines(path: Path) -> Iterator[bytes]:
    opened = gzip.open if path.name.endswith(_GZIP) else open
    with opened(path, "rb") as file:
        yield from file
