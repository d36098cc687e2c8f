"""Which requests run together, and how long that will take. Pure."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_REMEMBERED: Final = 64
_TELLING: Final = 8
_UNLIKE: Final = 0.3  # the standard deviation of batch sizes, relative to their mean
_MOST_TOKENS: Final = 1_000_000
_OVERHEADS: Final = 8  # a batch worth so many starts is nine tenths as good as endless ones
_MOST_OVERHEADS: Final = 10  # where the line is too uncertain to say what a start is worth


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
    """A batch's seconds as a * padded tokens + b, fitted over recent batches."""

    def __init__(self, initial_s: float = 1.0) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._line = 0.0, initial_s
        self._rate = 0.0  # mean seconds of a token
        self._start_tokens = math.inf

    def learn(self, tokens: int, seconds: float) -> None:
        """Fit again: once a batch, and it is asked many times."""
        self._seen.append((tokens, seconds))
        count = len(self._seen)
        mean_t = sum(t for t, _ in self._seen) / count
        mean_s = sum(s for _, s in self._seen) / count
        spread = sum((t - mean_t) ** 2 for t, _ in self._seen)
        slope = sum((t - mean_t) * (s - mean_s) for t, s in self._seen) / spread if spread else 0.0
        slope = max(0.0, slope)
        start_s = mean_s - slope * mean_t
        tells = count >= _TELLING and slope > 0 and spread / count > (_UNLIKE * mean_t) ** 2
        self._line = slope, start_s
        self._rate = mean_s / max(mean_t, 1.0)
        self._start_tokens = max(0.0, start_s / slope) if tells else math.inf

    def line(self) -> tuple[float, float]:
        """a, seconds for each padded token, and b, seconds for each batch: least squares, or the
        mean alone where batches of one size, or noise, give no rising line. Any thread may ask."""
        return self._line

    def start_tokens(self) -> float:
        """What starting a batch costs, in tokens; infinite where batches were too much alike to
        tell that from what a token costs."""
        return self._start_tokens

    def expect(self, tokens: int) -> float:
        """Seconds by the line: neither cautious nor bold."""
        slope, start_s = self._line
        return max(0.0, slope * tokens + start_s)

    def predict(self, tokens: int) -> float:
        """By the line, but never below the mean cost of a token times `tokens`: a line fitted
        to batches of one size says little about much longer ones."""
        return max(self.expect(tokens), self._rate * tokens)

    def tokens_within(self, seconds: float) -> int:
        """How many padded tokens are predicted to take so long at most; at least 1."""
        slope, start_s = self._line
        by_line = (seconds - start_s) / slope if slope else math.inf
        by_rate = seconds / self._rate if self._rate else math.inf
        return int(max(1.0, min(by_line, by_rate, _MOST_TOKENS)))


def slice_tokens(cost: CostLine, seconds: float, limits: Limits) -> int:
    """Padded tokens of one bulk batch: what is predicted to take so long at most, but never so
    few that starting batches would cost bulk more than a tenth."""
    least = min(_OVERHEADS * cost.start_tokens(), _MOST_OVERHEADS * limits.overhead_tokens)
    return min(limits.max_tokens, max(int(least), cost.tokens_within(seconds)))
