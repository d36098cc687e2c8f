"""First half of the main path: a request becomes text, tokens and item positions, on the host."""

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from reclane.contract import Constraint, Failure, RecommendRequest
from reclane.errors import RequestFailed
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder, Tokens
from reclane_worker.intent.languages import tells_nothing
from reclane_worker.intent.parse import Reading
from reclane_worker.memory import OUT_OF_MEMORY, is_out_of_memory
from reclane_worker.text import normalise

_log = logging.getLogger(__name__)
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready for the device: what it asks, the text to compare and its tokens, and its
    history by position, items that it names as a model included.

    Requests with one `key` have one answer, of one version of their catalog. `trust` is how far the
    encoder can read the text, 0 to 1. Times are those of its batch.
    """

    key: str
    request: RecommendRequest
    catalog: Catalog
    asked: Reading
    text: str
    tokens: Tokens
    trust: float
    history: dict[int, float]
    queued_ms: float
    tokenise_ms: float

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return self.asked.constraints

    @property
    def k(self) -> int:
        """How many items to answer with at most."""
        return min(self.request.k, self.asked.count or self.request.k)


class Preparer:
    """Turns requests into `Prepared`, or into a failure that leaves its neighbours alone."""

    def __init__(
        self, encoder: Encoder, catalogs: Mapping[str, Catalog], history_decay: float
    ) -> None:
        self._encoder = encoder
        self._catalogs = catalogs
        self._history_decay = history_decay

    def prepare(
        self,
        keys: Sequence[str],
        requests: Sequence[RecommendRequest],
        queued_ms: Sequence[float],
    ) -> list[Prepared | Failure]:
        """Normalise and tokenise all at once; `queued_ms` is each request's age.

        Each request is looked up in one catalog and stays with it, whatever is served meanwhile.
        """
        started = time.perf_counter()
        catalogs = [find_catalog(self._catalogs, request.catalog) for request in requests]
        asked = [_understand(*one) for one in zip(requests, catalogs, strict=True)]
        texts = [one.text for one in asked]
        tokens = failing_alone(lambda part: self._encoder.tokenise(part, "query"), texts)
        spent_ms = (time.perf_counter() - started) * 1e3
        prepared: list[Prepared | Failure] = []
        rows = zip(keys, requests, catalogs, asked, tokens, queued_ms, strict=True)
        for key, request, catalog, one, ids, queued in rows:
            if isinstance(ids, Failure):
                prepared.append(ids)
                continue
            try:
                found = self._known(catalog, request.catalog)
                prepared.append(self._one(key, request, found, one, ids, queued, spent_ms))
            except Exception as error:
                prepared.append(failure_of(error))
        return prepared

    def _one(
        self,
        key: str,
        request: RecommendRequest,
        catalog: Catalog,
        asked: Reading,
        tokens: Tokens,
        queued: float,
        spent_ms: float,
    ) -> Prepared:
        catalog.attributes.check(request.filters)
        history = self._history(request, catalog)
        for position in asked.similar:
            history.setdefault(position, 1.0)
        text = asked.text
        if history and tells_nothing(text.casefold()):
            text = ""  # `more, please` says nothing beside a history
        if not (text or history or asked.constraints):
            if request.query:
                raise RequestFailed("the query has no visible character", "empty_query")
            if request.history:
                raise RequestFailed(
                    "no history item is in the catalog; add a query", "unknown_items"
                )
            raise RequestFailed("nothing is known of this user yet; add a query", "unknown_user")
        trust = self._encoder.trust(text, tokens) if text else 0.0
        read = tokens if text else []
        return Prepared(
            key=f"{catalog.version} {key}",
            request=request,
            catalog=catalog,
            asked=asked,
            text=text,
            tokens=read,
            trust=trust,
            history=history,
            queued_ms=queued,
            tokenise_ms=spent_ms,
        )

    def _known(self, catalog: Catalog | None, name: str | None) -> Catalog:
        if catalog is None:
            known = ", ".join(sorted(self._catalogs))
            raise RequestFailed(f"no catalog {name!r} here; there is: {known}", "unknown_catalog")
        return catalog

    def _history(self, request: RecommendRequest, catalog: Catalog) -> dict[int, float]:
        """Position -> weight; the newest counts most, an item named twice adds up."""
        weights: dict[int, float] = {}
        for age, entry in enumerate(reversed(request.history)):
            item, weight = (entry, 1.0) if isinstance(entry, str) else entry
            position = catalog.positions.get(item)
            if position is not None:
                decayed = weight * self._history_decay**age
                weights[position] = weights.get(position, 0.0) + decayed
        return weights


def _understand(request: RecommendRequest, catalog: Catalog | None) -> Reading:
    """What a request asks of its catalog; what it brings itself is not read again."""
    query = request.query or ""
    if request.intent is not None:
        told = request.intent
        text = query if told.text is None else told.text
        similar = () if catalog is None else tuple(catalog.known(told.similar))
        return Reading(normalise(text), told.constraints, told.count, similar)
    if catalog is not None:
        try:
            return catalog.reader.read(query)
        except Exception as error:  # a text that is not understood can still be compared
            failure_of(error)
    return Reading(normalise(query))


def find_catalog(catalogs: Mapping[str, Catalog], name: str | None) -> Catalog | None:
    """The catalog that a request names, the first where it names none."""
    return next(iter(catalogs.values())) if name is None else catalogs.get(name)


def failing_alone(
    work: Callable[[Sequence[_In]], Sequence[_Out]], items: Sequence[_In]
) -> list[_Out | Failure]:
    """`work` on all items at once; an item that makes it raise fails alone, found by halving.

    Work that returns another number of results than it got items counts as raising.
    """
    try:
        results = work(items)
        if len(results) == len(items):
            return list(results)
        raise RequestFailed(f"{len(items)} requests gave {len(results)} answers", "internal")
    except Exception as error:
        if len(items) == 1:
            return [failure_of(error)]
    middle = len(items) // 2
    return failing_alone(work, items[:middle]) + failing_alone(work, items[middle:])


def failure_of(error: Exception) -> Failure:
    """What is stored for an exception. Its message may quote the request: only its kind and its
    place are logged."""
    if isinstance(error, RequestFailed):
        return Failure(code=error.code, message=error.message, retry=error.retry)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    place = "".join(traceback.format_tb(error.__traceback__)[-3:])
    _log.error("a request failed alone with %s\n%s", type(error).__name__, place)
    return Failure(
        code="pipeline_error", message=f"the pipeline raised {type(error).__name__}", retry=True
    )
