"""Answers kept in this process, so that what was just asked need not be computed again."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from pydantic_core import from_json, to_json

from reclane_worker.answering import Answer
from reclane_worker.catalog import Catalog

MEAN_BYTES: Final = 4_096  # of an answer, at most: 10 items without fields take 1.7 KB
CACHED: Final = {"code": "cached", "reasons": ["computed earlier for an equal request"]}


def cache_key(models: Sequence[str], catalog: Catalog, answer_key: str) -> bytes:
    """What an answer rests on: other models or another catalog version never find it."""
    whole = "\0".join((*models, catalog.name, catalog.version, answer_key))
    return blake2b(whole.encode(), digest_size=16).digest()


class AnswerCache:
    """The `most` answers used last, of `MEAN_BYTES` each on average. For several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()  # oldest use first, as JSON
        self._bytes = 0
        self._hits = 0
        self._misses = 0
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether answers are kept at all."""
        return self._most > 0

    def find(self, key: bytes) -> Answer | None:
        """The answer kept under a key, marked as such, or None."""
        with self._lock:
            raw = self._answers.get(key)
            if raw is None:
                self._misses += 1
                return None
            self._hits += 1
            self._answers.move_to_end(key)
        answer: Answer = from_json(raw)
        return answer

    def keep(self, key: bytes, answer: Answer) -> None:
        """Keep an answer, and drop those used least recently where it gets too many or much."""
        flags: list[Any] = [*answer["flags"], CACHED]
        spent = answer["timing_ms"]
        timing_ms = dict.fromkeys(spent, 0.0) | {"queued": spent["queued"]}
        raw = to_json(answer | {"flags": flags, "timing_ms": timing_ms})
        with self._lock:
            self._bytes += len(raw) - len(self._answers.pop(key, b""))
            self._answers[key] = raw
            while len(self._answers) > self._most or self._bytes > self._most * MEAN_BYTES:
                self._bytes -= len(self._answers.popitem(last=False)[1])

    def statistics(self) -> dict[str, int]:
        """Requests found and not found, copies counted once, and what is kept at present."""
        with self._lock:
            return {
                "cache_hits": self._hits,
                "cache_misses": self._misses,
                "cache_answers": len(self._answers),
                "cache_bytes": self._bytes,
            }
