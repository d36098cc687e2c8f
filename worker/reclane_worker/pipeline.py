"""THE MAIN PATH, read top to bottom: prepare -> encode -> retrieve -> rerank -> page -> answer.

Works on whole batches and knows nothing of Redis: the lane's loop, `reclane eval` and the
ordinary Celery task all call it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from reclane import __version__, contract
from reclane.contract import Failure, RecommendRequest
from reclane_worker.answering import (
    Answer,
    Made,
    batch_shape,
    build_answer,
    is_whole,
    padded_tokens,
)
from reclane_worker.batching import Limits, plan
from reclane_worker.caching import AnswerCache, cache_key
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder, describe
from reclane_worker.memory import InMemory
from reclane_worker.preparing import Prepared, Preparer, failing_alone, find_catalog
from reclane_worker.rerank.models import Reranker
from reclane_worker.rerank.reranking import Reranking
from reclane_worker.retrieval import Picked, intent_vectors, page, ranking_work, retrieve
from reclane_worker.settings import WorkerSettings
from reclane_worker.sharing import answer_for, answer_key, distinct, first_places, prepared_for

_BATCH_TOKENS: Final = {"cpu": 1_024, "cuda": 16_384}
MAX_RANKING_WORK: Final = 2_000  # picks of one batch, some 25 us each: 50 ms
_OVERHEAD_TOKENS: Final = {"cpu": 32, "cuda": 4_096}
_NOT_FINITE: Final = Failure(
    code="non_finite", message="the model gave a value that is not a number for this request"
)


class Pipeline:
    """One encoder, its catalogs and, where wanted, a reranker. One thread may prepare while
    another runs.

    A catalog may be replaced at any time, by one assignment to its name in `catalogs`: what is
    prepared before is answered by the one before.
    """

    def __init__(
        self,
        encoder: Encoder,
        catalogs: Mapping[str, Catalog],
        settings: WorkerSettings,
        reranker: Reranker | None = None,
    ) -> None:
        self.encoder = encoder
        self.catalogs = dict(catalogs)
        self._model = describe(encoder)
        self._preparer = Preparer(encoder, self.catalogs, settings.history_decay)
        self._dense_weight = settings.dense_weight
        self._limits = batch_limits(encoder, settings)
        self._memory = InMemory(self._limits.max_tokens, padded_tokens)
        self._reranking = reranker and Reranking(reranker, settings, self._limits)
        self._shared = 0
        self._cache = AnswerCache(settings.answer_cache)

    def recommend(self, requests: Sequence[RecommendRequest]) -> list[Answer | Failure]:
        """The whole path without a queue, answers in the order of the requests."""
        prepared = self.prepare(requests, [0.0] * len(requests))
        answers = {i: one for i, one in enumerate(prepared) if not isinstance(one, Prepared)}
        ready = [(i, one) for i, one in enumerate(prepared) if isinstance(one, Prepared)]
        for group in self.batches([one for _, one in ready]):
            batch = [ready[place][1] for place in group]
            for place, answer in zip(group, self.run(batch), strict=True):
                answers[ready[place][0]] = answer
        return [answers[i] for i in range(len(requests))]

    def compute(self, request: RecommendRequest) -> Answer | Failure:
        """One request on the device, now, whatever the cache holds."""
        (one,) = self._preparer.prepare([answer_key(request)], [request], [0.0])
        return one if isinstance(one, Failure) else self.run([one])[0]

    def versions(self) -> dict[str, Any]:
        """What answers: release, contract, model and catalogs, for whoever watches the worker."""
        told: dict[str, Any] = {
            "version": __version__,
            "contract": contract.VERSION,
            "model": self._model,
            "catalogs": [f"{name}@{one.version}" for name, one in self.catalogs.items()],
        }
        return told | {"reranker": self._reranker} if self._reranker else told

    @property
    def _reranker(self) -> str | None:
        """How answers name it."""
        return self._reranking.version if self._reranking else None

    @property
    def rerank_s(self) -> float:
        """Predicted seconds that reranking adds to a batch at most."""
        return self._reranking.budget_s if self._reranking else 0.0

    def _key(self, catalog: Catalog, key: str) -> bytes:
        """What the answer to a request of this key is kept under."""
        return cache_key((self._model, self._reranker or ""), catalog, key)

    def statistics(self) -> dict[str, int]:
        """Counters since the start, for whoever watches the worker.

        `shared`: requests for which an equal one was computed; `out_of_memory`: batches that did
        not fit; `batch_tokens`: padded tokens that a batch may have at present; `reranked` and
        `rerank_left_out`: candidates looked at again, and those for which time was too short.
        """
        return {
            "shared": self._shared,
            "out_of_memory": self._memory.cap.exceeded,
            "batch_tokens": self._memory.cap.tokens,
            **self._cache.statistics(),
            **(self._reranking.statistics() if self._reranking else {}),
        }

    def prepare(
        self, requests: Sequence[RecommendRequest], queued_ms: Sequence[float]
    ) -> list[Prepared | Answer | Failure]:
        """On the host, while the device runs the batch before: text, tokens, positions. What is
        known already is answered here."""
        keys = [answer_key(request) for request in requests]
        places = first_places(keys)
        known = self._recall(places, requests)
        fresh = {key: place for key, place in places.items() if key not in known}
        first = list(fresh.values())
        read = self._preparer.prepare(
            list(fresh), [requests[i] for i in first], [queued_ms[i] for i in first]
        )
        if len(fresh) == len(keys):
            return [*read]
        self._shared += len(keys) - len(places)
        by_key = known | dict(zip(fresh, read, strict=True))
        return [prepared_for(by_key[k], age) for k, age in zip(keys, queued_ms, strict=True)]

    def _recall(
        self, places: Mapping[str, int], requests: Sequence[RecommendRequest]
    ) -> dict[str, Prepared | Answer | Failure]:
        """Those requests whose answers are kept, by key."""
        known: dict[str, Prepared | Answer | Failure] = {}
        for key, place in places.items() if self._cache else ():
            catalog = find_catalog(self.catalogs, requests[place].catalog)
            answer = catalog and self._cache.find(self._key(catalog, key))
            if answer:
                known[key] = answer
        return known

    @property
    def limits(self) -> Limits:
        """Bounds of one batch at present: what fits into memory may be less than what was set."""
        return replace(self._limits, max_tokens=self._memory.cap.tokens)

    def batches(
        self, prepared: Sequence[Prepared], max_tokens: int | None = None
    ) -> list[list[int]]:
        """Indices that run together: one catalog, similar lengths, within the token budget, which
        `max_tokens` may narrow, where equal requests count once."""
        limits = self.limits
        if max_tokens is not None:
            limits = replace(limits, max_tokens=min(max_tokens, limits.max_tokens))
        copies: dict[str, list[int]] = {}
        for index, one in enumerate(prepared):
            copies.setdefault(one.key, []).append(index)
        by_catalog: dict[int, list[int]] = {}  # two versions of one may be here
        for first, *_ in copies.values():
            by_catalog.setdefault(id(prepared[first].catalog), []).append(first)
        groups: list[list[int]] = []
        for members in by_catalog.values():
            lengths = [len(prepared[i].tokens) for i in members]
            for group in plan(lengths, limits):
                groups += self._bound_ranking([members[i] for i in group], prepared)
        return [[i for first in group for i in copies[prepared[first].key]] for group in groups]

    def _bound_ranking(
        self, group: Sequence[int], prepared: Sequence[Prepared]
    ) -> Iterator[list[int]]:
        """Cut a group where diversity and filters would take longer than its tokens suggest."""
        part: list[int] = []
        work = 0
        for index in group:
            cost = ranking_work(prepared[index])
            if part and work + cost > MAX_RANKING_WORK:
                yield part
                part, work = [], 0
            part.append(index)
            work += cost
        if part:
            yield part

    def run(
        self, batch: Sequence[Prepared], rerank_s: float | None = None
    ) -> list[Answer | Failure]:
        """Answer one batch on the device, equal requests once; one that raises fails alone, by
        halving. Reranking may take so many seconds as predicted, by default `self.rerank_s`; each
        request has an equal share, so that halves have no more than the whole."""
        rows = distinct(batch)
        each_s = (self.rerank_s if rerank_s is None else rerank_s) / max(1, len(rows))

        def work(part: Sequence[Prepared]) -> list[Answer | Failure]:
            return self._memory.run(lambda some: self._run(some, each_s * len(some)), part)

        answers = failing_alone(work, rows)
        self._remember(rows, answers)
        if len(rows) == len(batch):
            return answers
        by_key = {one.key: answer for one, answer in zip(rows, answers, strict=True)}
        return [answer_for(by_key[one.key], one.queued_ms) for one in batch]

    def _remember(self, rows: Sequence[Prepared], answers: Sequence[Answer | Failure]) -> None:
        for one, answer in zip(rows, answers, strict=True) if self._cache else ():
            if not isinstance(answer, Failure) and is_whole(answer):
                self._cache.keep(self._key(one.catalog, answer_key(one.request)), answer)

    @torch.inference_mode()
    def _run(self, batch: Sequence[Prepared], rerank_s: float) -> list[Answer | Failure]:
        catalog = batch[0].catalog
        started = time.perf_counter()
        intent, certainty = intent_vectors(batch, catalog, self.encoder)  # (batch, dim), (batch,)
        finite = torch.isfinite(intent).all(1).tolist()  # waits for the device
        encoded = time.perf_counter()
        least = self._reranking.candidates if self._reranking else 0
        weight = catalog.weights.vector if self._dense_weight is None else self._dense_weight
        found = retrieve(batch, catalog, intent, certainty, weight, least)
        retrieved = time.perf_counter()
        ranked = self._rerank(batch, found, rerank_s)
        reranked = time.perf_counter()
        picked = [
            one if isinstance(one, Failure) else page(asked, catalog, one)
            for asked, one in zip(batch, ranked, strict=True)
        ]
        spent_s = reranked - retrieved
        timing_ms = {
            "model": round((encoded - started) * 1e3, 3),
            "rank": round((time.perf_counter() - encoded - spent_s) * 1e3, 3),
        }
        if self._reranking:
            timing_ms["rerank"] = round(spent_s * 1e3, 3)
        made = Made(self._model, self._reranker, timing_ms, batch_shape(batch))
        return [
            _answer(one, choice, made) if ok else _NOT_FINITE
            for one, choice, ok in zip(batch, picked, finite, strict=True)
        ]

    def _rerank(
        self, batch: Sequence[Prepared], found: Sequence[Picked], within_s: float
    ) -> Sequence[Picked | Failure]:
        return self._reranking.rerank(batch, found, within_s) if self._reranking else found


def _answer(one: Prepared, choice: Picked | Failure, made: Made) -> Answer | Failure:
    return choice if isinstance(choice, Failure) else build_answer(one, choice, made)


def batch_limits(encoder: Encoder, settings: WorkerSettings) -> Limits:
    """How large a device batch may be, and when a new one costs less than padding (measured
    with MiniLM: on 2 CPU cores a batch costs as much as 32 tokens more)."""
    kind = encoder.device.type
    return Limits(
        max_tokens=settings.batch_tokens or _BATCH_TOKENS.get(kind, _BATCH_TOKENS["cpu"]),
        max_requests=settings.batch_requests,
        overhead_tokens=_OVERHEAD_TOKENS.get(kind, _OVERHEAD_TOKENS["cpu"]),
    )
