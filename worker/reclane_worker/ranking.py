"""Which items, in what order: fusion, exclusion, top-k, diversity. Pure tensor functions."""

from typing import Final

import torch

_RESOLUTION: Final = 1e6
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
    lexical: torch.Tensor,
    weight: torch.Tensor,
    eligible: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted sum of min-max-normalised scores, 0 to 1, (batch, items) float32.

    `weight` (batch,) is the dense share of each row, 0 to 1. Both scores are normalised over the
    eligible items of their row; an ineligible item scores -inf.
    """
    share = weight.unsqueeze(1)  # (batch, 1)
    fused = share * _min_max(dense, eligible) + (1 - share) * _min_max(lexical, eligible)
    return fused if eligible is None else fused.masked_fill(~eligible, -torch.inf)


def _min_max(scores: torch.Tensor, eligible: torch.Tensor | None) -> torch.Tensor:
    if eligible is None:
        low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    else:
        low = scores.masked_fill(~eligible, torch.inf).amin(1, keepdim=True)
        high = scores.masked_fill(~eligible, -torch.inf).amax(1, keepdim=True)
    span = high - low
    return torch.where(span > _FLAT, (scores - low) / span.clamp_min(_FLAT), 0.0)


def top(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best `count` of each row: scores and positions (batch, count), best first.

    Scores equal to six decimals, as an answer shows them, rank by catalog order: what differs
    less may be rounding, which depends on the batch. float64 holds both in one number.
    """
    size = scores.shape[1]
    order = torch.arange(size, dtype=torch.float64, device=scores.device) / (2 * size)
    keys = (scores.double() * _RESOLUTION).round() - order
    _, positions = torch.topk(keys, min(count, size), dim=1)
    return scores.gather(1, positions), positions


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
