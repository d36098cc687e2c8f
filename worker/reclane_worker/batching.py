"""Which requests run together, and how long that will take. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batch. `max_tokens` counts padding; `overhead_tokens` is what starting a
    batch costs, in tokens."""

    max_tokens: int
    max_requests: int
    overhead_tokens: int


def plan(lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Group indices, similar lengths together, so that little is padding.

    A request longer than `max_tokens` runs alone rather than block the rest. Where joining a
    group would pad it by more than `overhead_tokens`, a new one begins.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups: list[list[int]] = []
    longest = 0
    for index in order:
        length = max(1, lengths[index])
        count = len(groups[-1]) if groups else limits.max_requests
        full = count >= limits.max_requests or (count + 1) * length > limits.max_tokens
        if full or (length - longest) * count > limits.overhead_tokens:
            groups.append([index])
        else:
            groups[-1].append(index)
        longest = length
    return groups


class CostLine:
    """Predicts a batch's seconds as a * padded tokens + b, fitted over recent batches."""

    def __init__(self, initial_s: float = 1.0) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._initial_s = initial_s

    def learn(self, tokens: int, seconds: float) -> None:
        self._seen.append((tokens, seconds))

    def predict(self, tokens: int) -> float:
        """Least squares, but never below the mean cost of a token times `tokens`: a line fitted
        to batches of one size says little about much longer ones."""
        if not self._seen:
            return self._initial_s
        count = len(self._seen)
        mean_t = sum(t for t, _ in self._seen) / count
        mean_s = sum(s for _, s in self._seen) / count
        by_rate_s = mean_s / max(mean_t, 1.0) * tokens
        spread = sum((t - mean_t) ** 2 for t, _ in self._seen)
        if spread == 0:
            return max(mean_s, by_rate_s)
        slope = sum((t - mean_t) * (s - mean_s) for t, s in self._seen) / spread
        return max(mean_s + slope * (tokens - mean_t), by_rate_s)
