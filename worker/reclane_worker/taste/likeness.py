"""What items have in common by their attributes: a second, sparse vector of each item.

An item's vector has a place for every value that several items share (a genre, an actor), worth the
value's idf as a share of the greatest there could be: one rare value in common outweighs many that
half the catalog has. A year is between two of some marks, as far as it is near to each: items of
about one time have that in common. A history is the mean of its items', minus the catalog's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy import sparse

from reclane_worker.index.filters import Attributes
from reclane_worker.intent.schema import Schema
from reclane_worker.taste.interactions import Table

WEIGHT: Final = 2.0  # of likeness beside the cosine of the texts' vectors
_KINDS: Final = frozenset({"category", "features", "mentions"})
_MARKS: Final = 24  # of years, with as many items between each two
_NEAR: Final = 0.45  # what a year is worth, as the rarest value is worth 1
_CELLS: Final = 8_000_000  # of profiles held at once: 32 MB


@dataclass(frozen=True)
class Likeness:
    """Item i has values[starts[i]:starts[i + 1]] and the same slice of weights; `mean` (values,)
    is that of all items. `table` is the same, (items, values)."""

    table: Table
    starts: torch.Tensor  # (items,) int64
    values: torch.Tensor  # (pairs,) int64
    weights: torch.Tensor  # (pairs,) float32
    mean: torch.Tensor  # (values,) float32

    @classmethod
    def of(cls, attributes: Attributes, schema: Schema, device: torch.device) -> "Likeness | None":
        """None where no value is shared."""
        parts = [*_shared(attributes, schema), *_years(attributes, schema)]
        if not parts:
            return None
        table = sparse.hstack(parts, format="csr")
        return cls(
            table,
            torch.from_numpy(table.indptr[:-1].astype(np.int64)).to(device),
            torch.from_numpy(table.indices.astype(np.int64)).to(device),
            torch.from_numpy(table.data).to(device),
            torch.from_numpy(table.sum(0).astype(np.float32) / len(attributes)).to(device),
        )

    def add(self, content: torch.Tensor, histories: Sequence[Mapping[int, float]]) -> None:
        """Add to cosines (batch, items), in place, how like its history each item is; a row without
        a history stays as it is."""
        rows = [row for row, history in enumerate(histories) if history]
        step = max(1, _CELLS // len(self.mean))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            content[part] += WEIGHT * self.scores(self._tastes([histories[row] for row in part]))

    def scores(self, tastes: Table) -> torch.Tensor:
        """How like each taste (users, items) each item is, (users, items): the product of their
        vectors."""
        whole = np.maximum(abs(tastes).sum(1), 1e-9).astype(np.float32)
        shares = sparse.diags_array(1 / whole) @ tastes
        summed = torch.from_numpy((shares @ self.table).toarray()).to(self.mean.device)
        totals = torch.from_numpy(shares.sum(1).astype(np.float32)).to(self.mean.device)
        profiles = summed - totals.unsqueeze(1) * self.mean
        likeness = torch.nn.functional.embedding_bag(
            self.values,
            profiles.T.contiguous(),  # (values, users)
            self.starts,
            mode="sum",
            per_sample_weights=self.weights,
        )
        return likeness.T

    def _tastes(self, histories: Sequence[Mapping[int, float]]) -> Table:
        rows = np.repeat(np.arange(len(histories)), [len(one) for one in histories])
        items = [item for one in histories for item in one]
        worth = [weight for one in histories for weight in one.values()]
        shape = len(histories), self.table.shape[0]
        return sparse.csr_array((np.array(worth, np.float32), (rows, items)), shape=shape)


def _shared(attributes: Attributes, schema: Schema) -> Iterator[Table]:
    """(items, values): values that several items have, where there are any."""
    names = [name for name, one in schema.attributes.items() if one.kind in _KINDS]
    shared = [items for items in attributes.shared(names) if len(items) > 1]
    if not shared:
        return
    size = len(attributes)
    lengths = np.array([len(items) for items in shared])
    items = np.concatenate(shared)
    worth = np.log(size / lengths) / np.log(size)
    idf = np.repeat(worth, lengths).astype(np.float32)
    value = np.repeat(np.arange(len(shared)), lengths)
    yield sparse.csr_array((idf, (items, value)), shape=(size, len(shared)))


def _years(attributes: Attributes, schema: Schema) -> Iterator[Table]:
    """Of each attribute that is a year (items, marks): the shares of the two marks that it is
    between, as roots, so that every year is as long."""
    for name, one in schema.attributes.items():
        if one.concept != "year":
            continue
        column = attributes.numbers(name)
        items = np.flatnonzero(~np.isnan(column))
        years = column[items]
        marks = np.unique(np.quantile(years, np.linspace(0, 1, _MARKS))) if len(years) else years
        if len(marks) < 2:
            continue
        below = np.clip(np.searchsorted(marks, years, "right") - 1, 0, len(marks) - 2)
        share = (years - marks[below]) / np.diff(marks)[below]
        worth = _NEAR * np.sqrt(np.concatenate((1 - share, share))).astype(np.float32)
        places = np.tile(items, 2), np.concatenate((below, below + 1))
        table = sparse.csr_array((worth, places), shape=(len(attributes), len(marks)))
        table.eliminate_zeros()
        yield table
