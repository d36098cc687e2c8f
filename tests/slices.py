"""Reads a bulk source as a run does: slice after slice, through cursors that went over JSON."""

import json
from collections.abc import Callable, Iterable
from itertools import cycle

from reclane_worker.bulk.sources import BadRow, Row, Source

MANY = 1_000_000


def in_slices(
    open_again: Callable[[], Source], limits: Iterable[int], keeps_open: bool
) -> tuple[list[Row], list[BadRow]]:
    """All rows, with slices of `limits` by turns; each may be read by another process."""
    source, cursor = open_again(), None
    good: list[Row] = []
    bad: list[BadRow] = []
    for limit in cycle(limits):
        read = source.read(cursor, limit)
        assert len(read.rows) + len(read.bad) <= limit
        good += read.rows
        bad += read.bad
        if read.cursor is None:
            source.close()
            return good, bad
        assert read.cursor != cursor, "the cursor goes on"
        cursor = json.loads(json.dumps(read.cursor))
        if not keeps_open:
            source.close()
            source = open_again()
    raise AssertionError("cycle() does not end")


def at_once(source: Source) -> tuple[list[Row], list[BadRow]]:
    read = source.read(None, MANY)
    assert read.cursor is None
    return read.rows, read.bad
