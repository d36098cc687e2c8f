"""How much each signal of a history counts: a small listwise fit on likes held out."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from reclane_worker.listwise import Floats, fit
from reclane_worker.taste.interactions import Table
from reclane_worker.taste.likeness import WEIGHT, Likeness

Content = Callable[[Table], Floats]
"""Tastes (users, items) -> scores (users, items)."""

USUAL: Final = np.array((5.0, 2.0, 20.0))  # of the signals, where little is known
_USERS: Final = 1_000  # looked at, at random
_CANDIDATES: Final = 10_000  # of each, at random: 120 MB of scores in all
_CELLS: Final = 4_000_000


def fit_weights(
    tastes: Table,
    seen: Table,
    targets: npt.NDArray[np.int32],
    content: Content,
    tables: Sequence[Table],
) -> npt.NDArray[np.float64]:
    """Weights (signals,) under which each user's target comes first among candidates.

    `tastes` (users, items) is what is known of each user, `seen` (users, items) what is no
    candidate, `targets` (users,) the item liked next, `content` gives scores of tastes by what
    items are, `tables` are item_item and ease. Candidates are drawn evenly: those that a signal
    likes best would speak against it. No weight falls below a tenth of USUAL: content alone carries
    what nobody has interacted with.
    """
    return fit(_lists(tastes, seen, targets, content, tables), USUAL, USUAL / 10)


def _lists(
    tastes: Table,
    seen: Table,
    targets: npt.NDArray[np.int32],
    content: Content,
    tables: Sequence[Table],
) -> list[Floats]:
    """Of each user looked at the scores of the target, then of what it is to beat, (candidates,
    signals)."""
    chance = np.random.default_rng(0)
    users = chance.permutation(len(targets))[:_USERS]
    size = tastes.shape[1]
    step = max(1, _CELLS // max(1, size))
    lists = []
    for start in range(0, len(users), step):
        part = users[start : start + step]
        taste = tastes[part]
        signals = [
            content(taste),
            *((taste @ one).toarray() for one in tables),
        ]
        for row, user in enumerate(part):
            target = targets[user]
            others = np.ones(size, dtype=bool)
            others[seen.indices[seen.indptr[user] : seen.indptr[user + 1]]] = False
            others[target] = False
            left = np.flatnonzero(others)
            if len(left) > _CANDIDATES:
                left = chance.choice(left, _CANDIDATES, replace=False)
            places = np.append(target, left)
            lists.append(np.stack([signal[row, places] for signal in signals], axis=1))
    return lists


def by_content(vectors: Floats, likeness: Likeness | None) -> Content:
    """Scores of tastes as a history alone gets them: the cosine of each centred mean with every
    item's vector, and likeness by attributes; see retrieval.py."""
    centre = vectors.mean(0)

    def scores(taste: Table) -> Floats:
        means = taste @ vectors - np.outer(taste.sum(1), centre)
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        cosines = means / np.maximum(lengths, 1e-12) @ vectors.T
        if likeness is not None:
            cosines += WEIGHT * likeness.scores(taste).cpu().numpy()
        return np.asarray(cosines)

    return scores
