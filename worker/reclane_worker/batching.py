"""Which requests run together, and how long that will take. Pure."""

from collections import deque
from collections.abc import Sequence
from typing import Final

_REMEMBERED: Final = 64


def plan(lengths: Sequence[int], max_tokens: int, max_requests: int) -> list[list[int]]:
    """Group indices, similar lengths together, so that little is padding.

    A group's padded size, longest x count, is at most `max_tokens`; a request longer than that
    runs alone rather than block the rest.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups: list[list[int]] = []
    for index in order:
        group = groups[-1] if groups else None
        if (
            group is None
            or len(group) >= max_requests
            or (len(group) + 1) * max(1, lengths[index]) > max_tokens
        ):
            groups.append([index])
        else:
            group.append(index)
    return groups


class CostLine:
    """Predicts a batch's seconds as a * padded tokens + b, fitted over recent batches."""

    def __init__(self, initial_s: float = 1.0) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._initial_s = initial_s

    def learn(self, tokens: int, seconds: float) -> None:
        self._seen.append((tokens, seconds))

    def predict(self, tokens: int) -> float:
        """Least squares, never below zero nor below what the slope through the origin says."""
        if not self._seen:
            return self._initial_s
        count = len(self._seen)
        mean_t = sum(t for t, _ in self._seen) / count
        mean_s = sum(s for _, s in self._seen) / count
        spread = sum((t - mean_t) ** 2 for t, _ in self._seen)
        if spread == 0:
            return mean_s * max(1.0, tokens / max(mean_t, 1.0))
        slope = sum((t - mean_t) * (s - mean_s) for t, s in self._seen) / spread
        slope = max(slope, 0.0)
        return max(mean_s + slope * (tokens - mean_t), 0.0)
