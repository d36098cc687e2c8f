"""What scoring pairs costs, and how many candidates the time allows. For several threads."""

import threading
from collections.abc import Iterable, Sequence
from typing import Final

from reclane_worker.batching import CostLine
from reclane_worker.settings import WorkerSettings

LEAST: Final = 2  # of one candidate there is no order
TRY_AFTER: Final = 16  # batches in a row that could not afford any
_BUDGET_MS: Final = {"cpu": 500.0, "cuda": 50.0}


def budget_s(settings: WorkerSettings, kind: str) -> float:
    """Seconds that reranking may add to a batch on this kind of device."""
    return (settings.rerank_ms or _BUDGET_MS.get(kind, _BUDGET_MS["cpu"])) / 1e3


def steps(most: int) -> list[int]:
    """How many candidates a request may have, fewest first: all, or a half of them, a quarter ...

    Not any number: pages of one answer are asked one after another, each under another load, and
    they agree where as many candidates were reranked.
    """
    found = [most]
    while found[-1] // 2 >= LEAST:
        found.append(found[-1] // 2)
    return found[::-1]


class Spending:
    """Seconds of batches of pairs, as lately seen. Begins with what is learnt first."""

    def __init__(self) -> None:
        self._line = CostLine()
        self._without = 0
        self._reranked = 0
        self._left_out = 0
        self._lock = threading.Lock()

    def statistics(self) -> dict[str, int]:
        """Candidates reranked since the start, and those left out for want of time."""
        with self._lock:
            return {"reranked": self._reranked, "rerank_left_out": self._left_out}

    def count(self, reranked: int, left_out: int) -> None:
        """What became of the candidates of a batch."""
        with self._lock:
            self._reranked += reranked
            self._left_out += left_out

    def predict_s(self, padded: Iterable[int]) -> float:
        """Of batches of so many padded tokens, one after the other."""
        line = self._line
        return sum(map(line.predict, padded))

    def learn(self, padded: int, seconds: float) -> None:
        with self._lock:
            self._line.learn(padded, seconds)

    def begin_anew(self, seen: Sequence[tuple[int, float]]) -> None:
        """Forget everything but these: padded tokens and seconds."""
        line = CostLine()
        for padded, seconds in seen:
            line.learn(padded, seconds)
        with self._lock:
            self._line = line

    def worth_a_try(self, afforded: bool) -> bool:
        """Told of each batch whether it could afford candidates: whether to see again what they
        cost. What cannot be afforded is not measured either, and a slow spell of the machine must
        not end reranking for good."""
        with self._lock:
            self._without = 0 if afforded else self._without + 1
            if self._without < TRY_AFTER:
                return False
            self._without = 0
            return True
