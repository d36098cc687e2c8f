"""Equal requests run once; each message gets the answer it would have got alone, at its own age."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from reclane.contract import DELIVERY_FIELDS, Failure, parse_request
from reclane_worker.answering import batch_shape
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Role, Tokens
from reclane_worker.hashing import HashEncoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.settings import WorkerSettings
from reclane_worker.sharing import answer_key

EVERY_FIELD: dict[str, Any] = {
    "query": "film",
    "history": ["i00"],
    "user_id": "u",
    "catalog": "other",
    "k": 3,
    "offset": 1,
    "candidates": ["i00"],
    "filters": {"price": 12},
    "exclude": ["i01"],
    "diversity": 0.5,
    "explain": True,
    "context": {"place": "home"},
    "fields": ["price"],
    "variant": "b",
    "intent": {"text": "boots"},
    "deadline_s": 5.0,
    "idempotency_key": "key",
}


class Counting(HashEncoder):
    """Knows how many rows each call had; raises for a text with the word `boom`."""

    def __init__(self) -> None:
        super().__init__(384, torch.device("cpu"))
        self.rows: list[int] = []
        self.texts = 0
        self._boom = super().tokenise(["boom"], "query")[0][0]

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        self.texts += len(texts)
        return super().tokenise(texts, role)

    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        self.rows.append(len(tokens))
        if any(self._boom in sequence for sequence in tokens):
            raise RuntimeError("a fault in the model")
        return super().encode(tokens, role)


@pytest.fixture
def encoder_() -> Counting:
    return Counting()


@pytest.fixture
def counted(encoder_: Counting, catalog: Catalog) -> Pipeline:
    settings = WorkerSettings(model="hash:384", device="cpu", batch_tokens=64)
    return Pipeline(encoder_, {"shop": catalog}, settings)


def without_times(answer: Any) -> dict[str, Any]:
    assert isinstance(answer, dict)
    return {name: part for name, part in answer.items() if name not in ("timing_ms", "batch")}


# ---- which requests are equal


@pytest.mark.parametrize("field", sorted(set(EVERY_FIELD) - {"query"} - DELIVERY_FIELDS))
def test_a_request_that_differs_in_what_it_asks_is_another(field: str) -> None:
    plain = parse_request({"query": "shoes"})
    other = parse_request({"query": "shoes", field: EVERY_FIELD[field]})
    assert answer_key(plain) != answer_key(other)


def test_the_query_makes_a_request_another() -> None:
    assert answer_key(parse_request({"query": "a"})) != answer_key(parse_request({"query": "b"}))


@pytest.mark.parametrize("field", sorted(DELIVERY_FIELDS))
def test_a_request_that_differs_in_its_delivery_is_the_same(field: str) -> None:
    plain = parse_request({"query": "shoes"})
    other = parse_request({"query": "shoes", field: EVERY_FIELD[field]})
    assert answer_key(plain) == answer_key(other)


def test_every_field_is_tried() -> None:
    assert set(EVERY_FIELD) | {"v"} == set(type(parse_request({"query": "a"})).model_fields)


@pytest.mark.parametrize(
    "one, other",
    [
        ({"filters": {"new": True}}, {"filters": {"new": 1}}),
        ({"history": ["i00", "i01"]}, {"history": ["i01", "i00"]}),
        ({"history": ["i00"]}, {"history": [["i00", 0.5]]}),
        ({"filters": {"price": {"gt": 1}}}, {"filters": {"price": {"gte": 1}}}),
        ({"filters": {"price": {"gt": 1}}}, {"filters": {"stars": {"gt": 1}}}),
        ({"query": "ab", "variant": "c"}, {"query": "a", "variant": "bc"}),
    ],
)
def test_what_only_looks_alike_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    requests = [parse_request({"query": "shoes"} | fields) for fields in (one, other)]
    assert answer_key(requests[0]) != answer_key(requests[1])


def test_a_field_spelled_out_at_its_default_changes_nothing() -> None:
    spelled = {"query": "a", "k": 10, "filters": {}, "history": [], "user_id": None}
    assert answer_key(parse_request(spelled)) == answer_key(parse_request({"query": "a"}))


# ---- what runs


def test_equal_requests_are_tokenised_and_encoded_once(
    counted: Pipeline, encoder_: Counting, pipeline: Pipeline
) -> None:
    asked = [{"query": "running shoes"}, {"query": "film"}, {"query": "running shoes", "k": 3}]
    requests = [parse_request(asked[n % 3] | {"deadline_s": 1.0 + n}) for n in range(30)]
    answers = counted.recommend(requests)
    assert (encoder_.texts, encoder_.rows) == (3, [3])
    assert counted.statistics()["shared"] == 27
    for request, answer in zip(requests, answers, strict=True):
        assert without_times(answer) == without_times(pipeline.recommend([request])[0])


def test_each_message_has_its_own_age(counted: Pipeline) -> None:
    requests = [parse_request({"query": "shoes"}) for _ in range(3)]
    prepared: Any = counted.prepare(requests, [1.0, 2.0004, 3.0])
    answers: list[Any] = counted.run(prepared)
    assert [answer["timing_ms"]["queued"] for answer in answers] == [1.0, 2.0, 3.0]
    assert len({answer["timing_ms"]["model"] for answer in answers}) == 1


def test_budgets_count_what_really_runs(counted: Pipeline) -> None:
    requests = [parse_request({"query": f"w{n % 2} " + "film " * 20}) for n in range(40)]
    prepared: list[Any] = counted.prepare(requests, [0.0] * 40)
    (group,) = counted.batches(prepared)
    assert sorted(group) == list(range(40))
    assert batch_shape(prepared) == {"size": 2, "tokens": 42, "padded": 42}
    assert counted.recommend(requests)[0]["batch"] == batch_shape(prepared)  # type: ignore[index]


def test_copies_run_in_one_batch_where_others_need_several(
    counted: Pipeline, encoder_: Counting
) -> None:
    requests = [parse_request({"query": f"w{n % 8} " + "film " * 15}) for n in range(80)]
    answers: list[Any] = counted.recommend(requests)
    assert encoder_.rows == [4, 4]  # 64 tokens each
    assert [answer["intent"]["text"][:2] for answer in answers] == [f"w{n % 8}" for n in range(80)]


def test_requests_without_copies_are_as_before(counted: Pipeline) -> None:
    requests = [parse_request({"query": f"film {n}"}) for n in range(10)]
    counted.recommend(requests)
    assert counted.statistics()["shared"] == 0


def test_equal_requests_to_two_catalogs_stay_apart(
    catalog: Catalog, encoder_: Counting, make_catalog: Any, shop: Any, settings: WorkerSettings
) -> None:
    both = Pipeline(encoder_, {"shop": catalog, "few": make_catalog(shop[:3], "few")}, settings)
    requests = [parse_request({"query": "film", "catalog": n}) for n in ("few", "shop") * 2]
    answers: list[Any] = both.recommend(requests)
    assert [len(answer["items"]) for answer in answers] == [3, 10, 3, 10]


def test_two_versions_of_a_catalog_share_neither_a_batch_nor_an_answer(
    catalog: Catalog, encoder_: Counting, make_catalog: Any, shop: Any, settings: WorkerSettings
) -> None:
    """What was prepared before another version came, equal requests included."""
    pipeline = Pipeline(encoder_, {"shop": catalog}, settings)
    requests = [parse_request({"query": text}) for text in ("film", "shoes", "film", "day")]
    prepared: list[Any] = pipeline.prepare(requests, [0.0] * 4)
    pipeline.catalogs["shop"] = few = make_catalog(shop[:3], "few")
    prepared += pipeline.prepare(requests, [0.0] * 4)
    prepared = [prepared[place] for place in (0, 4, 1, 5, 2, 6, 3, 7)]
    groups = pipeline.batches(prepared)
    assert sorted(place for group in groups for place in group) == list(range(8))
    for group in groups:
        batch = [prepared[place] for place in group]
        answers: list[Any] = pipeline.run(batch)
        (one,) = {id(one.catalog): one.catalog for one in batch}.values()
        assert {answer["versions"]["catalog"].split("@")[1] for answer in answers} == {one.version}
        assert {len(answer["items"]) <= 3 for answer in answers} == {one is few}


def test_a_request_is_read_and_answered_by_one_catalog_whatever_comes_meanwhile(
    catalog: Catalog, encoder_: Counting, make_catalog: Any, shop: Any, settings: WorkerSettings
) -> None:
    """Where another version comes between reading a request and looking its items up."""
    pipeline = Pipeline(encoder_, {"shop": catalog}, settings)
    tokenise = encoder_.tokenise

    def swap(texts: Sequence[str], role: Role) -> list[Tokens]:
        pipeline.catalogs["shop"] = few
        return tokenise(texts, role)

    few = make_catalog(shop[:3], "few")
    encoder_.tokenise = swap  # type: ignore[method-assign]
    asked = {"query": 'something like "wide science news"', "history": ["i20"]}
    (one,) = pipeline.prepare([parse_request(asked)], [0.0])
    assert isinstance(one, Prepared)
    assert one.catalog is catalog
    assert set(one.history) == {20, catalog.positions["i29"]}


# ---- what fails


def test_a_poison_request_fails_with_its_copies_and_nobody_else(counted: Pipeline) -> None:
    texts = ["film", "boom", "shoes", "boom", "film", "boom"]
    answers = counted.recommend([parse_request({"query": text}) for text in texts])
    failed = [answer.code if isinstance(answer, Failure) else None for answer in answers]
    assert failed == [None, "pipeline_error", None, "pipeline_error", None, "pipeline_error"]


def test_what_cannot_be_prepared_fails_once_for_all_copies(
    counted: Pipeline, encoder_: Counting
) -> None:
    requests = [parse_request({"query": "a", "filters": {"nope": 1}}) for _ in range(3)]
    prepared = counted.prepare([*requests, parse_request({"query": "film"})], [0.0] * 4)
    assert [type(one) for one in prepared] == [Failure, Failure, Failure, Prepared]
    assert encoder_.texts == 2
