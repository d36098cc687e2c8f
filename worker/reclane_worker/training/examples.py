"""What a model learns from: requests, items that answer them, and items that do not. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HARD_RANKS: Final = slice(5, 50)
"""Where the pipeline ranks what is worth telling apart. The first few are often right answers
that nobody wrote down (Qu et al. 2021, RocketQA, call them false negatives)."""
MAX_ITEMS: Final = 8  # of one request: one that hundreds of items answer says little of each
HELD_OUT: Final = 0.1
MAX_HELD_OUT: Final = 200


@dataclass(frozen=True, slots=True)
class Example:
    """A request and an item that answers it, all items that do, and some that do not; a request is
    its number, an item its position in the catalog."""

    request: int
    item: int
    relevant: frozenset[int]
    negatives: tuple[int, ...]


def split(requests: int, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of requests to learn from, and to hold out: a tenth, 1 to MAX_HELD_OUT of them."""
    order = list(range(requests))
    random.Random(seed).shuffle(order)  # noqa: S311
    held = min(MAX_HELD_OUT, max(1, round(requests * HELD_OUT)))
    return sorted(order[held:]), sorted(order[:held])


def hard_negatives(ranked: Sequence[int], relevant: frozenset[int]) -> tuple[int, ...]:
    """What was ranked high and is not relevant; of a small catalog, whatever is not relevant."""
    wrong = [item for item in ranked if item not in relevant]
    return tuple(wrong[HARD_RANKS] or wrong)


def examples_of(
    request: int, relevant: frozenset[int], ranked: Sequence[int], seed: int
) -> list[Example]:
    """One for each item that answers the request, MAX_ITEMS at most; none where none is wrong."""
    negatives = hard_negatives(ranked, relevant)
    if not negatives:
        return []
    items = sorted(relevant)
    if len(items) > MAX_ITEMS:
        items = random.Random(f"{seed}/{request}").sample(items, MAX_ITEMS)  # noqa: S311
    return [Example(request, item, relevant, negatives) for item in items]
