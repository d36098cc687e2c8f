"""Which items, in what order: fusion, exclusion, top-k, diversity. Pure tensor functions."""

from typing import Final

import torch

_TIE_STEP: Final = 1e-8


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
    return (scores - low) / (high - low).clamp_min(1e-9)


def top(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best `count` of each row: scores and positions (batch, count), best first.

    Equal scores rank by catalog order: float64 holds a step per position that is smaller than
    the distance between two float32 scores.
    """
    size = scores.shape[1]
    step = torch.arange(size, dtype=torch.float64, device=scores.device) * (_TIE_STEP / size)
    _, positions = torch.topk(scores.double() - step, min(count, size), dim=1)
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
