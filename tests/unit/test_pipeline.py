"""The main path on a small shop, without a queue: what is answered, and what fails alone."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from reclane.contract import Failure, Recommendation, RecommendRequest, parse_request
from reclane_worker import retrieval
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder, Role, Tokens
from reclane_worker.hashing import HashEncoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings

QUERIES = ("running shoes", "科幻电影", "a quiet piano record", "coffee", "science news today")
SECRET = "zqx"


def ask(pipeline: Pipeline, query: str | None = "running shoes", **fields: Any) -> dict[str, Any]:
    """The one answer to one request, whose words are compared and not read: see test_intent."""
    (answer,) = pipeline.recommend([parse_request({"query": query, "intent": {}, **fields})])
    assert isinstance(answer, dict), answer
    return answer


def failure(pipeline: Pipeline, **fields: Any) -> Failure:
    (answer,) = pipeline.recommend([parse_request(fields)])
    assert isinstance(answer, Failure)
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["id"] for item in answer["items"]]


def assert_same(one: Any, other: Any) -> None:
    """Equal but for times, the batch they ran in, and the last digits of scores."""
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    strip = {"timing_ms", "batch", "items"}
    assert {k: v for k, v in one.items() if k not in strip} == {
        k: v for k, v in other.items() if k not in strip
    }
    assert ids(one) == ids(other)
    scores = [[item["score"] for item in answer["items"]] for answer in (one, other)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-5)


class Fragile(HashEncoder):
    """Raises for a text with the word `boom`, gives NaN for one with `nan`."""

    def __init__(self) -> None:
        super().__init__(384, torch.device("cpu"))
        self.boom = self.tokenise(["boom"], "query")[0][0]
        self.nan = self.tokenise(["nan"], "query")[0][0]

    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        if any(self.boom in sequence for sequence in tokens):
            raise RuntimeError(SECRET)
        vectors = super().encode(tokens, role)
        vectors[[self.nan in sequence for sequence in tokens]] = torch.nan
        return vectors


@pytest.fixture(scope="module")
def fragile(catalog: Catalog, settings: WorkerSettings) -> Pipeline:
    return Pipeline(Fragile(), {"shop": catalog}, settings)


# ---- answers


@pytest.mark.parametrize("k", [1, 10, 30])
@pytest.mark.parametrize("query", QUERIES)
def test_k_items_are_answered_best_first_each_once(pipeline: Pipeline, query: str, k: int) -> None:
    answer = ask(pipeline, query, k=k)
    scores = [item["score"] for item in answer["items"]]
    assert len(set(ids(answer))) == k
    assert scores == sorted(scores, reverse=True)
    assert [item["rank"] for item in answer["items"]] == list(range(1, k + 1))


def test_more_than_the_catalog_has_gives_all_of_it(pipeline: Pipeline) -> None:
    assert len(ask(pipeline, k=500)["items"]) == 30


@pytest.mark.parametrize(
    ("query", "kind"), [("running shoes", 0), ("space film", 1), ("钢琴音乐", 2), ("咖啡", 3)]
)
def test_the_items_that_fit_come_first(pipeline: Pipeline, query: str, kind: int) -> None:
    assert {int(item[1:]) % 5 for item in ids(ask(pipeline, query, k=6))} == {kind}


def test_the_answer_names_its_item_title_and_versions(pipeline: Pipeline, catalog: Catalog) -> None:
    answer = ask(pipeline, k=1, variant="b")
    (item,) = answer["items"]
    assert item["title"] == catalog.titles[catalog.positions[item["id"]]]
    assert answer["versions"] == {
        "model": "hash:384@1",
        "catalog": f"shop@{catalog.version}",
        "contract": 1,
    }
    assert answer["variant"] == "b"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"k": 3, "fields": ["price", "tags", "text"]},
        {"history": ["i01", ["i02", 0.5]], "diversity": 0.5},
        {"filters": {"price": {"lt": 0}}, "explain": True},
        {"query": None, "history": ["i01"]},
    ],
)
def test_every_answer_is_a_recommendation(pipeline: Pipeline, fields: dict[str, Any]) -> None:
    answer = ask(pipeline, **({"query": "running shoes"} | fields))
    read = Recommendation.model_validate(answer)
    assert read.model_dump(mode="json", exclude_unset=True) == answer


def test_fields_asked_for_are_returned_and_absent_ones_left_out(pipeline: Pipeline) -> None:
    answer = ask(pipeline, k=30, fields=["price", "stars", "nowhere"])
    by_id = {item["id"]: item["fields"] for item in answer["items"]}
    assert by_id["i03"] == {"price": 13, "stars": 0.3}
    assert by_id["i04"] == {"price": 14}


def test_no_fields_are_returned_unasked(pipeline: Pipeline) -> None:
    assert set(ask(pipeline, k=1)["items"][0]) == {"id", "rank", "score", "title"}


def test_the_text_understood_is_the_query_cleaned(pipeline: Pipeline) -> None:
    answer = ask(pipeline, "  running\u200b &amp; \n SHOES ")
    assert answer["intent"] == {
        "text": "running & SHOES",
        "encoder_trust": 1.0,
        "history_used": 0,
        "constraints": [],
    }


def test_an_explanation_that_is_not_given_is_flagged(pipeline: Pipeline) -> None:
    assert [flag["code"] for flag in ask(pipeline, explain=True)["flags"]] == ["no_explanation"]


# ---- what may be answered


def test_a_filter_leaves_only_what_passes(pipeline: Pipeline) -> None:
    answer = ask(pipeline, k=30, filters={"kind": "space film", "price": {"gte": 20}})
    assert sorted(ids(answer)) == ["i11", "i16", "i21", "i26"]


def test_filters_that_nothing_passes_are_flagged(pipeline: Pipeline) -> None:
    answer = ask(pipeline, filters={"price": {"lt": 0}})
    assert answer["items"] == []
    assert answer["flags"] == [{"code": "nothing_fits", "reasons": ["no item passes the filters"]}]


def test_an_excluded_item_is_never_returned(pipeline: Pipeline) -> None:
    best = ids(ask(pipeline, k=5))
    answer = ask(pipeline, k=30, exclude=[*best[:2], "nobody"])
    assert set(ids(answer)) == {f"i{n:02}" for n in range(30)} - set(best[:2])


def test_a_history_item_is_never_returned(pipeline: Pipeline) -> None:
    answer = ask(pipeline, k=30, history=["i00", ["i05", 0.1], "nobody"])
    assert len(ids(answer)) == 28
    assert not {"i00", "i05"} & set(ids(answer))
    assert answer["intent"]["history_used"] == 2


def test_candidates_limit_the_answer(pipeline: Pipeline) -> None:
    answer = ask(pipeline, k=30, candidates=["i09", "i00", "nobody", "i10"])
    assert sorted(ids(answer)) == ["i00", "i09", "i10"]


def test_candidates_and_exclude_and_filters_all_hold(pipeline: Pipeline) -> None:
    answer = ask(
        pipeline,
        candidates=["i00", "i05", "i01"],
        exclude=["i00"],
        filters={"kind": "running shoes"},
    )
    assert ids(answer) == ["i05"]


def test_candidates_that_the_catalog_has_not_give_no_item(pipeline: Pipeline) -> None:
    answer = ask(pipeline, candidates=["nobody"])
    assert answer["items"] == []
    assert answer["flags"][0]["reasons"] == ["no item is left"]


def test_a_history_alone_finds_more_of_the_same(pipeline: Pipeline) -> None:
    answer = ask(pipeline, None, history=["i00", "i05", "i10"], k=3)
    assert sorted(ids(answer)) == ["i15", "i20", "i25"]


def test_the_newest_of_a_history_counts_most(pipeline: Pipeline) -> None:
    def shoes_at(*history: str) -> int:
        ranking = ids(ask(pipeline, None, history=history, k=28))
        return sum(place for place, item in enumerate(ranking) if int(item[1:]) % 5 == 0)

    assert shoes_at("i11", "i05") < shoes_at("i05", "i11")


def test_a_weight_outweighs_age(pipeline: Pipeline) -> None:
    answer = ask(pipeline, None, history=[["i01", 5.0], "i00"], k=1)
    assert int(ids(answer)[0][1:]) % 5 == 1


def test_a_very_large_weight_counts_like_any_other(pipeline: Pipeline) -> None:
    assert ids(ask(pipeline, None, history=[["i00", 1e6]])) == ids(
        ask(pipeline, None, history=["i00"])
    )


def test_a_history_of_weight_zero_still_answers(pipeline: Pipeline) -> None:
    assert len(ids(ask(pipeline, None, history=[["i00", 0.0]]))) == 10


def test_pages_agree_with_one_long_answer(pipeline: Pipeline) -> None:
    pages = [ask(pipeline, k=7, offset=offset)["items"] for offset in range(0, 35, 7)]
    assert [item for page in pages for item in page] == ask(pipeline, k=30)["items"]


def test_a_page_past_the_end_is_empty(pipeline: Pipeline) -> None:
    assert ask(pipeline, offset=30)["items"] == []


@pytest.mark.parametrize("diversity", [0.2, 0.9])
def test_diversity_changes_the_order_but_not_the_first(
    pipeline: Pipeline, diversity: float
) -> None:
    plain, diverse = ids(ask(pipeline, k=10)), ids(ask(pipeline, k=10, diversity=diversity))
    assert diverse[0] == plain[0]
    assert len(set(diverse)) == 10
    assert (diverse != plain) or diversity < 0.5


def test_diverse_pages_agree_with_one_long_answer(
    encoder: Encoder, settings: WorkerSettings, make_catalog: Any
) -> None:
    dice = random.Random(0)
    words = [f"w{number}" for number in range(60)]
    items = [SourceItem(f"i{n}", " ".join(dice.choices(words, k=12)), "", {}) for n in range(200)]
    wide = Pipeline(encoder, {"made": make_catalog(items)}, settings)
    query, spread = " ".join(words[:8]), {"diversity": 0.95}
    pages = [ids(ask(wide, query, offset=offset, **spread)) for offset in (0, 10, 20)]
    assert [item for page in pages for item in page] == ids(ask(wide, query, k=30, **spread))


# ---- failures


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"query": "a", "catalog": "films"}, "unknown_catalog", "there is: shop"),
        ({"user_id": "zqx"}, "unknown_user", "add a query"),
        ({"history": ["zqx", "zqy"]}, "unknown_items", "add a query"),
        ({"query": "\u200b", "user_id": "zqx"}, "empty_query", "no visible character"),
        ({"query": "a", "filters": {"colour": "red"}}, "invalid_filter", "kind, new, price"),
        ({"query": "a", "filters": {"kind": {"gt": 1}}}, "invalid_filter", "not numeric"),
    ],
)
def test_what_cannot_be_answered_fails_with_a_code_and_what_to_do(
    pipeline: Pipeline, fields: dict[str, Any], code: str, says: str
) -> None:
    found = failure(pipeline, **fields)
    assert (found.code, found.retry) == (code, False)
    assert says in found.message
    assert "zq" not in found.message


def test_a_failure_takes_its_own_place_among_answers(pipeline: Pipeline) -> None:
    requests = [
        RecommendRequest(query="shoes"),
        RecommendRequest(user_id="u"),
        RecommendRequest(query="film"),
    ]
    kinds = [type(answer) for answer in pipeline.recommend(requests)]
    assert kinds == [dict, Failure, dict]


@pytest.mark.parametrize("place", range(5))
def test_a_request_that_raises_fails_alone(
    fragile: Pipeline, pipeline: Pipeline, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [*QUERIES[:place], f"boom {SECRET}", *QUERIES[place:]]
    answers = fragile.recommend([parse_request({"query": text, "intent": {}}) for text in texts])
    failed = answers.pop(place)
    assert isinstance(failed, Failure)
    assert (failed.code, failed.retry) == ("pipeline_error", True)
    assert SECRET not in failed.message + caplog.text
    assert "RuntimeError" in caplog.text
    for answer, text in zip(answers, QUERIES, strict=True):
        assert_same(answer, ask(pipeline, text))


@pytest.mark.parametrize("place", range(5))
def test_a_request_whose_vector_is_nan_fails_alone(
    fragile: Pipeline, pipeline: Pipeline, place: int
) -> None:
    texts = [*QUERIES[:place], "nan shoes", *QUERIES[place:]]
    answers = fragile.recommend([parse_request({"query": text, "intent": {}}) for text in texts])
    failed = answers.pop(place)
    assert isinstance(failed, Failure)
    assert failed.code == "non_finite"
    for answer, text in zip(answers, QUERIES, strict=True):
        assert_same(answer, ask(pipeline, text))


@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_a_nan_vector_fails_whatever_else_is_asked(fragile: Pipeline, diversity: float) -> None:
    found = failure(fragile, query="nan", diversity=diversity, exclude=["i00"], history=["i01"])
    assert found.code == "non_finite"


def test_many_that_raise_leave_the_rest_alone(fragile: Pipeline) -> None:
    texts = [f"boom {n}" if n % 3 == 0 else f"shoes {n}" for n in range(20)]
    answers = fragile.recommend([parse_request({"query": text, "intent": {}}) for text in texts])
    failed = [n for n, answer in enumerate(answers) if isinstance(answer, Failure)]
    assert failed == list(range(0, 20, 3))


class FragileTokeniser(HashEncoder):
    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        if any("boom" in text for text in texts):
            raise RuntimeError("zqx")
        return super().tokenise(texts, role)


def test_a_request_that_raises_while_tokenised_fails_alone(
    catalog: Catalog, settings: WorkerSettings
) -> None:
    fragile = Pipeline(FragileTokeniser(384, torch.device("cpu")), {"shop": catalog}, settings)
    requests = [RecommendRequest(query=text) for text in ("shoes", "boom", "film")]
    kinds = [type(answer) for answer in fragile.recommend(requests)]
    assert kinds == [dict, Failure, dict]


def test_a_step_that_loses_answers_is_a_failure_not_a_shift(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reclane_worker.pipeline.retrieve", lambda *_: [])
    answers = pipeline.recommend([RecommendRequest(query=query) for query in QUERIES])
    assert [type(answer) for answer in answers] == [Failure] * 5


class Lossy(HashEncoder):
    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        return super().encode(tokens, role)[1:]


def test_an_encoder_that_loses_a_vector_is_a_failure_not_a_wrong_answer(
    catalog: Catalog, settings: WorkerSettings
) -> None:
    lossy = Pipeline(Lossy(384, torch.device("cpu")), {"shop": catalog}, settings)
    answers = lossy.recommend([RecommendRequest(query=query) for query in ("shoes", "film")])
    assert [type(answer) for answer in answers] == [Failure] * 2


# ---- batches


def mixed() -> list[RecommendRequest]:
    """Requests that differ in everything, so that they share batches with unlike neighbours."""
    fields: list[dict[str, Any]] = [{"query": query} for query in QUERIES]
    fields += [
        {"history": ["i03"]},
        {"query": "film", "history": ["i00", ["i09", 0.5]]},
        {"query": "shoes", "filters": {"price": {"gte": 20}}},
        {"query": "shoes", "exclude": ["i00"], "k": 3},
        {"query": "shoes", "diversity": 0.7, "k": 4, "offset": 2},
        {"query": "shoes", "candidates": ["i00", "i01"]},
        {"query": "shoes " * 50, "k": 20},
        {"query": "unheard-of"},
    ]
    return [parse_request(one) for one in fields]


def test_answers_in_a_batch_equal_answers_alone(pipeline: Pipeline) -> None:
    together = pipeline.recommend(mixed())
    assert len(together) == len(mixed())
    for request, answer in zip(mixed(), together, strict=True):
        assert_same(answer, pipeline.recommend([request])[0])


@pytest.mark.parametrize("cells", [1, 30, 100])
def test_answers_do_not_depend_on_the_memory_bound(
    pipeline: Pipeline, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pipeline.recommend(mixed())
    monkeypatch.setattr(retrieval, "MAX_CELLS", cells)
    for one, other in zip(pipeline.recommend(mixed()), whole, strict=True):
        assert_same(one, other)


def test_an_answer_names_the_batch_it_ran_in(encoder: Encoder, catalog: Catalog) -> None:
    settings = WorkerSettings(model="hash:384", device="cpu", batch_requests=2)
    pipeline = Pipeline(encoder, {"shop": catalog}, settings)
    answers = pipeline.recommend([RecommendRequest(query=f"word{n} two") for n in range(3)])
    batches = [answer["batch"] for answer in answers if isinstance(answer, dict)]
    pair, single = ({"size": n, "tokens": 2 * n, "padded": 2 * n} for n in (2, 1))
    assert batches == [pair, pair, single]


def test_each_catalog_answers_its_own_requests(
    encoder: Encoder, catalog: Catalog, settings: WorkerSettings, make_catalog: Any, shop: Any
) -> None:
    few = make_catalog(shop[:3], "few")
    pipeline = Pipeline(encoder, {"shop": catalog, "few": few}, settings)
    names = ["few", None, "shop", "few"]
    requests = [RecommendRequest(query="shoes", k=30, catalog=name) for name in names]
    answers = pipeline.recommend(requests)
    assert [len(a["items"]) for a in answers if isinstance(a, dict)] == [3, 30, 30, 3]


def test_no_requests_give_no_answers(pipeline: Pipeline) -> None:
    assert pipeline.recommend([]) == []


def test_the_age_of_a_request_is_reported(pipeline: Pipeline) -> None:
    prepared = pipeline.prepare([RecommendRequest(query="shoes")], [12.3456])
    (answer,) = pipeline.run(prepared)  # type: ignore[arg-type]
    assert isinstance(answer, dict)
    assert answer["timing_ms"]["queued"] == 12.346
    assert set(answer["timing_ms"]) == {"queued", "tokenise", "model", "rank"}
