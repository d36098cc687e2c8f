"""The stage between finding and showing: the best candidates of a batch are looked at again.

The pairs of a request and a candidate, those of the whole batch, run in groups of similar length
within the token budget that all batches have, and within milliseconds: what they will cost is
predicted from what such pairs have cost.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

from reclane.contract import Failure
from reclane_worker.batching import Limits, plan
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Tokens, describe
from reclane_worker.memory import InMemory
from reclane_worker.preparing import Prepared
from reclane_worker.rerank.items import ItemTokens
from reclane_worker.rerank.joining import joined
from reclane_worker.rerank.models import Reranker
from reclane_worker.rerank.pairs import Pair
from reclane_worker.rerank.spending import LEAST, Spending, budget_s, steps
from reclane_worker.retrieval import Picked
from reclane_worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

LEAST_TRUST: Final = 0.2  # below it the reranker cannot read the request
_NOT_FINITE: Final = Failure(
    code="non_finite", message="the reranker gave a value that is not a number for this request"
)
_FIRST: Final = "a plain request and an item as plain"
_FIRST_BATCHES: Final = ((1, 1), (1, 4), (1, 1), (4, 8))  # pairs, and how long their items are
_WARM_UP: Final = 2  # of them tell nothing yet

Scores = list[float | Failure]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request with something to rerank: its row in the batch, its tokens, how far the model can
    read it, and its candidates by position, best first."""

    row: int
    tokens: Tokens
    trust: float
    candidates: list[int]


