"""Tokens of items, kept for those that are candidates often."""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from reclane_worker.catalog import Catalog
from reclane_worker.item_texts import ItemTexts
from reclane_worker.rerank.pairs import Pairing

MOST: Final = 20_000  # of 512 tokens at most, 4 bytes each: 40 MB


class ItemTokens:
    """The `MOST` items used last. For several threads."""

    def __init__(self, pairing: Pairing) -> None:
        self._pairing = pairing
        self._kept: OrderedDict[tuple[str, str, int], Sequence[int]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, catalog: Catalog, positions: Iterable[int]) -> dict[int, Sequence[int]]:
        """Position -> tokens of what is encoded and indexed of the item."""
        wanted = dict.fromkeys(positions)
        found: dict[int, Sequence[int]] = {}
        with self._lock:
            for position in wanted:
                key = catalog.name, catalog.version, position
                if key in self._kept:
                    self._kept.move_to_end(key)
                    found[position] = self._kept[key]
        missing = [position for position in wanted if position not in found]
        texts = ItemTexts(catalog)
        read = self._pairing.tokenise([texts[position] for position in missing])
        fresh = {at: array("i", ids) for at, ids in zip(missing, read, strict=True)}
        with self._lock:
            for position, tokens in fresh.items():
                self._kept[catalog.name, catalog.version, position] = tokens
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return found | fresh
