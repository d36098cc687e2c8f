"""What the files of a folder are made of: Parquet or JSON lines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from reclane.bulk.spec import JsonlSink, ParquetSink
from reclane_worker.bulk.sinks.hashes import Hashes
from reclane_worker.bulk.sinks.jsonl import JsonLines


class Form(Protocol):
    """How records stand in the file of a part; the same records give the same bytes."""

    @property
    def ending(self) -> str:
        """Of the names of files that are written."""

    @property
    def readable(self) -> tuple[str, ...]:
        """Of the names of files that can be read."""

    def encode(self, records: list[dict[str, Any]]) -> bytes:
        """A file of these records."""

    def digests(self, path: Path) -> Iterator[tuple[str, str | None]]:
        """Key and digest of each record of a file."""

    def without(self, paths: Sequence[Path], newer: Hashes) -> tuple[bytes, int]:
        """One file of all records of these, in order, but those whose key is newer; their
        number."""


def form_of(spec: ParquetSink | JsonlSink) -> Form:
    """What the spec says the files are.

    Raises:
        MissingExtra: Parquet needs a package that is not installed.
    """
    if isinstance(spec, JsonlSink):
        return JsonLines(spec.gzip)
    from reclane_worker.bulk.sinks.parquet import Parquet

    return Parquet(spec.fields)
