"""Finds an item's line in one layer of a catalog by its id, without reading the others."""

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from pydantic_core import from_json
from safetensors import safe_open
from safetensors.numpy import save_file

from reclane_worker.manifest import ITEMS, LOOKUP

_SMALL: Final = 65_536  # 512 KB: many changes make many layers, and a slice takes some microseconds


def write_lookup(folder: Path, ids: Sequence[str], starts: Sequence[int]) -> None:
    """Write where in the folder's items, in bytes, the line of each id starts."""
    digests = np.asarray([_digest(item) for item in ids], dtype=np.int64)
    order = np.argsort(digests, kind="stable")
    table = {"digests": digests[order], "starts": np.asarray(starts, dtype=np.int64)[order]}
    save_file(table, folder / LOOKUP)


class Lookup:
    """Reads a few pages for an id, however many items there are."""

    def __init__(self, folder: Path) -> None:
        self._table = cast("Any", safe_open(folder / LOOKUP, "np"))  # safetensors has no types
        self._digests = self._table.get_slice("digests")
        self._starts = self._table.get_slice("starts")
        self._size = self._digests.get_shape()[0]
        self._all = self._table.get_tensor("digests") if self._size <= _SMALL else None
        self._lines = (folder / ITEMS).open("rb")

    def line(self, item: str) -> bytes | None:
        """The line of an item without its end, None where it is not here."""
        wanted = _digest(item)
        place = self._first(wanted)
        while place < self._size and self._digest(place) == wanted:
            self._lines.seek(int(self._starts[place : place + 1][0]))
            line = self._lines.readline().rstrip(b"\n")
            if from_json(line)["id"] == item:
                return line
            place += 1
        return None

    def close(self) -> None:
        self._lines.close()

    def _first(self, wanted: int) -> int:
        """The first place whose digest is not less."""
        if self._all is not None:
            return int(np.searchsorted(self._all, wanted))
        return bisect_left(range(self._size), wanted, key=self._digest)

    def _digest(self, place: int) -> int:
        return int(self._digests[place : place + 1][0])


def _digest(item: str) -> int:
    return int.from_bytes(blake2b(item.encode(), digest_size=8).digest(), "big", signed=True)
