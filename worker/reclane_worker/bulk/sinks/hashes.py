"""Sets of texts, millions of them, in 16 bytes each."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BYTES: Final = 16  # 128 bits: no two of 10^12 texts share them by accident
_DTYPE: Final = f"S{_BYTES}"


class Hashes:
    """A set that is made once; takes 16 bytes for each text, whatever its length."""

    def __init__(self, batches: Iterable[Iterable[str]]) -> None:
        """Takes in one batch after another; a text may come twice."""
        self._sorted = _hashed(chain.from_iterable(batches))
        self._sorted.sort()

    def hold(self, texts: Sequence[str]) -> NDArray[np.bool_]:  # (texts,)
        """Which of the texts are in the set."""
        wanted = _hashed(texts)
        if not len(self._sorted):
            return np.zeros(len(wanted), dtype=np.bool_)
        places = np.searchsorted(self._sorted, wanted)
        found: NDArray[np.bool_] = self._sorted[np.minimum(places, len(self._sorted) - 1)] == wanted
        return found


def _hashed(texts: Iterable[str]) -> NDArray[np.bytes_]:
    hashes = bytearray()
    for text in texts:
        hashes += blake2b(text.encode(), digest_size=_BYTES).digest()
    return np.frombuffer(hashes, dtype=_DTYPE)
