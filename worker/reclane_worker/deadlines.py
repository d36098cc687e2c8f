"""Which requests are urgent, and which can no longer be answered in time. Pure.

Times are seconds since the epoch by Redis's clock, None or infinity where nobody set one.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

Cost = Callable[[int], float]
"""Seconds that a batch of so many padded tokens is expected to take."""


_REMEMBERED: Final = 64
_MOST: Final = 2.0


class Overrun:
    """How many times longer than expected recent batches took, from when they should have begun
    until their answers were visible."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)

    def learn(self, expected_s: float, took_s: float) -> None:
        if expected_s > 0:
            self._seen.append(took_s / expected_s)

    def factor(self) -> float:
        """What nine in ten kept to, from 1 to 2."""
        worst = sorted(self._seen)[int(0.9 * len(self._seen)) :]
        return min(_MOST, max(1.0, worst[0])) if worst else 1.0


def rounds(
    expires: Sequence[float], tokens: Sequence[int], now: float, full_tokens: int, cost: Cost
) -> list[list[int]]:
    """Indices in parts that run one after the other, the oldest deadline first.

    All are one part, to be grouped by length alone, if even the most urgent could wait for the
    whole of it. Else the more urgent half comes first; what fits a batch is never cut.
    """
    order = sorted(range(len(expires)), key=expires.__getitem__)
    return _halved(order, expires, tokens, now, full_tokens, cost) if order else []


def _halved(
    part: list[int],
    expires: Sequence[float],
    tokens: Sequence[int],
    now: float,
    full_tokens: int,
    cost: Cost,
) -> list[list[int]]:
    first, last = expires[part[0]], expires[part[-1]]
    total = sum(tokens[index] for index in part)
    if first == last or total <= full_tokens or now + cost(total) <= first:
        return [part]
    middle = len(part) // 2
    urgent, others = part[:middle], part[middle:]
    later = now + cost(sum(tokens[index] for index in urgent))
    return _halved(urgent, expires, tokens, now, full_tokens, cost) + _halved(
        others, expires, tokens, later, full_tokens, cost
    )


def too_late(
    expires: Sequence[float | None], begin: float, cost: Callable[[Collection[int]], float]
) -> list[int]:
    """Indices of a batch that cannot be done in time if it begins at `begin`; the rest can. `cost`
    is the seconds that some of it, given by index, would take.

    While somebody's deadline is before the end of the batch, the most urgent is given up: it
    would make the others late, too. A smaller batch never costs more, so how many is found by
    halving.
    """
    urgent = sorted((at, index) for index, at in enumerate(expires) if at is not None)
    order = [index for _, index in urgent]

    def saved(given_up: int) -> bool:
        left = set(range(len(expires))).difference(order[:given_up])
        return begin + cost(left) <= urgent[given_up][0]

    return order[: bisect_left(range(len(order)), True, key=saved)]
