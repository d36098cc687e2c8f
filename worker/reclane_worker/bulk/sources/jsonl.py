"""Rows of JSON lines; a position is the byte offset and the number of lines before it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from reclane.bulk.spec import FilesSource
from reclane_worker.bulk.sources.lines import Lines, check_utf8, opened
from reclane_worker.bulk.sources.mapping import bind, met_in
from reclane_worker.bulk.sources.rows import Met
from reclane_worker.bulk.sources.values import Unreadable


def read_jsonl(path: Path, name: str, spec: FilesSource, at: tuple[int, ...]) -> Iterator[Met]:
    """Rows from `at` on. Rows may have different columns: one that lacks the key is bad."""
    mapper = bind(spec, None, name)
    with opened(path) as file:
        lines = Lines(file, *at)
        yield from met_in(lines, name, mapper, lambda: _record(next(lines)))


def _record(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return None
    check_utf8(text)
    try:
        record = from_json(text, allow_inf_nan=False)
    except ValueError:
        raise Unreadable("not valid JSON") from None
    if not isinstance(record, dict):
        raise Unreadable("not a JSON object; write one object on each line")
    return record
