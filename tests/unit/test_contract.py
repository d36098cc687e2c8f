"""The contract: bounds, strictness, shorthands, what messages may say, and the golden files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from reclane import contract
from reclane.contract import (
    DELIVERY_FIELDS,
    AnyOf,
    Eq,
    In,
    ManyAnswers,
    Range,
    Recommendation,
    RecommendRequest,
    parse_request,
)
from reclane.errors import InvalidRequest

GOLDEN = Path(__file__).parent / "golden"
SECRET = "zqxsecret"
NOT_FINITE = (math.nan, math.inf, -math.inf)


def ask(**fields: Any) -> RecommendRequest:
    return parse_request({"query": "shoes", **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        ask(**fields)
    return str(caught.value)


def golden(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDEN / name).read_text("utf-8"))
    return data


# ---- bounds


def ids(count: int) -> list[str]:
    return [f"i{number}" for number in range(count)]


BOUNDS = {
    "query bytes": ("query", "é" * 8_192, "é" * 8_192 + "a"),
    "history": ("history", ids(1_000), ids(1_001)),
    "history id": ("history", ["x" * 256], ["x" * 257]),
    "weighted history id": ("history", [["x" * 256, 1.0]], [["x" * 257, 1.0]]),
    "user_id": ("user_id", "x" * 256, "x" * 257),
    "catalog": ("catalog", "x" * 256, "x" * 257),
    "k": ("k", 500, 501),
    "least k": ("k", 1, 0),
    "offset": ("offset", 10_000, 10_001),
    "least offset": ("offset", 0, -1),
    "candidates": ("candidates", ids(10_000), ids(10_001)),
    "least candidates": ("candidates", ids(1), []),
    "candidate id": ("candidates", ["x" * 256], ["x" * 257]),
    "filters": ("filters", dict.fromkeys(ids(32), 1), dict.fromkeys(ids(33), 1)),
    "filter name": ("filters", {"x" * 256: 1}, {"x" * 257: 1}),
    "in values": ("filters", {"a": ids(1_000)}, {"a": ids(1_001)}),
    "least in values": ("filters", {"a": ids(1)}, {"a": []}),
    "any_of values": ("filters", {"a": {"any_of": ids(1_000)}}, {"a": {"any_of": ids(1_001)}}),
    "least any_of values": ("filters", {"a": {"any_of": [1]}}, {"a": {"any_of": []}}),
    "filter value": ("filters", {"a": "x" * 1_024}, {"a": "x" * 1_025}),
    "exclude": ("exclude", ids(10_000), ids(10_001)),
    "exclude id": ("exclude", ["x" * 256], ["x" * 257]),
    "diversity": ("diversity", 1.0, 1.0001),
    "least diversity": ("diversity", 0.0, -0.0001),
    "context": ("context", dict.fromkeys(ids(64), 1), dict.fromkeys(ids(65), 1)),
    "context value": ("context", {"a": "x" * 1_024}, {"a": "x" * 1_025}),
    "fields": ("fields", ids(64), ids(65)),
    "field name": ("fields", ["x" * 256], ["x" * 257]),
    "variant": ("variant", "x" * 256, "x" * 257),
    "deadline_s": ("deadline_s", 86_400.0, 86_400.001),
    "least deadline_s": ("deadline_s", 0.001, 0.0),
    "idempotency_key": ("idempotency_key", "x" * 256, "x" * 257),
}


@pytest.mark.parametrize(("field", "good", "bad"), BOUNDS.values(), ids=BOUNDS)
def test_the_bound_is_accepted_and_one_past_it_is_refused(field: str, good: Any, bad: Any) -> None:
    assert getattr(ask(**{field: good}), field) is not None
    assert field in refusal(**{field: bad})


def test_the_query_bound_is_in_bytes_and_its_refusal_says_so() -> None:
    assert "16384 bytes" in refusal(query="字" * 5_462)


@pytest.mark.parametrize("name", ["user_id", "catalog", "variant", "idempotency_key"])
def test_an_empty_name_is_refused(name: str) -> None:
    assert name in refusal(**{name: ""})


@pytest.mark.parametrize("name", ["history", "candidates", "exclude", "fields"])
def test_an_empty_id_in_a_list_is_refused(name: str) -> None:
    assert name in refusal(**{name: [""]})


def test_the_documented_limits_are_the_limits() -> None:
    limits = {name: value for name, value in vars(contract).items() if name.startswith("MAX_")}
    assert limits == {
        "MAX_QUERY_BYTES": 16_384,
        "MAX_ID_CHARS": 256,
        "MAX_HISTORY": 1_000,
        "MAX_WEIGHT": 1e6,
        "MAX_K": 500,
        "MAX_OFFSET": 10_000,
        "MAX_IDS": 10_000,
        "MAX_FILTERS": 32,
        "MAX_FILTER_VALUES": 1_000,
        "MAX_FIELDS": 64,
        "MAX_CONSTRAINTS": 64,
        "MAX_SAID_CHARS": 1_024,
        "MAX_SIMILAR": 64,
        "MAX_REQUEST_BYTES": 262_144,
        "MAX_CHUNK": 500,
        "MAX_CHUNK_ITEMS": 20_000,
    }


# ---- numbers


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize(
    "where",
    [
        lambda x: {"diversity": x},
        lambda x: {"deadline_s": x},
        lambda x: {"history": [["a", x]]},
        lambda x: {"context": {"a": x}},
        lambda x: {"filters": {"a": x}},
        lambda x: {"filters": {"a": [x]}},
        lambda x: {"filters": {"a": {"any_of": [x]}}},
        lambda x: {"filters": {"a": {"gt": x}}},
        lambda x: {"filters": {"a": {"gte": x}}},
        lambda x: {"filters": {"a": {"lt": x}}},
        lambda x: {"filters": {"a": {"lte": x}}},
    ],
)
def test_a_number_that_is_not_finite_is_refused_in_a_request(number: float, where: Any) -> None:
    assert next(iter(where(number))) in refusal(**where(number))


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize(
    "path",
    [
        ("items", 0, "score"),
        ("intent", "encoder_trust"),
        ("timing_ms", "queued"),
        ("timing_ms", "tokenise"),
        ("timing_ms", "model"),
        ("timing_ms", "rank"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_in_an_answer(
    number: float, path: tuple[str | int, ...]
) -> None:
    answer: Any = golden("answer_v1.json")
    place = answer
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = number
    with pytest.raises(ValidationError, match="finite"):
        Recommendation.model_validate(answer)


@pytest.mark.parametrize(
    "fields", [{"filters": {"a": {"gt": 10**400}}}, {"history": [["a", 10**400]]}]
)
def test_an_integer_too_large_for_a_float_is_refused(fields: dict[str, Any]) -> None:
    assert "valid number" in refusal(**fields)


# ---- what must be there, what must not


@pytest.mark.parametrize("fields", [{}, {"query": ""}, {"query": " \t\n"}, {"k": 3}])
def test_a_request_that_asks_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="at least one of query, history, user_id"):
        parse_request(fields)


@pytest.mark.parametrize("fields", [{"query": "a"}, {"history": ["a"]}, {"user_id": "a"}])
def test_one_of_query_history_and_user_id_is_enough(fields: dict[str, Any]) -> None:
    assert parse_request(fields).k == 10


def test_a_blank_query_is_accepted_beside_a_history() -> None:
    assert parse_request({"query": " ", "history": ["a"]}).history == ("a",)


def test_an_unknown_field_is_refused_and_named() -> None:
    assert "querry" in refusal(querry="shoes")


@pytest.mark.parametrize(
    "condition",
    [
        {"eq": 1, "in": [1]},
        {"eq": 1, "gt": 1},
        {"gte": 1, "below": 2},
        {"equals": 1},
        {"any_of": [1], "lt": 2},
    ],
)
def test_an_unknown_or_mixed_filter_is_refused(condition: dict[str, Any]) -> None:
    assert "filters.year" in refusal(filters={"year": condition})


@pytest.mark.parametrize("condition", [{}, {"gt": None}, {"gt": None, "lte": None}])
def test_a_range_without_a_bound_is_refused(condition: dict[str, Any]) -> None:
    assert "at least one of gt, gte, lt, lte" in refusal(filters={"year": condition})


@pytest.mark.parametrize("data", [None, [], "shoes", 3, [["query", "shoes"]]])
def test_what_is_not_a_mapping_is_refused(data: Any) -> None:
    with pytest.raises(InvalidRequest, match="request"):
        parse_request(data)


def test_another_version_is_refused() -> None:
    assert "v:" in refusal(v=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", "5"),
        ("k", True),
        ("k", 5.0),
        ("offset", "0"),
        ("offset", False),
        ("diversity", "0.5"),
        ("diversity", True),
        ("deadline_s", "1"),
        ("explain", 1),
        ("explain", "yes"),
        ("query", 5),
        ("query", b"shoes"),
        ("user_id", 5),
        ("catalog", 5),
        ("history", "abc"),
        ("history", [5]),
        ("history", [["a", "0.5"]]),
        ("history", [["a", True]]),
        ("history", [["a"]]),
        ("history", [["a", 1.0, 2.0]]),
        ("exclude", "abc"),
        ("exclude", [1]),
        ("candidates", {"a": 1}),
        ("fields", "year"),
        ("filters", {"year": {"gt": "1999"}}),
        ("filters", {"year": {"gt": True}}),
        ("filters", {"year": None}),
        ("filters", {"year": {"eq": None}}),
        ("filters", {"year": {"in": "abc"}}),
        ("filters", {1: 2}),
        ("filters", [("year", 2)]),
        ("context", {"a": [1]}),
        ("context", {"a": None}),
    ],
)
def test_a_value_of_another_type_is_refused(field: str, value: Any) -> None:
    assert field in refusal(**{field: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "a\ud800"},
        {"history": ["a\ud800"]},
        {"context": {"a": "\ud800"}},
        {"filters": {"\ud800": 1}},
    ],
)
def test_text_that_is_no_unicode_is_refused(fields: dict[str, Any]) -> None:
    assert refusal(**fields)


# ---- shorthands


@pytest.mark.parametrize("value", ["sci-fi", "", 1999, 1.5, True, False])
def test_a_scalar_filter_means_eq_and_keeps_its_type(value: Any) -> None:
    condition = ask(filters={"a": value}).filters["a"]
    assert isinstance(condition, Eq)
    assert (type(condition.eq), condition.eq) == (type(value), value)


@pytest.mark.parametrize("values", [["a", "b"], ("a", "b")])
def test_a_list_filter_means_in(values: Any) -> None:
    condition = ask(filters={"genre": values}).filters["genre"]
    assert isinstance(condition, In)
    assert condition.in_ == ("a", "b")


def test_a_list_filter_keeps_the_type_of_each_value() -> None:
    condition = ask(filters={"a": [1, True, 1.5, "1"]}).filters["a"]
    assert isinstance(condition, In)
    assert [type(value) for value in condition.in_] == [int, bool, float, str]


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        ({"eq": 1}, Eq),
        ({"in": [1]}, In),
        ({"any_of": [1]}, AnyOf),
        ({"gt": 1}, Range),
        ({"gte": 1, "lte": 2}, Range),
    ],
)
def test_a_filter_is_told_by_its_keys(condition: dict[str, Any], kind: type[BaseModel]) -> None:
    assert type(ask(filters={"a": condition}).filters["a"]) is kind


@pytest.mark.parametrize("pair", [["a", 0.5], ("a", 0.5)])
def test_history_may_carry_weights(pair: Any) -> None:
    assert ask(history=["b", pair, "c"]).history == ("b", ("a", 0.5), "c")


def test_a_whole_number_is_a_weight() -> None:
    assert ask(history=[["a", 2]]).history == (("a", 2.0),)


# ---- immutability and round trips


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ask().k = 5  # type: ignore[misc]


def test_an_answer_cannot_be_changed() -> None:
    answer = Recommendation.model_validate(golden("answer_v1.json"))
    with pytest.raises(ValidationError, match="frozen"):
        answer.items[0].score = 1.0  # type: ignore[misc]


def test_a_request_is_taken_as_it_is() -> None:
    request = ask()
    assert parse_request(request) is request


def test_a_request_survives_json() -> None:
    request = parse_request(golden("request_v1.json"))
    assert RecommendRequest.model_validate_json(request.model_dump_json(by_alias=True)) == request


def test_an_answer_survives_json() -> None:
    answer = Recommendation.model_validate(golden("answer_v1.json"))
    assert Recommendation.model_validate_json(answer.model_dump_json()) == answer


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (RecommendRequest, "request_v1.json"),
        (Recommendation, "answer_v1.json"),
        (ManyAnswers, "chunk_v1.json"),
    ],
)
def test_todays_models_read_the_golden_file_and_write_the_same(
    model: type[BaseModel], name: str
) -> None:
    data = golden(name)
    read = model.model_validate(data)
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == data


def test_the_golden_request_leaves_no_field_at_its_default() -> None:
    data = golden("request_v1.json")
    read = RecommendRequest.model_validate(data)
    assert read.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"v": 1} == data
    assert set(data) == set(RecommendRequest.model_fields)


def test_the_golden_answer_names_every_field() -> None:
    data = golden("answer_v1.json")
    assert Recommendation.model_validate(data).model_dump(mode="json", by_alias=True) == data


def test_every_field_is_known_to_change_the_answer_or_to_concern_its_delivery_alone() -> None:
    """A new field: name it here, or in DELIVERY_FIELDS if equal requests may share an answer
    whatever it says."""
    changes_the_answer = {"v", "query", "history", "user_id", "catalog", "k", "offset"}
    changes_the_answer |= {"candidates", "filters", "exclude", "diversity", "explain", "context"}
    changes_the_answer |= {"fields", "variant", "intent"}
    assert not changes_the_answer & DELIVERY_FIELDS
    assert changes_the_answer | DELIVERY_FIELDS == set(RecommendRequest.model_fields)


# ---- what a refusal may say


@pytest.mark.parametrize(
    "fields",
    [
        {"query": [SECRET]},
        {"query": SECRET * 2_000},
        {"query": SECRET + "\ud800"},
        {"history": SECRET},
        {"history": [SECRET * 100]},
        {"history": [[SECRET, SECRET]]},
        {"user_id": SECRET * 100},
        {"catalog": SECRET * 100},
        {"k": SECRET},
        {"offset": SECRET},
        {"candidates": [SECRET * 100]},
        {"exclude": [SECRET * 100]},
        {"filters": {"a": SECRET * 200}},
        {"filters": {"a": {"gt": SECRET}}},
        {"filters": {"a": {"in": [[SECRET]]}}},
        {"filters": SECRET},
        {"diversity": SECRET},
        {"explain": SECRET},
        {"context": {"a": [SECRET]}},
        {"context": {"a": SECRET * 200}},
        {"fields": [SECRET * 100]},
        {"variant": SECRET * 100},
        {"deadline_s": SECRET},
        {"idempotency_key": SECRET * 100},
        {"v": SECRET},
        {"extra": SECRET},
    ],
)
def test_a_refusal_never_quotes_the_input(fields: dict[str, Any]) -> None:
    message = refusal(**fields)
    assert SECRET not in message


def test_a_refusal_names_the_field_and_its_place() -> None:
    assert refusal(exclude=["a", 1]).startswith("exclude.1: ")


def test_a_refusal_is_bounded_whatever_the_keys() -> None:
    assert len(refusal(**{"x" * 200_000: 1})) < 10_000


def test_a_refusal_never_quotes_a_context_key_that_is_too_long() -> None:
    assert SECRET not in refusal(context={SECRET * 100: 1})


def test_the_cause_that_holds_the_input_is_not_chained() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask(k=SECRET)
    assert caught.value.__suppress_context__
