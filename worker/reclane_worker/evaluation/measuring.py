"""Asks the pipeline what a catalog's requests ask, beside BM25 and popularity, and times it."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reclane.contract import Failure
from reclane.errors import ItemsInvalid
from reclane_worker.answering import Answer
from reclane_worker.cases import Case
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder
from reclane_worker.evaluation import baselines
from reclane_worker.manifest import Manifest
from reclane_worker.metrics import per_request
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.rerank.models import Reranker
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import Interactions

OURS: Final = "reclane"
BM25: Final = "bm25"
POPULARITY: Final = "popularity"
SHOWN: Final = ("P@5", "Success@5", "R@10", "RR", "NDCG@10")
"""The measures that are compared with an earlier run; the tables have all."""

_CHUNK: Final = 256
_STAGES: Final = {"model": "encode", "rank": "retrieve and rank"}
"""What an answer's timing calls a stage of the device batch -> what it is."""

Values = dict[str, list[float]]
"""Each measure's value of each request, in their order."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the pipeline made of one request: ids best first, and what it says of it."""

    ranking: list[str]
    intent: dict[str, Any]
    flags: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One catalog: `values` by system; `stages` is milliseconds a request, in their order, and
    `popular` says what popularity is here."""

    name: str
    catalog: Catalog
    manifest: Manifest
    cases: Sequence[Case]
    answers: list[Answered]
    values: dict[str, Values]
    stages: dict[str, float]
    popular: str

    @property
    def unknown(self) -> int:
        """Requests whose right answers are no items of the catalog: nothing can find them."""
        return sum(not self.catalog.known(relevant) for relevant in self.relevant)

    @property
    def relevant(self) -> list[frozenset[str]]:
        return [case.relevant for case in self.cases]


def measure_catalog(
    catalog: Catalog,
    manifest: Manifest,
    cases: Sequence[Case],
    encoder: Encoder,
    settings: WorkerSettings,
    interactions: Interactions | None = None,
    reranker: Reranker | None = None,
) -> Measured:
    """Answer all requests by the path that serves, and rank for them by words and by popularity.

    Raises:
        ItemsInvalid: a request fails; names it. Or no item of the catalog is right for any.
    """
    if len(catalog) and not any(catalog.known(case.relevant) for case in cases):
        theirs, ours = min(cases[0].relevant), catalog.ids[0]
        raise ItemsInvalid(
            f"{catalog.name}: no request's `relevant` names an item of the catalog, whose ids are "
            f"like {ours!r}, theirs like {theirs!r}"
        )
    uncached = settings.model_copy(update={"answer_cache": 0})
    pipeline = Pipeline(encoder, {catalog.name: catalog}, uncached, reranker)
    answers, stages = _answered(pipeline, cases)
    if interactions is None:
        popular, ranked = baselines.ANSWERS, baselines.by_answers(catalog, cases)
    else:
        popular, ranked = baselines.LIKES, baselines.by_likes(catalog, cases, interactions)
    relevant = [case.relevant for case in cases]
    values = {
        OURS: per_request([one.ranking for one in answers], relevant),
        BM25: per_request(list(baselines.by_words(catalog, cases)), relevant),
        POPULARITY: per_request(list(ranked), relevant),
    }
    return Measured(catalog.name, catalog, manifest, cases, answers, values, stages, popular)


def _answered(pipeline: Pipeline, cases: Sequence[Case]) -> tuple[list[Answered], dict[str, float]]:
    """Answers in the order of the requests, and milliseconds a request by stage."""
    found: dict[int, Answered] = {}
    spent: defaultdict[str, float] = defaultdict(float)
    for start in range(0, len(cases), _CHUNK):
        part = cases[start : start + _CHUNK]
        for place, answer in _chunk(pipeline, part, spent):
            if not isinstance(answer, dict):
                name = cases[start + place].id
                raise ItemsInvalid(f"request {name} failed: {answer.message} [{answer.code}]")
            ranking = [item["id"] for item in answer["items"]]
            found[start + place] = Answered(ranking, answer["intent"], answer["flags"])
    stages = {stage: ms / len(cases) for stage, ms in spent.items()}
    return [found[place] for place in range(len(cases))], stages


def _chunk(
    pipeline: Pipeline, cases: Sequence[Case], spent: "defaultdict[str, float]"
) -> Iterator[tuple[int, Answer | Failure]]:
    """As `Pipeline.recommend` does it. Adds each stage's time to `spent`: a batch's once, whoever
    was in it; what its answers do not tell is the rest."""
    started = time.perf_counter()
    prepared = pipeline.prepare([case.request for case in cases], [0.0] * len(cases))
    spent["read and tokenise"] += (time.perf_counter() - started) * 1e3
    ready = {place: one for place, one in enumerate(prepared) if isinstance(one, Prepared)}
    yield from ((at, one) for at, one in enumerate(prepared) if not isinstance(one, Prepared))
    for group in pipeline.batches(list(ready.values())):
        places = [list(ready)[at] for at in group]
        started = time.perf_counter()
        answers = pipeline.run([ready[place] for place in places])
        whole = (time.perf_counter() - started) * 1e3
        told: dict[str, float] = next(
            (one["timing_ms"] for one in answers if isinstance(one, dict)), {}
        )
        for stage, ms in told.items():
            if stage not in ("queued", "tokenise"):
                spent[_STAGES.get(stage, stage)] += ms
                whole -= ms
        spent["write the answer"] += max(0.0, whole)
        yield from zip(places, answers, strict=True)
