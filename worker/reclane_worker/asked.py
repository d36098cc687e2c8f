"""Learns from requests with known answers how much each sign counts, and what is asked for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from reclane.errors import ItemsInvalid
from reclane_worker.building import write_learnt
from reclane_worker.cases import Case
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.encoder import Encoder
from reclane_worker.listwise import Floats, fit
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.retrieval import intent_vectors, signs
from reclane_worker.settings import WorkerSettings
from reclane_worker.weights import USUAL, Learnt, Weights, demand_of

_SHARPNESS: Final = 20.0  # of the usual weights, as logits
_USUAL: Final = _SHARPNESS * np.array((USUAL.vector, 1 - USUAL.vector, USUAL.wishes, 0.1))
_LEAST: Final = _USUAL * (0.1, 0.1, 0.0, 0.0)  # no catalog does without vectors or words
_BELIEF: Final = 2.0  # lists it takes to leave the usual weights: one request is none
_LISTS: Final = 1_000  # at random
_ANSWERS: Final = 3  # of one request
_CANDIDATES: Final = 10_000  # of each list, at random: 160 MB of signs in all
_BATCH: Final = 64

Asked = tuple[Prepared, list[int]]
"""A request, and the positions of the items that answer it."""


def add_learnt(
    folder: Path, cases: Sequence[Case], encoder: Encoder, settings: WorkerSettings
) -> None:
    """Write what `learn` says into a catalog's folder that is being built."""
    write_learnt(folder, learn(cases, load_catalog("new", folder, encoder), encoder, settings))


def learn(
    cases: Sequence[Case], catalog: Catalog, encoder: Encoder, settings: WorkerSettings
) -> Learnt:
    """Weights under which the answers of `cases` come first, and how often each item is asked for.

    Weights are a listwise fit (`listwise.fit`) of each answer against items drawn evenly. An item's
    demand is that of all other requests.

    Raises:
        ItemsInvalid: no request is answered by an item of the catalog.
    """
    known = _known(cases, catalog, encoder, settings)
    if not known:
        raise ItemsInvalid(f"none of {len(cases)} requests is answered by an item of the catalog")
    asked = Counter(position for _, answers in known for position in answers)
    counts = np.zeros(len(catalog), dtype=np.float32)
    counts[list(asked)] = list(asked.values())
    chance = np.random.default_rng(0)
    chosen = [known[i] for i in chance.permutation(len(known))[:_LISTS]]
    chosen.sort(key=lambda one: len(one[0].tokens))  # equal lengths need no padding
    lists = [
        one
        for start in range(0, len(chosen), _BATCH)
        for one in _lists(chosen[start : start + _BATCH], catalog, encoder, counts, chance)
    ]
    vector, words, wishes, demand = fit(lists, _USUAL, _LEAST, _BELIEF).tolist()
    whole = vector + words
    weights = Weights(vector=vector / whole, wishes=wishes / whole, demand=demand / whole)
    return Learnt(
        weights=weights,
        requests=len(known),
        asked={catalog.ids[position]: count for position, count in sorted(asked.items())},
    )


def _known(
    cases: Sequence[Case], catalog: Catalog, encoder: Encoder, settings: WorkerSettings
) -> list[Asked]:
    """Those of which the catalog has an answer, prepared as a worker does it."""
    pipeline = Pipeline(encoder, {catalog.name: catalog}, settings)
    found = []
    for start in range(0, len(cases), _BATCH):
        part = cases[start : start + _BATCH]
        prepared = pipeline.prepare([case.request for case in part], [0.0] * len(part))
        for case, one in zip(part, prepared, strict=True):
            answers = catalog.known(sorted(case.relevant))
            if isinstance(one, Prepared) and answers:
                found.append((one, answers))
    return found


@torch.inference_mode()
def _lists(
    asked: Sequence[Asked],
    catalog: Catalog,
    encoder: Encoder,
    counts: Floats,
    chance: np.random.Generator,
) -> Iterator[Floats]:
    """Of each answer its signs, then those of what it is to beat, (candidates, signs)."""
    batch = [one for one, _ in asked]
    intent, certainty = intent_vectors(batch, catalog, encoder)
    found = signs(batch, catalog, intent, soft=1.0)
    vector, words = found.normalised()
    vector *= certainty.unsqueeze(1)
    most = int(counts.max())
    for row, (_, answers) in enumerate(asked):
        allowed = found.fits[row].allowed.copy()
        allowed[answers] = False
        others = np.flatnonzero(allowed)
        if len(others) > _CANDIDATES:
            others = chance.choice(others, _CANDIDATES, replace=False)
        theirs = counts.copy()
        theirs[answers] -= 1  # what this request says of itself foretells nothing
        bonus = found.fits[row].bonus
        columns = (
            vector[row].cpu().numpy(),
            words[row].cpu().numpy(),
            np.zeros_like(counts) if bonus is None else bonus,
            demand_of(theirs, most),
        )
        for answer in answers[:_ANSWERS]:
            if found.fits[row].allowed[answer]:
                places = np.append(answer, others)
                yield np.stack([column[places] for column in columns], axis=1)
