"""Which examples a model sees together, epoch by epoch. Pure, and the same for the same seed."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from reclane_worker.training.examples import Example

MAX_ROWS: Final = 64
_LOOKAHEAD: Final = 500  # rows that may wait for a later batch before this one is closed


@dataclass(frozen=True, slots=True)
class Row:
    """A request, an item that answers it, and one that does not."""

    request: int
    item: int
    negative: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of requests by number, and of items by position, as the model will take them."""

    requests: Mapping[int, int]
    items: Mapping[int, int]


@dataclass(slots=True)
class _Batch:
    """A batch as it fills. Each row's items are wrong answers to all other rows."""

    lengths: Lengths
    max_tokens: int
    rows: list[Row] = field(default_factory=list)
    _items: set[int] = field(default_factory=set)
    _relevant: set[int] = field(default_factory=set)
    _longest: tuple[int, int] = (0, 0)

    def is_full_with(self, row: Row) -> bool:
        """Whether the row would not fit; a batch takes its first row whatever its size."""
        query, item = self._longest_with(row)
        rows = len(self.rows) + 1
        return bool(self.rows) and (rows > MAX_ROWS or rows * (query + 2 * item) > self.max_tokens)

    def agrees_with(self, row: Row, relevant: frozenset[int]) -> bool:
        """Whether the row's items are wrong for every other row, and theirs for it."""
        own = {row.item, row.negative}
        return own.isdisjoint(self._relevant) and relevant.isdisjoint(self._items)

    def add(self, row: Row, relevant: frozenset[int]) -> None:
        self._longest = self._longest_with(row)
        self.rows.append(row)
        self._items |= {row.item, row.negative}
        self._relevant |= relevant

    def _longest_with(self, row: Row) -> tuple[int, int]:
        lengths = self.lengths
        query, item = self._longest
        return (
            max(query, lengths.requests[row.request]),
            max(item, lengths.items[row.item], lengths.items[row.negative]),
        )


def plan_batches(
    examples: Sequence[Example], lengths: Lengths, *, epochs: int, max_tokens: int, seed: int
) -> list[list[Row]]:
    """Batches in the order of training, each example once an epoch, beside another hard negative
    each time.

    A batch has at most `max_tokens`, padding included, and at most MAX_ROWS. No row of a batch
    holds an item that answers another row's request: in-batch negatives are never relevant.
    """
    chance = random.Random(seed)  # noqa: S311
    return list(
        chain.from_iterable(_epoch(examples, lengths, max_tokens, chance) for _ in range(epochs))
    )


def _epoch(
    examples: Sequence[Example], lengths: Lengths, max_tokens: int, chance: random.Random
) -> list[list[Row]]:
    waiting = deque(chance.sample(examples, len(examples)))
    batches: list[list[Row]] = []
    while waiting:
        batch = _Batch(lengths, max_tokens)
        later: list[Example] = []
        while waiting and len(later) < _LOOKAHEAD:
            one = waiting.popleft()
            row = Row(one.request, one.item, chance.choice(one.negatives))
            if batch.is_full_with(row):
                later.append(one)
                break
            if batch.agrees_with(row, one.relevant):
                batch.add(row, one.relevant)
            else:
                later.append(one)
        waiting.extendleft(reversed(later))
        batches.append(batch.rows)
    return batches
