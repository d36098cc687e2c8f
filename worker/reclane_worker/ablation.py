"""What each part of the pipeline gains: the same requests, answered without it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reclane.contract import RecommendRequest, Understood
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder
from reclane_worker.metrics import Gain, gain
from reclane_worker.pipeline import Pipeline
from reclane_worker.rerank.models import Reranker
from reclane_worker.settings import WorkerSettings

SHOWN: Final = ("P@5", "Success@5", "R@10", "NDCG@10")
Values = dict[str, list[float]]
"""Each measure's value of each request, in their order."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """A part, and how to do without it: other settings, other requests, another catalog, or no
    reranker."""

    part: str
    settings: dict[str, float]
    request: Callable[[RecommendRequest], RecommendRequest] = lambda request: request
    catalog: Callable[[Catalog], Catalog] = lambda catalog: catalog
    reranked: bool = True


def _unread(request: RecommendRequest) -> RecommendRequest:
    return request.model_copy(update={"intent": Understood()})


def _without_passages(catalog: Catalog) -> Catalog:
    return replace(catalog, passages=None)


ABLATIONS: Final = (
    Ablation("reading the request", {}, _unread),
    Ablation("word scores", {"dense_weight": 1.0}),
    Ablation("vectors", {"dense_weight": 0.0}),
)
PASSAGES: Final = Ablation("passages", {}, catalog=_without_passages)
RERANKING: Final = Ablation("reranking", {}, reranked=False)


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
    further = [PASSAGES] if catalog.passages else []
    for one in (*ABLATIONS, *further, *([RERANKING] if reranker else [])):
        fewer = settings.model_copy(update=one.settings)
        left = reranker if one.reranked else None
        pipeline = Pipeline(encoder, {catalog.name: one.catalog(catalog)}, fewer, left)
        values = measured(pipeline, [one.request(request) for request in requests])
        found[one.part] = {name: gain(whole[name], values[name]) for name in SHOWN}
    return found
