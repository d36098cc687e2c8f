"""Rows of CSV and TSV with a header; a position is as in JSON lines.

A quoted cell may hold line ends. After a record that cannot be read, reading goes on with the
next line, as it also would from a cursor.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reclane.bulk.spec import FilesSource
from reclane_worker.bulk.errors import SourceUnusable
from reclane_worker.bulk.sources.lines import Lines, check_utf8, opened
from reclane_worker.bulk.sources.mapping import bind, met_in
from reclane_worker.bulk.sources.rows import Met
from reclane_worker.bulk.sources.values import Unreadable

DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}


def read_delimited(
    path: Path, name: str, spec: FilesSource, at: tuple[int, ...], delimiter: str
) -> Iterator[Met]:
    """Rows from `at` on.

    Raises:
        SourceUnusable: the file or its header cannot be read, or a column is missing.
    """
    with opened(path) as file:
        lines = Lines(file)
        header = _header(lines, name, delimiter)
        mapper = bind(spec, header, name)
        if at:
            lines = Lines(file, *at)
        records = csv.reader(lines, delimiter=delimiter, strict=True)

        def read() -> dict[str, str] | None:
            try:
                cells = next(records)
            except csv.Error as error:
                raise Unreadable(f"{error}; skipped to line {lines.line + 1}") from None
            return _record(header, cells) if cells else None

        yield from met_in(lines, name, mapper, read)


def _header(lines: Lines, name: str, delimiter: str) -> list[str]:
    try:
        header = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
        check_utf8("".join(header))
    except (csv.Error, Unreadable) as error:
        raise SourceUnusable(f"{name}: the header cannot be read: {error}") from None
    if len(set(header)) != len(header):
        raise SourceUnusable(f"{name}: two columns have the same name; rename one")
    return header


def _record(header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise Unreadable(f"{len(cells)} fields where the header has {len(header)}")
    check_utf8("".join(cells))
    return dict(zip(header, cells, strict=True))
