"""What each part of the pipeline gains: the same requests, answered without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from reclane.contract import RecommendRequest, Understood
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder
from reclane_worker.item_texts import plain_index
from reclane_worker.metrics import Gain, gain
from reclane_worker.pipeline import Pipeline
from reclane_worker.rerank.models import Reranker
from reclane_worker.settings import WorkerSettings
from reclane_worker.weights import USUAL

SHOWN: Final = ("P@5", "Success@5", "R@10", "NDCG@10")
Values = dict[str, list[float]]
"""Each measure's value of each request, in their order."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """A part, whether a catalog has it, and how to do without it: other settings, other requests,
    another catalog, or no reranker."""

    part: str
    settings: dict[str, float] = field(default_factory=dict)
    request: Callable[[RecommendRequest], RecommendRequest] = lambda request: request
    catalog: Callable[[Catalog], Catalog] = lambda catalog: catalog
    there: Callable[[Catalog], bool] = lambda catalog: True
    reranked: bool = True


def _unread(request: RecommendRequest) -> RecommendRequest:
    return request.model_copy(update={"intent": Understood()})


def _without_passages(catalog: Catalog) -> Catalog:
    return replace(catalog, passages=None)


def _by_the_book(catalog: Catalog) -> Catalog:
    return replace(catalog, lexical=plain_index(catalog).to(catalog.vectors.device))


def _unmended(catalog: Catalog) -> Catalog:
    return replace(catalog, reader=catalog.reader.unmending())


def _untaught(catalog: Catalog) -> Catalog:
    return replace(catalog, weights=USUAL, demand=None)


ABLATIONS: Final = (
    Ablation("reading the request", request=_unread),
    Ablation("mending misspelt words", catalog=_unmended),
    Ablation("word scores", {"dense_weight": 1.0}),
    Ablation("stems, and weight of rare words", catalog=_by_the_book),
    Ablation("vectors", {"dense_weight": 0.0}),
    Ablation("passages", catalog=_without_passages, there=lambda one: one.passages is not None),
    Ablation("what requests taught", catalog=_untaught, there=lambda one: one.demand is not None),
)
RERANKING: Final = Ablation("reranking", reranked=False)


def gains(
    whole: Values,
    encoder: Encoder,
    catalog: Catalog,
    settings: WorkerSettings,
    requests: Sequence[RecommendRequest],
    measured: Callable[[Pipeline, Sequence[RecommendRequest]], Values],
    reranker: Reranker | None = None,
) -> dict[str, dict[str, Gain]]:
    """Of each part, what the `whole` has over the pipeline without it, by measure."""
    found = {}
    parts = [one for one in ABLATIONS if one.there(catalog)]
    for one in (*parts, RERANKING) if reranker else parts:
        fewer = settings.model_copy(update=one.settings)
        left = reranker if one.reranked else None
        pipeline = Pipeline(encoder, {catalog.name: one.catalog(catalog)}, fewer, left)
        values = measured(pipeline, [one.request(request) for request in requests])
        found[one.part] = {name: gain(whole[name], values[name]) for name in SHOWN}
    return found
