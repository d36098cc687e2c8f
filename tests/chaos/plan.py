"""Which faults strike, when and where. Pure: it follows from the seed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

LEAST_GAP_S: Final = 0.2
MOST_GAP_S: Final = 4.5


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: `gap_s` after the one before it, on that worker; `chance` (0 to 1) is its own."""

    fault: str
    gap_s: float
    slot: int
    chance: float


def draw(seed: int, weights: Mapping[str, int], workers: int) -> Iterator[Step]:
    """Faults without end: in each round as many of a kind as it weighs, in random order."""
    random = Random(seed)
    while True:
        names = [name for name, weight in weights.items() for _ in range(weight)]
        random.shuffle(names)
        for name in names:
            gap_s = random.uniform(LEAST_GAP_S, MOST_GAP_S)
            yield Step(name, gap_s, random.randrange(workers), random.random())
