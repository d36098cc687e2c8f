"""Which items go together, of who liked what: cosines of all items, EASE of the popular ones."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from scipy import sparse

from reclane_worker.taste.interactions import Table

NEIGHBOURS: Final = 50  # kept of each item
SHRINKAGE: Final = 5.0  # likes that a pair of items would need to be half believed
EASE_ITEMS: Final = 4_000  # the most popular: 128 MB of float64, three times over while it learns
EASE_NEIGHBOURS: Final = 128
EASE_RIDGE: Final = 300.0
_BLOCK_CELLS: Final = 4_000_000


def item_item(likes: Table) -> Table:
    """Cosine similarity of items by who liked them, shrunk where few did, (items, items).

    sim(i, j) = common / (sqrt(likes_i * likes_j) + SHRINKAGE), (Sarwar et al. 2001; Bell & Koren
    2007 shrink so). Memory is bounded by blocks and by what is kept.
    """
    counts = likes.sum(0)
    norms = np.sqrt(counts)
    by_item = likes.T.tocsr()
    most = np.minimum(by_item @ likes.sum(1), likes.shape[1])  # pairs of an item, at most
    parts = []
    for start, stop in _blocks(most):
        block = (by_item[start:stop] @ likes).tocoo()
        rows, others = block.coords
        values = block.data / (norms[rows + start] * norms[others] + SHRINKAGE)
        values[rows + start == others] = 0  # an item is no neighbour of itself
        parts.append(_strongest(rows, others, values, block.shape, NEIGHBOURS))
    return sparse.csr_array(sparse.vstack(parts, format="csr"), dtype=np.float32)


def ease(likes: Table) -> Table:
    """EASE (Steck 2019) of the most popular items, (items, items): row i says what liking i says of
    the others. B = I - P / diag(P), P = (X'X + ridge)^-1; of each row the strongest are kept.
    """
    size = likes.shape[1]
    counts = likes.sum(0)
    popular = np.sort(np.argsort(-counts, kind="stable")[:EASE_ITEMS])
    popular = popular[counts[popular] > 1]
    found = likes[:, popular]
    weights = closed_form(torch.from_numpy((found.T @ found).toarray()).double(), EASE_RIDGE)
    parts = []
    step = max(1, _BLOCK_CELLS // max(1, len(popular)))
    for start in range(0, len(popular), step):
        dense = weights[start : start + step]
        if dense.shape[1] > EASE_NEIGHBOURS:  # sorting all of them would take longest
            floors = dense.abs().topk(EASE_NEIGHBOURS, dim=1).values[:, -1:]
            dense = dense.where(dense.abs() >= floors, 0)
        rows, others = (places.numpy() for places in dense.nonzero(as_tuple=True))
        values = dense.numpy()[rows, others]
        parts.append(_strongest(rows, others, values, dense.shape, EASE_NEIGHBOURS))
    small = sparse.vstack(parts, format="csr") if parts else sparse.csr_array((0, 0))
    starts = np.concatenate(([0], np.cumsum(np.bincount(popular, np.diff(small.indptr), size))))
    return sparse.csr_array(
        (small.data.astype(np.float32), popular[small.indices], starts.astype(np.int64)),
        shape=(size, size),
    )


def closed_form(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    """EASE's weights of a Gram matrix X'X, (items, items) float64, which is overwritten."""
    if not len(gram):
        return gram
    gram.diagonal().add_(ridge)
    precision = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = precision.div_(-precision.diagonal().clone())
    weights.fill_diagonal_(0)
    return weights


def _blocks(cells: "np.ndarray[Any, Any]") -> Iterator[tuple[int, int]]:
    """Ranges of rows that have at most _BLOCK_CELLS together, or are one row."""
    start, held = 0, 0.0
    for row, count in enumerate(cells.tolist()):
        if row > start and held + count > _BLOCK_CELLS:
            yield start, row
            start, held = row, 0.0
        held += count
    if len(cells):
        yield start, len(cells)


def _strongest(
    rows: "np.ndarray[Any, Any]",
    columns: "np.ndarray[Any, Any]",
    values: "np.ndarray[Any, Any]",
    shape: Sequence[int],
    count: int,
) -> Table:
    """Of each row the `count` largest values, whatever their sign; of equal ones the first."""
    order = np.lexsort((columns, -np.abs(values), rows))
    rows, columns, values = rows[order], columns[order], values[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = (rank < count) & (values != 0)
    return sparse.csr_array((values[kept], (rows[kept], columns[kept])), shape=tuple(shape))
