"""A real worker process with a real, small reranker, through a real server."""

from pathlib import Path

import pytest
import redis
from celery import Celery

from reclane import Client, names
from reclane.contract import ManyAnswers, Recommendation
from reclane.errors import ReclaneError
from small_rerankers import make_causal, make_cross_encoder
from support import DEADLINE_S, StartWorker, eventually, statistics

PATIENT = {"RECLANE_RERANK_MS": "600000", "RECLANE_RERANK_WEIGHT": "1.0", "OMP_NUM_THREADS": "1"}


def test_a_worker_reranks_what_has_a_text(
    client: Client, raw: "redis.Redis", start_worker: StartWorker, tmp_path: Path
) -> None:
    folder = make_causal(tmp_path / "reranker", word="space")
    worker = start_worker({**PATIENT, "RECLANE_RERANKER": str(folder)})
    answer = client.recommend("a good film", k=5, timeout=DEADLINE_S)
    assert answer.versions.reranker is not None
    assert answer.intent.reranked == 50
    assert answer.timing_ms.rerank > 0
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    liked = client.recommend(history=["film/arrival"], timeout=DEADLINE_S)
    assert liked.intent.reranked == 0
    eventually(lambda: statistics(raw).get("requests") == 2, "it counts both")
    assert statistics(raw)["reranker"] == answer.versions.reranker
    assert worker.stop() == 0


def test_bulk_is_answered_where_reranking_has_a_slice_at_most(
    stock: Celery, start_worker: StartWorker, tmp_path: Path
) -> None:
    """And the worker's cost line stays that of encoding: a batch is not taken for a stuck one."""
    folder = make_cross_encoder(tmp_path / "reranker")
    start_worker({**PATIENT, "RECLANE_RERANKER": str(folder), "RECLANE_BULK_SLICE_MS": "1"})
    chunk = [{"query": f"a good film {n}"} for n in range(60)]
    done = stock.send_task(names.RECOMMEND_MANY, args=[chunk], queue=names.BULK_QUEUE)
    answers = ManyAnswers.model_validate(done.get(timeout=DEADLINE_S)).answers
    for answer in answers:
        assert isinstance(answer, Recommendation)
        cut = [flag for flag in answer.flags if flag.code == "rerank_cut"]
        assert bool(cut) == (answer.intent.reranked < 50)


def test_a_worker_whose_reranker_cannot_be_loaded_says_what_to_do(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    worker = start_worker.prepare({"RECLANE_RERANKER": str(tmp_path / "pickled")})
    with pytest.raises(ReclaneError, match="did not start"):
        worker.start()
    assert "no safetensors weights" in worker.log()
