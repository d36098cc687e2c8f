"""The device half of the main path: intent vectors, exact scores over all items, the best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from reclane.contract import Constraint
from reclane.errors import RequestFailed
from reclane_worker import ranking
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder
from reclane_worker.index.filters import Mask
from reclane_worker.intent.fitting import Fit, fit
from reclane_worker.preparing import Prepared

HISTORY_WEIGHT: Final = 0.5  # of the history vector beside a query's, both of length one
MAX_CELLS: Final = 32_000_000  # scores held at once: 128 MB of float32 for each kind of score
_STEPS_PER_FILTER: Final = 10
DIVERSITY_POOL: Final = 500  # candidates that diversity orders, the same for every page

Bonus = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picked:
    """The items chosen for one request, best first, whether any query term matched, and which
    constraints gave way or cannot be met.

    `bonus` is what every item was favoured by, (items,) float32, or None. Of the candidates so
    many were `reranked`, and so many `left_out` for want of time.
    """

    positions: list[int]
    scores: list[float]
    matched: bool
    relaxed: tuple[Constraint, ...] = ()
    impossible: tuple[Constraint, ...] = ()
    bonus: Bonus | None = None
    reranked: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Signs:
    """What speaks for each item, of a batch: cosines and lexical scores, both (batch, items) and as
    they come, the latter None where nobody has text; whether any term matched; constraints."""

    dense: torch.Tensor
    lexical: torch.Tensor | None
    matched: list[bool]
    fits: list[Fit]

    def allowed(self) -> torch.Tensor | None:
        """(batch, items) bool; None where nothing is ruled out."""
        return _stacked([one.allowed for one in self.fits], self.dense)

    def normalised(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both scores, 0 to 1 over the allowed items of each row."""
        allowed = self.allowed()
        blocked = None if allowed is None else ~allowed
        lexical = torch.zeros_like(self.dense) if self.lexical is None else self.lexical
        return ranking.min_max(self.dense, blocked), ranking.min_max(lexical, blocked)


