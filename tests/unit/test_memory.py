"""Running out of memory: what counts, how the cap moves, and that no request fails of it."""

import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from reclane.contract import Failure, RecommendRequest
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Role, Tokens
from reclane_worker.hashing import HashEncoder
from reclane_worker.memory import GROW_AFTER, BatchCap, Turns, is_out_of_memory
from reclane_worker.pipeline import Pipeline
from reclane_worker.settings import WorkerSettings
from support import DEADLINE_S

# ---- the cap


def test_memory_that_ran_out_halves_what_was_tried() -> None:
    cap = BatchCap(1_024)
    cap.ran_out(1_000)
    assert (cap.tokens, cap.exceeded) == (500, 1)
    cap.ran_out(480)
    assert (cap.tokens, cap.exceeded) == (240, 2)


def test_batches_planned_before_the_cap_fell_do_not_lower_it_again() -> None:
    cap = BatchCap(1_024)
    for _ in range(3):
        cap.ran_out(1_024)
    assert cap.tokens == 512


def test_the_cap_stays_positive_and_at_most_what_was_configured() -> None:
    cap = BatchCap(100)
    for padded in (9_000, 2, 1, 1):
        cap.ran_out(padded)
    assert cap.tokens == 1
    for _ in range(1_000):
        cap.fitted(cap.tokens)
    assert cap.tokens == 100


def test_the_cap_grows_by_a_quarter_after_enough_batches_that_filled_it() -> None:
    cap = BatchCap(1_024)
    cap.ran_out(1_024)
    for _ in range(GROW_AFTER - 1):
        cap.fitted(300)
    assert cap.tokens == 512
    cap.fitted(300)
    assert cap.tokens == 640


def test_batches_far_below_the_cap_say_nothing_about_more() -> None:
    cap = BatchCap(1_024)
    cap.ran_out(1_024)
    for _ in range(10 * GROW_AFTER):
        cap.fitted(256)
    assert cap.tokens == 512


def test_running_out_again_starts_the_count_anew() -> None:
    cap = BatchCap(1_024)
    cap.ran_out(1_024)
    for _ in range(GROW_AFTER - 1):
        cap.fitted(512)
    cap.ran_out(512)
    cap.fitted(256)
    assert cap.tokens == 256


# ---- turns


def test_a_turn_alone_waits_for_those_that_run_and_keeps_others_out() -> None:
    turns, seen = Turns(), []
    inside, leave = threading.Event(), threading.Event()

    def beside() -> None:
        with turns.beside_others():
            inside.set()
            leave.wait(DEADLINE_S)
            seen.append("beside")

    def alone() -> None:
        with turns.alone():
            seen.append("alone begins")
            later.start()
            time.sleep(0.05)  # long enough for `later` to come in, were it let in
            seen.append("alone ends")

    def after() -> None:
        with turns.beside_others():
            seen.append("later")

    first, second, later = (threading.Thread(target=t) for t in (beside, alone, after))
    first.start()
    inside.wait(DEADLINE_S)
    second.start()
    leave.set()
    for thread in (first, second, later):
        thread.join(DEADLINE_S)
    assert seen == ["beside", "alone begins", "alone ends", "later"]


# ---- what counts


def test_an_allocation_that_really_fails_on_the_host_counts() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    with pytest.raises(MemoryError) as from_numpy:
        np.ones(1 << 55, dtype=np.uint8)
    assert is_out_of_memory(from_numpy.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_cuda_out_of_memory_counts(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert"), ValueError("can't allocate memory")]
)
def test_other_errors_do_not_count(error: Exception) -> None:
    assert not is_out_of_memory(error)


# ---- the pipeline


class Narrow(HashEncoder):
    """Has memory for so many padded tokens; knows what was tried, and what was left of it."""

    def __init__(self, fits: int) -> None:
        super().__init__(384, torch.device("cpu"))
        self.fits = fits
        self.tried: list[int] = []
        self.left_over: list[weakref.ref[torch.Tensor]] = []

    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        assert not any(ref() is not None for ref in self.left_over), "a failed tensor lives on"
        padded = max(map(len, tokens)) * len(tokens)
        self.tried.append(padded)
        scratch = torch.zeros(padded)
        if padded > self.fits:
            self.left_over.append(weakref.ref(scratch))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode(tokens, role)


def small(encoder: Narrow, catalog: Catalog) -> Pipeline:
    """A pipeline whose batches have 256 padded tokens."""
    settings = WorkerSettings(model="hash:384", device="cpu", batch_tokens=256)
    return Pipeline(encoder, {"shop": catalog}, settings)


def requests(count: int, words: int = 4) -> list[RecommendRequest]:
    return [RecommendRequest(query=f"film {'good ' * (words - 2)}w{n}") for n in range(count)]


def test_a_batch_that_does_not_fit_is_answered_in_parts(
    catalog: Catalog, pipeline: Pipeline
) -> None:
    narrow = small(Narrow(70), catalog)
    answers: list[Any] = narrow.recommend(requests(64))
    expected: list[Any] = pipeline.recommend(requests(64))
    assert [a["items"] for a in answers] == [a["items"] for a in expected]
    assert {a["batch"]["padded"] for a in answers} == {64}
    assert narrow.statistics()["out_of_memory"] == 2  # 256 tokens, then 128


def test_later_batches_are_planned_below_what_did_not_fit_and_grow_back(catalog: Catalog) -> None:
    encoder = Narrow(70)
    narrow = small(encoder, catalog)
    narrow.recommend(requests(64))
    assert narrow.statistics()["batch_tokens"] == 64
    encoder.tried.clear()
    narrow.recommend(requests(64))
    assert encoder.tried == [64] * 4
    encoder.fits = 10_000
    for _ in range(100):
        narrow.recommend(requests(64))
    assert narrow.statistics()["batch_tokens"] == 256
    encoder.tried.clear()
    narrow.recommend(requests(64))
    assert encoder.tried == [256]


def test_a_batch_planned_before_the_cap_fell_is_not_tried_whole(catalog: Catalog) -> None:
    encoder = Narrow(70)
    narrow = small(encoder, catalog)
    planned: Any = narrow.prepare(requests(64), [0.0] * 64)
    narrow.recommend(requests(64))
    encoder.tried.clear()
    assert all(isinstance(answer, dict) for answer in narrow.run(planned))
    assert encoder.tried == [64] * 4


def test_a_request_that_does_not_fit_alone_fails_with_what_to_do(catalog: Catalog) -> None:
    narrow = small(Narrow(70), catalog)
    answers = narrow.recommend([*requests(8), *requests(1, words=100)])
    failed = answers.pop()
    assert isinstance(failed, Failure)
    assert (failed.code, failed.retry) == ("out_of_memory", True)
    assert "shorten" in failed.message
    assert all(isinstance(answer, dict) for answer in answers)


def test_memory_that_runs_out_while_tokenising_is_named(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Narrow(70)

    def tokenise(texts: Sequence[str], role: Role) -> list[Tokens]:
        raise MemoryError

    monkeypatch.setattr(encoder, "tokenise", tokenise)
    (failed,) = small(encoder, catalog).recommend(requests(1))
    assert isinstance(failed, Failure)
    assert failed.code == "out_of_memory"


def test_what_ran_out_is_logged_without_text(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    small(Narrow(70), catalog).recommend(requests(64))
    assert "64 requests of 256 padded tokens; batches now have at most 128" in caplog.text
    assert "film" not in caplog.text
