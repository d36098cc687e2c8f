"""Judges a model while it learns, on requests that it does not learn from, among few items."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from reclane_worker import ranking
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import SentenceEncoder
from reclane_worker.item_texts import ItemTexts
from reclane_worker.metrics import per_request
from reclane_worker.training.examples import hard_negatives
from reclane_worker.training.texts import Asked

MAX_ITEMS: Final = 1_000  # encoding them is what an evaluation costs
MEASURE: Final = "NDCG@10"
NAME: Final = "held_out"  # of the figure, in the trainer's log
_DEPTH: Final = 10
_BATCH: Final = 16


def pool(relevant: Sequence[frozenset[int]], ranked: Sequence[Sequence[int]]) -> list[int]:
    """Positions that held-out requests choose among: what answers them, then their hard
    negatives, both by turns."""
    wrong = [hard_negatives(r, known) for r, known in zip(ranked, relevant, strict=True)]
    chosen: dict[int, None] = {}
    for wanted in ([sorted(one) for one in relevant], wrong):
        for turn in zip_longest(*wanted):
            for item in turn:
                if item is not None and len(chosen) < MAX_ITEMS:
                    chosen.setdefault(item)
    return sorted(chosen)


class HeldOut(BaseEvaluator):
    """NDCG@10 of held-out requests by vectors and words together, as the pipeline joins them."""

    def __init__(
        self,
        requests: Sequence[Asked],
        positions: Sequence[int],
        catalog: Catalog,
        items: ItemTexts,
        dense_weight: float,
        encoder: SentenceEncoder,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        readable = encoder.readable
        requests = [one for one in requests if not one.relevant.isdisjoint(positions)]
        self._max_tokens = encoder.max_tokens
        self.primary_metric = NAME
        self._queries = [readable(one.text) for one in requests]
        self._items = [readable(items[position]) for position in positions]
        self._positions = [str(position) for position in positions]
        self._relevant = [set(map(str, one.relevant)) & set(self._positions) for one in requests]
        self._lexical = _lexical(requests, positions, catalog)  # (requests, pool)
        trust = torch.tensor([one.trust for one in requests])
        self._share = ranking.dense_share(trust, dense_weight)

    @torch.inference_mode()
    def __call__(
        self,
        model: Any,
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        learning, cut = model.training, model.max_seq_length
        model.eval()
        model.max_seq_length = self._max_tokens  # as served, not as cut for training
        try:
            queries = model.encode_query(self._queries, **_HOW)
            items = model.encode_document(self._items, **_HOW)
        finally:
            model.max_seq_length = cut
            model.train(learning)
        dense = model.similarity(queries, items).float().cpu()  # (requests, pool)
        if not bool(dense.isfinite().all()):
            return {NAME: 0.0}  # the vectors are no longer numbers: no model is worse
        return {NAME: self._measured(dense)}

    def _measured(self, dense: torch.Tensor) -> float:
        fused = ranking.fuse(dense, self._lexical, self._share)
        _, best = ranking.top(fused, _DEPTH)
        rankings = [[self._positions[place] for place in row] for row in best.tolist()]
        values = per_request(rankings, self._relevant)[MEASURE]
        return sum(values) / len(values)


_HOW: Final[dict[str, Any]] = {
    "batch_size": _BATCH,
    "show_progress_bar": False,
    "convert_to_tensor": True,
}


def _lexical(requests: Sequence[Asked], positions: Sequence[int], catalog: Catalog) -> torch.Tensor:
    """Word scores of the pool, (requests, pool); a request at a time, as a catalog may be large."""
    chosen = torch.tensor(positions)
    rows = [catalog.lexical.scores([one.text])[0].cpu()[chosen] for one in requests]
    return torch.stack(rows)