def intent_vectors(
    batch: Sequence[Prepared], catalog: Catalog, encoder: Encoder
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each request looks for, (batch, dim), and how certain the vector is, (batch,) 0 to 1.

    A query counts as far as the encoder can read it, a history fully:
    intent = trust * query + HISTORY_WEIGHT * history, brought to length one.
    """
    device = encoder.device
    intent = torch.zeros(len(batch), encoder.dim, device=device)
    with_text = [row for row, one in enumerate(batch) if one.tokens]
    if with_text:
        vectors = encoder.encode([batch[row].tokens for row in with_text], "query")
        if vectors.shape != (len(with_text), encoder.dim):  # assigning would broadcast one row
            raise RequestFailed("the encoder lost a request of the batch", "internal", True)
        intent[with_text] = vectors
    trust = torch.tensor([one.trust for one in batch], device=device)
    with_history = [row for row, one in enumerate(batch) if one.history]
    if not with_history:
        return intent, trust
    past = _tastes([batch[row].history for row in with_history], catalog)
    joined = trust[with_history].unsqueeze(1) * intent[with_history] + HISTORY_WEIGHT * past
    intent[with_history] = torch.nn.functional.normalize(joined, dim=1)
    certainty = trust.clone()
    certainty[with_history] = (trust[with_history] + HISTORY_WEIGHT).clamp_max(1.0)
    return intent, certainty


def retrieve(
    batch: Sequence[Prepared],
    catalog: Catalog,
    intent: torch.Tensor,
    certainty: torch.Tensor,
    dense_weight: float,
    least: int = 0,
) -> list[Picked]:
    """Score every item for every request, exactly, and take the best of each: all up to the end
    of the page it wants (see `page`), and at least so many.

    Rows are taken in slices, so that memory stays bounded whatever the catalog's size.
    """
    if not len(catalog):
        return [Picked([], [], False) for _ in batch]
    step = max(1, MAX_CELLS // len(catalog))
    picked: list[Picked] = []
    for start in range(0, len(batch), step):
        part = slice(start, start + step)
        picked += _retrieve(
            batch[part], catalog, intent[part], certainty[part], dense_weight, least
        )
    return picked


def _retrieve(
    batch: Sequence[Prepared],
    catalog: Catalog,
    intent: torch.Tensor,
    certainty: torch.Tensor,
    dense_weight: float,
    least: int,
) -> list[Picked]:
    found = signs(batch, catalog, intent, catalog.weights.wishes)
    share = ranking.dense_share(certainty, dense_weight)
    share[[row for row, one in enumerate(batch) if not one.text]] = 1.0
    fits, matched = found.fits, found.matched
    fused = ranking.fuse(found.dense, found.lexical, share, found.allowed())
    demand = None if catalog.demand is None else catalog.weights.demand * catalog.demand
    bonuses = [_bonus(one, fit.bonus, demand) for one, fit in zip(batch, fits, strict=True)]
    ranking.favour(fused, bonuses)
    counts = [max(_pool(one), least) for one in batch]
    scores, positions = (found.cpu() for found in ranking.top(fused, max(counts)))
    passing = torch.isfinite(scores).sum(1).tolist()  # the best come first: the rest fell out
    # One list for the whole batch: a tensor for each row would cost more than finding the best.
    ends = map(min, counts, passing)
    rows = zip(positions.tolist(), scores.tolist(), ends, matched, fits, bonuses, strict=True)
    return [
        Picked(items[:end], worth[:end], match, one.relaxed, one.impossible, bonus)
        for items, worth, end, match, one, bonus in rows
    ]


def _bonus(one: Prepared, wishes: Bonus | None, demand: Bonus | None) -> Bonus | None:
    """What items are favoured by: wishes that they meet and, where something is said, demand."""
    if demand is None or not one.text:
        return wishes
    return demand if wishes is None else wishes + demand


def signs(batch: Sequence[Prepared], catalog: Catalog, intent: torch.Tensor, soft: float) -> Signs:
    """What speaks for each item; to meet a soft constraint is worth `soft`."""
    dense = _dense(batch, catalog, intent)
    alone = [{} if one.text else one.history for one in batch]  # where nothing is said beside it
    if catalog.likeness is not None:
        catalog.likeness.add(dense, alone)
    if catalog.taste is not None:
        catalog.taste.add(dense, alone)
    lexical, matched = _lexical(batch, catalog)
    return Signs(dense, lexical, matched, _fits(batch, catalog, soft))


def _dense(batch: Sequence[Prepared], catalog: Catalog, intent: torch.Tensor) -> torch.Tensor:
    """Cosines, (batch, items): of a request that says something, the best over an item's own
    vector and its passages. A history is a taste, and an item's own vector tells what it is."""
    dense = intent @ catalog.vectors.T
    silent = [row for row, one in enumerate(batch) if not one.text]
    if catalog.passages is None or len(silent) == len(batch):
        return dense
    step = max(1, MAX_CELLS // len(batch))
    for start in range(0, len(catalog.passages), step):
        part = slice(start, start + step)
        further = intent @ catalog.passages.vectors[part].T
        further[silent] = -torch.inf
        owners = catalog.passages.owners[part].expand(len(batch), -1)
        dense.scatter_reduce_(1, owners, further, "amax")
    return dense


def _lexical(batch: Sequence[Prepared], catalog: Catalog) -> tuple[torch.Tensor | None, list[bool]]:
    """Lexical scores, (batch, items), and whether any term matched; None where nobody has text."""
    if not any(one.text for one in batch):
        return None, [False] * len(batch)
    lexical = catalog.lexical.scores([one.text for one in batch])
    return lexical, (lexical.amax(1) > 0).tolist()


def _tastes(histories: Sequence[dict[int, float]], catalog: Catalog) -> torch.Tensor:
    """Of each history the weighted mean of its items' vectors, centred and of length one,
    (batch, dim). Centred: the catalog's mean is in every item and tells nothing of a history."""
    vectors = catalog.vectors
    starts = list(accumulate(map(len, histories), initial=0))[:-1]
    items = torch.tensor([item for one in histories for item in one], device=vectors.device)
    weights = torch.tensor([w for one in histories for w in one.values()], device=vectors.device)
    sums = torch.nn.functional.embedding_bag(
        items,
        vectors,
        torch.tensor(starts, device=vectors.device),
        mode="sum",
        per_sample_weights=weights,
    )
    totals = torch.tensor([sum(one.values()) for one in histories], device=vectors.device)
    return torch.nn.functional.normalize(sums - totals.unsqueeze(1) * catalog.centre, dim=1)


def _fits(batch: Sequence[Prepared], catalog: Catalog, soft: float) -> list[Fit]:
    """What each request may get, and what of that it would rather have."""
    everything = np.ones(len(catalog), dtype=bool)
    found = []
    for one in batch:
        allowed = _eligible(one, catalog, everything)
        found.append(
            fit(one.constraints, allowed, catalog.attributes, soft)
            if one.constraints
            else Fit(allowed, None)
        )
    return found


def _eligible(one: Prepared, catalog: Catalog, everything: Mask) -> Mask:
    """Items that a request itself allows, (items,) bool; `everything` where that is all."""
    request = one.request
    if not (request.filters or request.exclude or one.history or request.candidates):
        return everything
    allowed = everything.copy()
    if request.filters:
        allowed &= catalog.attributes.mask(request.filters)
    if request.candidates is not None:
        wanted = np.zeros_like(allowed)
        wanted[catalog.known(request.candidates)] = True
        allowed &= wanted
    allowed[catalog.known(request.exclude)] = False
    allowed[list(one.history)] = False
    return allowed


def _stacked(masks: Sequence[Mask], like: torch.Tensor) -> torch.Tensor | None:
    """Masks of a batch, (batch, items) bool; None when nothing is ruled out."""
    if all(mask.all() for mask in masks):
        return None
    return torch.from_numpy(np.stack(masks)).to(like.device)


def ranking_work(one: Prepared) -> int:
    """What diversity, filters and constraints cost on the host, in steps of diversity (some 25 us
    each)."""
    request = one.request
    picks = min(request.offset + request.k, DIVERSITY_POOL) if request.diversity else 0
    return picks + _STEPS_PER_FILTER * (len(request.filters) + len(one.constraints))


def _pool(one: Prepared) -> int:
    request = one.request
    wanted = request.offset + one.k
    return max(DIVERSITY_POOL, wanted) if request.diversity else wanted


def page(one: Prepared, catalog: Catalog, found: Picked) -> Picked:
    """Spread what was found if asked, and take the page wanted."""
    request, scores, positions = one.request, found.scores, found.positions
    if request.diversity and scores:
        pool = positions[:DIVERSITY_POOL]
        vectors = catalog.vectors[pool].cpu()
        wanted = request.offset + one.k
        order = ranking.diversify(
            torch.tensor(scores[: len(pool)]), vectors, request.diversity, wanted
        )
        order += range(len(pool), len(scores))  # beyond the pool by relevance
        scores, positions = [scores[at] for at in order], [positions[at] for at in order]
    shown = slice(request.offset, request.offset + one.k)
    return replace(found, positions=positions[shown], scores=scores[shown])
