"""What a catalog keeps of its interactions, and what a history is worth by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from scipy import sparse

from reclane_worker.taste.interactions import Table

SIGNALS: Final = ("content", "item_item", "ease")
_POSTINGS: Final = 8_000_000  # of histories scored at once: some 200 MB


@dataclass(frozen=True)
class Taste:
    """Tables (items, items) of what liking an item says of others, and the weight of each signal.

    `joined` is both tables as one, weighed: CSR in three tensors on the device.
    """

    weights: tuple[float, ...]
    item_item: Table
    ease: Table
    joined: "Joined"

    def weighed(self, weights: Sequence[float]) -> "Taste":
        """The same tables under other weights."""
        joined = Joined.of(weights, (self.item_item, self.ease)).to(self.joined.values.device)
        return replace(self, weights=tuple(weights), joined=joined)

    def add(self, content: torch.Tensor, histories: Sequence[Mapping[int, float]]) -> None:
        """Make of cosines (batch, items), in place, what histories are worth by all signals; a row
        without a history stays as it is.

        score = w_content * cosine + sum over the history of its weight * (w_item_item * item_item
        + w_ease * ease), whose weights are brought to length one. One of a negative weight counts
        against what goes with it.
        """
        rows = [row for row, history in enumerate(histories) if history]
        longest = max((len(histories[row]) for row in rows), default=0)
        step = max(1, _POSTINGS // max(1, longest * self.joined.widest))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            content[part] *= self.weights[0]
            self.joined.add(content, part, [histories[row] for row in part])


@dataclass(frozen=True)
class Joined:
    """Item i has others[starts[i]:starts[i + 1]] and the same slice of values."""

    starts: torch.Tensor  # (items + 1,) int64
    others: torch.Tensor  # (pairs,) int64
    values: torch.Tensor  # (pairs,) float32
    widest: int

    @classmethod
    def of(cls, weights: Sequence[float], tables: Sequence[Table]) -> "Joined":
        """Both tables, weighed and summed; the first weight is that of the content."""
        table = sparse.csr_array(weights[1] * tables[0] + weights[2] * tables[1])
        widest = int(np.diff(table.indptr).max(initial=0))
        return cls(*_tensors(table, torch.int64), widest)

    def to(self, device: torch.device) -> "Joined":
        return Joined(
            self.starts.to(device), self.others.to(device), self.values.to(device), self.widest
        )

    def add(
        self, scores: torch.Tensor, rows: Sequence[int], histories: Sequence[Mapping[int, float]]
    ) -> None:
        """Add to these rows of contiguous scores (batch, items), in place."""
        device = scores.device
        size = scores.shape[1]
        counts = torch.tensor([len(one) for one in histories], device=device)
        item = torch.tensor([item for one in histories for item in one], device=device)
        weight = torch.tensor([w for one in histories for w in _unit(one)], device=device)
        base = torch.repeat_interleave(torch.tensor(rows, device=device) * size, counts)
        first = self.starts[item]
        lengths = self.starts[item + 1] - first
        shift = first - (torch.cumsum(lengths, 0) - lengths)
        total = int(lengths.sum())
        pair = torch.repeat_interleave(shift, lengths, output_size=total)
        pair += torch.arange(total, device=device)
        cell = torch.repeat_interleave(base, lengths, output_size=total) + self.others[pair]
        worth = torch.repeat_interleave(weight, lengths, output_size=total) * self.values[pair]
        scores.view(-1).index_add_(0, cell, worth)


def _unit(history: Mapping[int, float]) -> list[float]:
    """Its weights, brought to length one."""
    length = sum(weight * weight for weight in history.values()) ** 0.5
    return [weight / length if length else 0.0 for weight in history.values()]


def make(weights: Sequence[float], item_item: Table, ease: Table, device: torch.device) -> Taste:
    """A taste of what was learnt."""
    joined = Joined.of(weights, (item_item, ease)).to(device)
    return Taste(tuple(map(float, weights)), item_item, ease, joined)


def moved(taste: Taste, places: npt.NDArray[np.int64], size: int) -> Taste:
    """The same taste where items have other positions: `places` says which, -1 of one that is
    gone; in a catalog of `size` items."""
    item_item, ease = (_moved(table, places, size) for table in (taste.item_item, taste.ease))
    return make(taste.weights, item_item, ease, taste.joined.values.device)


def _moved(table: Table, places: npt.NDArray[np.int64], size: int) -> Table:
    pairs = table.tocoo()
    rows, columns = places[pairs.row], places[pairs.col]
    kept = (rows >= 0) & (columns >= 0)
    found = (pairs.data[kept], (rows[kept], columns[kept]))
    return sparse.csr_array(found, shape=(size, size))


def tensors_of(taste: Taste) -> dict[str, torch.Tensor]:
    """What a catalog stores; see `restore`."""
    stored = {"weights": torch.tensor(taste.weights, dtype=torch.float64)}
    for name, table in (("item_item", taste.item_item), ("ease", taste.ease)):
        starts, others, values = _tensors(table, torch.int32)
        stored |= {f"{name}.starts": starts, f"{name}.others": others, f"{name}.values": values}
    return stored


def restore(stored: Mapping[str, torch.Tensor], size: int, device: torch.device) -> Taste:
    """A taste from its stored parts, for a catalog of `size` items.

    Raises:
        KeyError, TypeError, ValueError: they are not what a build writes.
    """
    item_item, ease = (_table(stored, name, size) for name in SIGNALS[1:])
    weights = stored["weights"]
    if weights.dtype != torch.float64 or weights.shape != (len(SIGNALS),):
        raise ValueError("not the weights of the signals")
    if not weights.isfinite().all() or (weights < 0).any():
        raise ValueError("weights are not numbers from 0")
    return make(weights.tolist(), item_item, ease, device)


def read_weights(path: Path) -> dict[str, float]:
    """The weight of each signal in a catalog's file, by name."""
    with safe_open(path, "pt") as file:
        return dict(zip(SIGNALS, file.get_tensor("weights").tolist(), strict=True))


def _table(stored: Mapping[str, torch.Tensor], name: str, size: int) -> Table:
    starts, others = stored[f"{name}.starts"], stored[f"{name}.others"]
    values = stored[f"{name}.values"]
    sound = (
        (starts.dtype, others.dtype, values.dtype) == (torch.int64, torch.int32, torch.float32)
        and starts.shape == (size + 1,)
        and others.shape == values.shape == (len(values),)
        and starts[0] == 0
        and starts[-1] == len(values)
        and bool((starts.diff() >= 0).all())
        and bool(values.isfinite().all())
        and (not len(others) or (others.min() >= 0 and others.max() < size))
    )
    if not sound:
        raise ValueError(f"{name} does not fit the items")
    parts = values.numpy(), others.numpy(), starts.numpy()
    return sparse.csr_array(parts, shape=(size, size))


def _tensors(table: Table, places: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.from_numpy(table.indptr.astype(np.int64)),
        torch.from_numpy(table.indices).to(places),
        torch.from_numpy(table.data.astype(np.float32)),
    )
