"""Ranks items by score, and measures rankings the way trec_eval does (library ir_measures)."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ir_measures
import numpy as np
from numpy.typing import NDArray

from reclane.errors import InvalidSettings, ItemsInvalid, RequestFailed

_RESAMPLES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` requests and its standard error (0 when n is 1)."""

    mean: float
    stderr: float
    n: int


def rank_ids(scores: NDArray[np.floating[Any]], ids: Sequence[str], depth: int) -> list[str]:
    """The `depth` best ids, score descending; equal scores stay in catalog order.

    `scores` is (items,) and `ids` the catalog in the same order.

    Raises:
        RequestFailed: code `non_finite`. NaN has no place in an order; one that sorted first
            once looked like a record.
    """
    if not np.isfinite(scores).all():
        bad = int(np.count_nonzero(~np.isfinite(scores)))
        raise RequestFailed(
            f"{bad} of {len(scores)} scores are NaN or infinite; check the model and its precision",
            code="non_finite",
        )
    order = np.argsort(-scores, kind="stable")[:depth]
    return [ids[index] for index in order]


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean difference of two systems on the same requests; its paired bootstrap interval
    holds 95 of 100 resamples."""

    mean: float
    low: float
    high: float


def measure(
    rankings: Sequence[Sequence[str]],
    relevant: Sequence[Collection[str]],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, Estimate]:
    """Means over requests of what `per_request` gives, which says what may be wrong."""
    return {name: estimate(v) for name, v in per_request(rankings, relevant, ks).items()}


def gain(one: Sequence[float], other: Sequence[float]) -> Gain:
    """What `one` has over `other`, request by request (Efron's percentile bootstrap, paired)."""
    differences = np.asarray(one) - np.asarray(other)
    chance = np.random.default_rng(0)
    means = [float(chance.choice(differences, len(differences)).mean()) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return Gain(float(differences.mean()), float(low), float(high))


def per_request(
    rankings: Sequence[Sequence[str]],
    relevant: Sequence[Collection[str]],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, list[float]]:
    """R@k, P@k and Success@k for each k, RR (its mean is MRR) and NDCG@10, of each request.

    `rankings[i]` are distinct item ids for request i, best first and ties already broken;
    `relevant[i]` the ids that answer it. An empty ranking counts as zero, and P@k divides by k
    even where a ranking is shorter. Gains are 0 or 1 and NDCG discounts by log2, as trec_eval.

    Raises:
        ItemsInvalid: no requests, one without relevant items or that ranks an item twice, or
            the two sequences differ in length. Requests count from 1.
        InvalidSettings: a k below 1.
    """
    _check(rankings, relevant)
    if any(k < 1 for k in ks):  # trec_eval would abort the process
        raise InvalidSettings(f"k must be at least 1, not {min(ks)}")
    names: dict[ir_measures.Measure, str] = {}
    for k in ks:
        names |= {
            ir_measures.R @ k: f"R@{k}",
            ir_measures.P @ k: f"P@{k}",
            ir_measures.Success @ k: f"Success@{k}",
        }
    names |= {ir_measures.RR: "RR", ir_measures.nDCG @ 10: "NDCG@10"}
    # trec_eval sorts by score and breaks ties by id; strictly falling scores keep our order.
    run = {
        str(request): {item: float(-rank) for rank, item in enumerate(ranking)}
        for request, ranking in enumerate(rankings)
    }
    qrels = {str(request): dict.fromkeys(items, 1) for request, items in enumerate(relevant)}
    values: dict[str, list[float]] = {name: [] for name in names.values()}
    for metric in ir_measures.iter_calc(list(names), qrels, run):
        values[names[metric.measure]].append(metric.value)
    return values


def _check(rankings: Sequence[Sequence[str]], relevant: Sequence[Collection[str]]) -> None:
    if not rankings or len(rankings) != len(relevant):
        raise ItemsInvalid(f"{len(rankings)} rankings for {len(relevant)} requests")
    for number, (ranking, items) in enumerate(zip(rankings, relevant, strict=True), start=1):
        if not items:
            raise ItemsInvalid(f"request {number} has no relevant items")
        if len(set(ranking)) != len(ranking):
            raise ItemsInvalid(f"the ranking of request {number} has an item twice")


def estimate(values: Sequence[float]) -> Estimate:
    """Their mean and its standard error."""
    n = len(values)
    stderr = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Estimate(mean=float(np.mean(values)), stderr=stderr, n=n)
