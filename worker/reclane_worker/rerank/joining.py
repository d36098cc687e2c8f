"""What a reranker said of the candidates joins what found them. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from reclane_worker.retrieval import Picked

_FLAT: Final = 1e-5  # log-odds closer together than this differ by rounding alone
_LIFT: Final = 0.01  # how far the last candidate stays above what was not looked at again
_SHOWN: Final = 6  # decimals of a score in an answer


def joined(found: Picked, log_odds: Sequence[float], weight: float) -> Picked:
    """`found`, best first, with its first len(log_odds) items in a new order.

    Each gets `weight` parts of the reranker's log-odds and 1 - weight parts of its first score,
    both min-max-normalised over the candidates (the first scores of the best lie close together),
    and again what wishes it meets are worth. Together they
    fill the scores from the last candidate's up to 1; what comes after keeps its score and its
    place. Scores equal to six decimals rank by catalog order.
    """
    count = len(log_odds)
    first = np.array(found.scores[:count])
    positions = found.positions[:count]
    bonus, whole = _bonus(found, positions)
    relevance = first * whole - bonus  # without what wishes are worth, 0 to 1
    fresh = weight * _min_max(np.array(log_odds)) + (1 - weight) * _min_max(relevance)
    floor = min(1.0, max(0.0, float(first[-1])))
    scores = floor + (1 - floor) * (_LIFT + (1 - _LIFT) * (fresh + bonus) / whole)
    shown = scores.clip(0.0, 1.0).round(_SHOWN).tolist()
    order = sorted(range(count), key=lambda at: (-shown[at], positions[at]))
    return replace(
        found,
        positions=[positions[at] for at in order] + found.positions[count:],
        scores=[shown[at] for at in order] + found.scores[count:],
        reranked=count,
    )


def _bonus(found: Picked, positions: Sequence[int]) -> tuple[npt.NDArray[np.float64], float]:
    """What each candidate was favoured by, and by what the sum was divided; see `favour`."""
    if found.bonus is None:
        return np.zeros(len(positions)), 1.0
    return found.bonus[list(positions)].astype(np.float64), 1 + float(found.bonus.max())


def _min_max(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    span = values.max() - values.min()
    if span <= _FLAT:
        return np.zeros_like(values)
    found: npt.NDArray[np.float64] = (values - values.min()) / span
    return found