class _Cell(NamedTuple):
    """The tokens of a request and of one of its candidates."""

    request: Tokens
    item: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The first `count` candidates of each request, one request after the other, the lengths of
    these pairs, and which of them run together."""

    count: int
    cells: list[_Cell]
    lengths: list[int]
    groups: list[list[int]]

    def padded(self) -> Iterator[int]:
        """Padded tokens of each group."""
        return (len(group) * max(self.lengths[i] for i in group) for group in self.groups)


class Reranking:
    """One reranker and what it may spend. For several threads."""

    def __init__(self, reranker: Reranker, settings: WorkerSettings, limits: Limits) -> None:
        self.version = describe(reranker)
        self.candidates = settings.rerank_candidates
        self.budget_s = budget_s(settings, reranker.device.type)
        self._reranker = reranker
        self._pairing = reranker.pairing
        self._weight = settings.rerank_weight
        self._limits = limits
        self._memory = InMemory(limits.max_tokens, padded_pairs)
        self._items = ItemTokens(self._pairing)
        self._spending = Spending()
        self._begin()

    def statistics(self) -> dict[str, int]:
        """Candidates reranked since the start, and those left out for want of time."""
        return self._spending.statistics()

    def rerank(
        self, batch: Sequence[Prepared], found: Sequence[Picked], within_s: float
    ) -> list[Picked | Failure]:
        """Order the candidates of each request anew, in `within_s` seconds as predicted.

        `found` holds of each request the best items, `candidates` of them where there are so
        many. What has no text keeps its order, and so does what comes after the candidates.
        """
        reranked: list[Picked | Failure] = [*found]
        asked = self._asked(batch, found)
        if not asked:
            return reranked
        catalog = batch[0].catalog
        chosen = None
        if within_s > 0:
            chosen = self._affordable(asked, catalog, within_s)
            if self._spending.worth_a_try(chosen is not None):
                self._try(asked[0], catalog)
        scores = iter(self._scores(chosen) if chosen else ())
        count = chosen.count if chosen else 0
        for one in asked:
            values = list(islice(scores, len(one.candidates[:count])))
            left_out = len(one.candidates[count:])
            first = replace(found[one.row], left_out=left_out)
            reranked[one.row] = _ordered(first, values, self._weight * one.trust)
            self._spending.count(len(values), left_out)
        return reranked

    def _asked(self, batch: Sequence[Prepared], found: Sequence[Picked]) -> list[_Asked]:
        rows = [row for row, one in enumerate(batch) if self._may_matter(one, found[row])]
        texts = [batch[row].text for row in rows]
        asked = []
        for row, text, tokens in zip(rows, texts, self._pairing.tokenise(texts), strict=True):
            trust = self._pairing.trust(text, tokens)
            if trust >= LEAST_TRUST:
                asked.append(_Asked(row, tokens, trust, found[row].positions[: self.candidates]))
        return asked

    def _may_matter(self, one: Prepared, found: Picked) -> bool:
        """Whether a request has a text, candidates to order, and shows any of them."""
        request = one.request
        shows = request.offset < self.candidates or request.diversity > 0
        return bool(one.text) and len(found.positions) >= LEAST and shows

    def _affordable(
        self, asked: Sequence[_Asked], catalog: Catalog, within_s: float
    ) -> _Chosen | None:
        """As many candidates of each request as time allows; None where it allows none."""
        best = None
        for count in steps(self.candidates):
            more = self._chosen(asked, catalog, count)
            if self._spending.predict_s(more.padded()) > within_s:
                break
            best = more
            if all(len(one.candidates) <= count for one in asked):
                break
        return best

    def _chosen(self, asked: Sequence[_Asked], catalog: Catalog, count: int) -> _Chosen:
        shown = (position for one in asked for position in one.candidates[:count])
        items = self._items.of(catalog, shown)
        cells = [_Cell(one.tokens, items[at]) for one in asked for at in one.candidates[:count]]
        lengths = [self._pairing.length(len(cell.request), len(cell.item)) for cell in cells]
        limits = replace(self._limits, max_tokens=self._memory.cap.tokens)
        return _Chosen(count, cells, lengths, plan(lengths, limits))

    def _scores(self, chosen: _Chosen) -> Scores:
        """Of each cell the log-odds that the item answers the request, or why there are none."""
        scores: dict[int, float | Failure] = {}
        for group in chosen.groups:
            values, padded, seconds = self._timed([chosen.cells[i] for i in group])
            self._spending.learn(padded, seconds)
            scores.update(zip(group, values, strict=True))
        return [scores[i] for i in range(len(chosen.cells))]

    def _timed(self, cells: Sequence[_Cell]) -> tuple[Scores, int, float]:
        """One group: its scores, padded tokens and seconds."""
        started = time.perf_counter()
        pairs = [self._pairing.pair(cell.request, cell.item) for cell in cells]
        values = [_value(one) for one in self._memory.run(self._score, pairs)]
        return values, padded_pairs(pairs), time.perf_counter() - started

    def _score(self, pairs: Sequence[Pair]) -> list[float]:
        values: list[float] = self._reranker.score(pairs).tolist()  # waits for the device
        return values

    def _begin(self) -> None:
        """See what pairs cost before the first batch comes."""
        (words,) = self._pairing.tokenise([_FIRST])
        seen = []
        for pairs, length in _FIRST_BATCHES:
            _, padded, seconds = self._timed([_Cell(words, words * length)] * pairs)
            seen.append((padded, seconds))
        self._spending.begin_anew(seen[_WARM_UP:])
        least = LEAST * seen[-1][0] // _FIRST_BATCHES[-1][0]
        least_s = self._spending.predict_s([least])
        if least_s > self.budget_s:
            _log.warning(
                "%s takes some %.0f ms for %s items, and RECLANE_RERANK_MS allows %.0f: hardly "
                "anything will be reranked; raise it, or choose a smaller reranker",
                *(self.version, 1e3 * least_s, LEAST, 1e3 * self.budget_s),
            )

    def _try(self, one: _Asked, catalog: Catalog) -> None:
        """See again what a pair costs, and predict from that alone."""
        (cell,) = self._chosen([one], catalog, 1).cells
        _, padded, seconds = self._timed([cell])
        self._spending.begin_anew([(padded, seconds)])


def padded_pairs(pairs: Sequence[Pair]) -> int:
    """Tokens of a batch of pairs, padding included."""
    return len(pairs) * max(len(one.tokens) for one in pairs)


def _value(score: float | Failure) -> float | Failure:
    if isinstance(score, Failure) or math.isfinite(score):
        return score
    return _NOT_FINITE


def _ordered(found: Picked, scores: Scores, weight: float) -> Picked | Failure:
    """What was found in its new order; a failure where one candidate could not be scored."""
    values: list[float] = []
    for score in scores:
        if isinstance(score, Failure):
            return score
        values.append(score)
    return joined(found, values, weight) if values else found
