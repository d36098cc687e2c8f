"""How well histories foresee what comes next: likes held out, beside popularity and each signal."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reclane.contract import MAX_HISTORY, MAX_IDS, Failure, RecommendRequest
from reclane.errors import ItemsInvalid
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder
from reclane_worker.metrics import per_request, rank_ids
from reclane_worker.pipeline import Pipeline
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import Interactions
from reclane_worker.taste.learning import learn
from reclane_worker.taste.weighing import by_content

DEPTH: Final = 10
TIME_SHARE: Final = 0.8  # of the likes are known in a split by time
JOINED: Final = "reclane"
_CHUNK: Final = 256
_ALONE: Final = {"content": (1.0, 0, 0), "item_item": (0, 1.0, 0), "ease": (0, 0, 1.0)}

Mask = npt.NDArray[np.bool_]
Values = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Split:
    """What is known and what is to be foreseen, both (interactions,) bool."""

    name: str
    known: Mask
    wanted: Mask


@dataclass(frozen=True, slots=True)
class Trial:
    """Of one split: how many users, the weights learnt, and each system's values by measure."""

    split: str
    users: int
    weights: tuple[float, ...]
    values: dict[str, Values]


@dataclass(frozen=True, slots=True)
class Case:
    """A user's request, and what is liked next."""

    request: RecommendRequest
    relevant: frozenset[str]


def splits(interactions: Interactions) -> Iterator[Split]:
    """Each user's last like held out; and, where likes have several times, all from one time on."""
    last = interactions.last_liked()
    yield Split("last like of each user", ~last, last)
    times = interactions.times[interactions.liked]
    cut = np.quantile(times, TIME_SHARE, method="higher") if len(times) else 0.0
    known = interactions.times < cut
    if (known & interactions.liked).any():
        yield Split(f"likes after {TIME_SHARE:.0%} of the time", known, ~known & interactions.liked)


def run(
    split: Split,
    interactions: Interactions,
    catalog: Catalog,
    encoder: Encoder,
    settings: WorkerSettings,
    limit: int | None = None,
) -> Trial:
    """Learn from what is known alone, and ask for what is wanted, by the path that serves.

    Raises:
        ItemsInvalid: no user has a like on both sides of the split.
    """
    cases = list(_cases(split, interactions, catalog.ids))
    if not cases:
        raise ItemsInvalid(f"{split.name}: no user has likes that are known and one to foresee")
    if limit is not None and limit < len(cases):
        cases = random.Random(0).sample(cases, limit)  # noqa: S311  # a sample, not a secret
    learnt = interactions.of(split.known)
    content = by_content(catalog.vectors.cpu().numpy(), catalog.likeness)
    taste = learn(learnt, content, encoder.device, settings.history_decay)
    relevant = [case.relevant for case in cases]
    popular = np.bincount(learnt.items[learnt.liked], minlength=len(catalog))
    values = {"popularity": per_request(list(_popular(popular, catalog, cases)), relevant)}
    for name, weights in (*_ALONE.items(), (JOINED, taste.weights)):
        tasted = replace(catalog, taste=taste.weighed(weights))
        pipeline = Pipeline(encoder, {catalog.name: tasted}, settings)
        values[name] = per_request(list(_answers(pipeline, cases)), relevant)
    return Trial(split.name, len(cases), taste.weights, values)


def _cases(split: Split, interactions: Interactions, ids: Sequence[str]) -> Iterator[Case]:
    """One of each user with likes on both sides; what was seen and not liked is excluded."""
    starts = np.flatnonzero(np.diff(interactions.users, prepend=-1))
    ends = np.append(starts[1:], len(interactions))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        own = slice(start, end)
        items, liked = interactions.items[own], interactions.liked[own]
        known, wanted = split.known[own], split.wanted[own]
        history = [ids[item] for item in items[known & liked][-MAX_HISTORY:]]
        relevant = frozenset(ids[item] for item in items[wanted])
        if history and relevant:
            seen = [ids[item] for item in items[known & ~liked][-MAX_IDS:]]
            request = RecommendRequest(history=tuple(history), exclude=tuple(seen), k=DEPTH)
            yield Case(request, relevant)


def _popular(
    counts: "npt.NDArray[np.integer[Any]]", catalog: Catalog, cases: Sequence[Case]
) -> Iterator[list[str]]:
    for case in cases:
        scores = counts.astype(np.float64)
        seen = (*map(str, case.request.history), *case.request.exclude)
        scores[catalog.known(seen)] = -1
        yield rank_ids(scores, catalog.ids, DEPTH)


def _answers(pipeline: Pipeline, cases: Sequence[Case]) -> Iterator[list[str]]:
    for start in range(0, len(cases), _CHUNK):
        requests = [case.request for case in cases[start : start + _CHUNK]]
        for answer in pipeline.recommend(requests):
            if isinstance(answer, Failure):
                raise ItemsInvalid(f"a request failed: {answer.message} [{answer.code}]")
            yield [item["id"] for item in answer["items"]]
