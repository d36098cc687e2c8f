"""The answer cache: what it finds, what it never finds, and how much it keeps."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reclane.contract import Failure, Recommendation, parse_request
from reclane_worker.caching import MEAN_BYTES, AnswerCache, cache_key
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.settings import WorkerSettings
from support import DEADLINE_S

CachedPipeline = Callable[[int], Pipeline]


def answer(size: int = 0) -> dict[str, Any]:
    """As much of an answer as the cache looks at, and `size` bytes more."""
    timing_ms = {"queued": 1.0, "tokenise": 1.0, "model": 1.0, "rank": 1.0}
    return {"flags": [], "timing_ms": timing_ms, "text": "x" * size}


@pytest.fixture
def keeping(encoder: Encoder, catalog: Catalog) -> CachedPipeline:
    """A pipeline that keeps so many answers."""

    def make(most: int) -> Pipeline:
        settings = WorkerSettings(model="hash:384", device="cpu", answer_cache=most)
        return Pipeline(encoder, {"shop": catalog}, settings)

    return make


def ask(pipeline: Pipeline, query: str = "running shoes", **fields: Any) -> Any:
    (found,) = pipeline.recommend([parse_request({"query": query, **fields})])
    return found


def is_cached(found: Any) -> bool:
    return "cached" in [flag["code"] for flag in found["flags"]]


# ---- what is found


def test_an_equal_request_is_answered_without_the_device(keeping: CachedPipeline) -> None:
    pipeline = keeping(10)
    computed = ask(pipeline, deadline_s=1.0)
    (found,) = pipeline.prepare([parse_request({"query": "running shoes"})], [3.5])
    assert isinstance(found, dict)
    assert found["items"] == computed["items"]
    assert found["batch"] == computed["batch"]
    assert found["timing_ms"] == {"queued": 3.5, "tokenise": 0.0, "model": 0.0, "rank": 0.0}
    assert is_cached(found)
    assert not is_cached(computed)
    assert Recommendation.model_validate(found).versions.model == "hash:384@1"


def test_hits_misses_and_fresh_requests_keep_their_places(
    keeping: CachedPipeline, pipeline: Pipeline
) -> None:
    cached = keeping(10)
    ask(cached, "film")
    ask(cached, "coffee", k=3)
    texts = ["shoes", "film", "news", "film", "coffee", "shoes"]
    found: list[Any] = cached.recommend([parse_request({"query": text}) for text in texts])
    assert [one["intent"]["text"] for one in found] == texts
    assert [is_cached(one) for one in found] == [False, True, False, True, False, False]
    for one, text in zip(found, texts, strict=True):
        assert one["items"] == ask(pipeline, text)["items"]
    counted = cached.statistics()
    assert (counted["cache_hits"], counted["cache_misses"], counted["shared"]) == (1, 5, 2)
    assert counted["cache_answers"] == 5


def test_a_request_that_asks_otherwise_is_not_found(keeping: CachedPipeline) -> None:
    pipeline = keeping(10)
    ask(pipeline)
    assert not is_cached(ask(pipeline, k=3))
    assert not is_cached(ask(pipeline, variant="b"))


def test_nothing_is_kept_unasked(keeping: CachedPipeline) -> None:
    pipeline = keeping(0)
    for _ in range(2):
        assert not is_cached(ask(pipeline))
    counted = pipeline.statistics()
    assert {counted[f"cache_{name}"] for name in ("hits", "misses", "answers", "bytes")} == {0}


def test_failures_are_not_kept(keeping: CachedPipeline) -> None:
    pipeline = keeping(10)
    for _ in range(2):
        assert isinstance(ask(pipeline, catalog="nope"), Failure)
        assert isinstance(ask(pipeline, filters={"nope": 1}), Failure)
    counted = pipeline.statistics()
    assert (counted["cache_hits"], counted["cache_answers"]) == (0, 0)


def test_a_probe_of_the_model_is_always_computed(keeping: CachedPipeline) -> None:
    pipeline = keeping(10)
    request = parse_request({"query": "shoes"})
    for _ in range(2):
        assert not is_cached(pipeline.compute(request))


# ---- versions


def test_a_catalog_of_another_version_never_answers_from_the_cache(
    keeping: CachedPipeline, catalog: Catalog
) -> None:
    pipeline = keeping(10)
    ask(pipeline)
    pipeline.catalogs["shop"] = replace(catalog, version="another")
    assert not is_cached(ask(pipeline))
    assert ask(pipeline)["versions"]["catalog"] == "shop@another"
    pipeline.catalogs["shop"] = catalog
    assert ask(pipeline)["versions"]["catalog"] == f"shop@{catalog.version}"


def test_the_key_differs_with_model_catalog_version_and_request(catalog: Catalog) -> None:
    other, named = replace(catalog, version="another"), replace(catalog, name="other")
    keys = {
        cache_key("m@1", catalog, "a"),
        cache_key("m@2", catalog, "a"),
        cache_key("m@1", other, "a"),
        cache_key("m@1", named, "a"),
        cache_key("m@1", catalog, "b"),
    }
    assert len(keys) == 5
    assert cache_key("m@1", catalog, "a") in keys


def test_an_answer_computed_by_the_old_catalog_is_kept_under_its_version(
    keeping: CachedPipeline, catalog: Catalog
) -> None:
    pipeline = keeping(10)
    prepared = pipeline.prepare([parse_request({"query": "shoes"})], [0.0])
    pipeline.catalogs["shop"] = replace(catalog, version="another")
    pipeline.run([one for one in prepared if isinstance(one, Prepared)])
    assert not is_cached(ask(pipeline, "shoes"))


# ---- bounds


def test_the_answer_used_least_recently_goes_first() -> None:
    cache = AnswerCache(2)
    cache.keep(b"a", answer())
    cache.keep(b"b", answer())
    assert cache.find(b"a")
    cache.keep(b"c", answer())
    assert [bool(cache.find(key)) for key in (b"a", b"b", b"c")] == [True, False, True]


def test_the_bytes_kept_are_bounded_too() -> None:
    cache = AnswerCache(10)
    for number in range(10):
        cache.keep(b"%d" % number, answer(3 * MEAN_BYTES))
    kept = cache.statistics()
    assert kept["cache_answers"] == 3
    assert kept["cache_bytes"] <= 10 * MEAN_BYTES


def test_an_answer_larger_than_everything_is_not_kept() -> None:
    cache = AnswerCache(2)
    cache.keep(b"a", answer(3 * MEAN_BYTES))
    assert (cache.find(b"a"), cache.statistics()["cache_bytes"]) == (None, 0)


def test_an_answer_kept_twice_counts_once() -> None:
    cache = AnswerCache(2)
    cache.keep(b"a", answer())
    once = cache.statistics()["cache_bytes"]
    cache.keep(b"a", answer())
    assert cache.statistics()["cache_bytes"] == once
    assert cache.statistics()["cache_answers"] == 1


def test_changing_what_was_found_changes_nothing_that_is_kept() -> None:
    cache = AnswerCache(2)
    cache.keep(b"a", answer())
    found = cache.find(b"a")
    assert found
    found["flags"].clear()
    assert cache.find(b"a") != found


def test_threads_that_find_and_keep_at_once_leave_the_counts_right() -> None:
    cache = AnswerCache(16)

    def use(offset: int) -> None:
        for number in range(2_000):
            key = b"%d" % ((number * 7 + offset) % 32)
            if cache.find(key) is None:
                cache.keep(key, answer(number % 100))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    counted = cache.statistics()
    assert counted["cache_hits"] + counted["cache_misses"] == 8_000
    assert counted["cache_answers"] == 16
    assert counted["cache_bytes"] == sum(map(len, cache._answers.values()))
