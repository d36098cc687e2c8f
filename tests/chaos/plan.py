"""Which faults strike, when and where. Pure: it follows from the seed."""

from collections.abc import Mapping
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


def draw(seed: int, weights: Mapping[str, int], rounds: int, workers: int) -> list[Step]:
    """`rounds` times `weights` faults of each kind, in random order.

    The order is drawn round by round, so that every kind strikes early and late in a long run.
    """
    random = Random(seed)
    steps = []
    for _ in range(rounds):
        names = [name for name, weight in weights.items() for _ in range(weight)]
        random.shuffle(names)
        steps += [
            Step(
                name,
                random.uniform(LEAST_GAP_S, MOST_GAP_S),
                random.randrange(workers),
                random.random(),
            )
            for name in names
        ]
    return steps
