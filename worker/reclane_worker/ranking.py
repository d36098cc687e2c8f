"""Which items, in what order: fusion, exclusion, top-k, diversity. Pure tensor functions."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

_RESOLUTION: Final = 1e6
_SPARE: Final = 64  # candidates beyond those wanted, for scores that are equal
_FLAT: Final = 1e-5  # scores closer together than this differ by rounding alone


def dense_share(certainty: torch.Tensor, weight: float) -> torch.Tensor:
    """The vector score's share of each row, (batch,) 0 to 1.

    `weight` is its share when the vector is certain (certainty 1); as certainty falls to 0 the
    lexical score takes over: share = weight * certainty / (weight * certainty + 1 - weight).
    """
    counted = weight * certainty
    return counted / (counted + 1 - weight).clamp_min(1e-9)


def fuse(
    dense: torch.Tensor,
    lexical: torch.Tensor | None,
    weight: torch.Tensor,
    eligible: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted sum of min-max-normalised scores, 0 to 1, (batch, items) float32.

    `weight` (batch,) is the dense share of each row, 0 to 1. Both scores are normalised over the
    eligible items of their row; an ineligible item scores -inf. Without lexical scores, which is
    for rows whose share is 1, the dense ones are all.
    """
    blocked = None if eligible is None else ~eligible
    fused = min_max(dense, blocked)
    if lexical is not None:
        share = weight.unsqueeze(1)  # (batch, 1)
        fused = share * fused + (1 - share) * min_max(lexical, blocked)
    return fused if blocked is None else fused.masked_fill_(blocked, -torch.inf)


def min_max(scores: torch.Tensor, blocked: torch.Tensor | None) -> torch.Tensor:
    """Of each row 0 to 1 over what is not blocked, and 0 where its scores are all alike."""
    if blocked is None:
        low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    else:
        low = scores.masked_fill(blocked, torch.inf).amin(1, keepdim=True)
        high = scores.masked_fill(blocked, -torch.inf).amax(1, keepdim=True)
    span = high - low
    known = span.isfinite() & (span > _FLAT)  # nothing is left of a row that is all blocked
    return (scores - torch.where(known, low, 0.0)).div_(torch.where(known, span, torch.inf))


def favour(
    fused: torch.Tensor, bonuses: "Sequence[npt.NDArray[np.float32] | None]"
) -> torch.Tensor:
    """Add to each row of fused scores (batch, items) what its items are favoured by, (items,) or
    None, in place, and bring the row back to 0 to 1."""
    for row, bonus in zip(fused, bonuses, strict=True):
        if bonus is not None:
            row += torch.from_numpy(bonus).to(row.device)
            row /= 1 + float(bonus.max())
    return fused


def top(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best `count` of each row: scores and positions (batch, count), best first.

    Scores equal to six decimals, as an answer shows them, rank by catalog order: what differs
    less may be rounding, which depends on the batch.
    """
    size = scores.shape[1]
    count = min(count, size)
    few = min(count + _SPARE, size)
    found, positions = torch.topk(scores, few, dim=1)  # of equal ones any
    keys, picked = torch.topk(_keys(found, positions, size), count, dim=1)
    positions = positions.gather(1, picked)
    # Nothing that was left out there can come first, unless it equals the last of the few.
    unsure = (keys[:, -1] <= (found[:, -1].double() * _RESOLUTION).round()).nonzero().squeeze(1)
    if few < size and len(unsure):
        every = torch.arange(size, device=scores.device)
        _, positions[unsure] = torch.topk(_keys(scores[unsure], every, size), count, dim=1)
    return scores.gather(1, positions), positions


def _keys(scores: torch.Tensor, positions: torch.Tensor, size: int) -> torch.Tensor:
    """Scores to six decimals, then the order in the catalog: float64 holds both in one number."""
    return (scores.double() * _RESOLUTION).round() - positions.double() / (2 * size)


def diversify(
    relevance: torch.Tensor, vectors: torch.Tensor, diversity: float, k: int
) -> list[int]:
    """Maximal marginal relevance (Carbonell & Goldstein 1998): indices into the candidates.

    relevance (candidates,) 0 to 1, best first; vectors (candidates, dim), L2-normalised.
    Each step takes the best of (1 - diversity) * relevance - diversity * similarity, where
    similarity is the greatest cosine to an item already taken.
    """
    similarity = vectors @ vectors.T  # (candidates, candidates)
    nearest = torch.zeros_like(relevance)
    open_ = torch.ones_like(relevance, dtype=torch.bool)
    taken: list[int] = []
    for _ in range(min(k, len(relevance))):
        gain = (1 - diversity) * relevance - diversity * nearest
        best = int(gain.masked_fill(~open_, -torch.inf).argmax())
        taken.append(best)
        open_[best] = False
        nearest = torch.maximum(nearest, similarity[best])
    return taken
