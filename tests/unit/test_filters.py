"""Filters over item attributes."""

from typing import Any

import pytest

from reclane.contract import Filter, parse_request
from reclane.errors import RequestFailed
from reclane_worker.index.filters import Attributes

ROWS: list[dict[str, Any]] = [
    {"kind": "shoe", "price": 10, "tags": ["red", "new"], "sale": True},
    {"kind": "film", "price": 20.5, "tags": ["new"], "sale": False, "code": 1},
    {"kind": "film", "price": 30, "tags": [], "code": True},
    {"kind": "1", "tags": ["red", 5], "code": "1"},
]


@pytest.fixture
def attributes() -> Attributes:
    return Attributes(ROWS, len(ROWS))


def filters(**conditions: Any) -> dict[str, Filter]:
    return parse_request({"query": "a", "filters": conditions}).filters


def passing(attributes: Attributes, **conditions: Any) -> list[int]:
    given = filters(**conditions)
    attributes.check(given)
    mask = attributes.mask(given)
    assert mask.shape == (len(ROWS),)
    return [int(position) for position in mask.nonzero()[0]]


@pytest.mark.parametrize(
    ("conditions", "positions"),
    [
        ({}, [0, 1, 2, 3]),
        ({"kind": "film"}, [1, 2]),
        ({"kind": "Film"}, []),
        ({"kind": "absent"}, []),
        ({"price": 10}, [0]),
        ({"price": 10.0}, [0]),
        ({"price": 20.5}, [1]),
        ({"price": "10"}, []),
        ({"tags": "red"}, [0, 3]),
        ({"tags": 5}, [3]),
        ({"kind": ["shoe", "film"]}, [0, 1, 2]),
        ({"kind": ["absent", "shoe"]}, [0]),
        ({"price": [10, 30]}, [0, 2]),
        ({"tags": ["red", "new"]}, [0, 1, 3]),
        ({"tags": {"any_of": ["red", "new"]}}, [0, 1, 3]),
        ({"tags": {"any_of": ["blue"]}}, []),
        ({"kind": {"any_of": ["shoe"]}}, [0]),
        ({"price": {"gt": 10}}, [1, 2]),
        ({"price": {"gte": 10}}, [0, 1, 2]),
        ({"price": {"lt": 30}}, [0, 1]),
        ({"price": {"lte": 30}}, [0, 1, 2]),
        ({"price": {"gt": 10, "lt": 30}}, [1]),
        ({"price": {"gte": 30, "lte": 10}}, []),
        ({"kind": "film", "price": {"gt": 25}}, [2]),
        ({"kind": "film", "tags": "red"}, []),
    ],
)
def test_a_filter_passes_exactly_these_items(
    attributes: Attributes, conditions: dict[str, Any], positions: list[int]
) -> None:
    assert passing(attributes, **conditions) == positions


@pytest.mark.parametrize(
    ("value", "positions"), [(1, [1]), (1.0, [1]), (True, [2]), ("1", [3]), (False, []), (0, [])]
)
def test_one_and_true_and_the_word_1_are_three_values(
    attributes: Attributes, value: Any, positions: list[int]
) -> None:
    assert passing(attributes, code=value) == positions
    assert passing(attributes, code=[value]) == positions


@pytest.mark.parametrize(("value", "positions"), [(True, [0]), (False, [1])])
def test_a_boolean_attribute_is_told_from_a_missing_one(
    attributes: Attributes, value: bool, positions: list[int]
) -> None:
    assert passing(attributes, sale=value) == positions


@pytest.mark.parametrize(
    "condition",
    [{"gt": -1e300}, {"lt": 1e300}, {"gte": 0}, {"lte": 1e9}, {"any_of": [10, 20.5, 30]}],
)
def test_an_item_without_the_attribute_never_passes(
    attributes: Attributes, condition: dict[str, Any]
) -> None:
    assert 3 not in passing(attributes, price=condition)


def test_a_range_skips_values_that_are_no_numbers(attributes: Attributes) -> None:
    assert passing(attributes, code={"gte": 0}) == [1]


@pytest.mark.parametrize("condition", ["film", ["film"], {"gt": 1}, {"any_of": ["film"]}])
def test_an_unknown_attribute_is_refused_and_the_known_ones_named(
    attributes: Attributes, condition: Any
) -> None:
    with pytest.raises(RequestFailed, match="code, kind, price, sale, tags") as caught:
        attributes.check(filters(color=condition))
    assert (caught.value.code, caught.value.retry) == ("invalid_filter", False)


def test_a_range_over_words_is_refused(attributes: Attributes) -> None:
    with pytest.raises(RequestFailed, match="'kind' is not numeric") as caught:
        attributes.check(filters(kind={"gt": 1}))
    assert caught.value.code == "invalid_filter"


def test_a_catalog_without_attributes_says_so() -> None:
    with pytest.raises(RequestFailed, match="it has: none"):
        Attributes([{}], 1).check(filters(color="red"))


def test_an_empty_catalog_has_an_empty_mask() -> None:
    assert Attributes([], 0).mask({}).shape == (0,)


def test_large_integer_ids_are_told_apart() -> None:
    ids = Attributes([{"author": 2**53}, {"author": 2**53 + 1}], 2)
    assert ids.mask(filters(author=2**53 + 1)).tolist() == [False, True]


def test_an_integer_past_every_float_can_be_an_attribute() -> None:
    assert Attributes([{"author": 10**400}], 1).names == ["author"]


def test_an_integer_past_every_float_matches_nothing(attributes: Attributes) -> None:
    assert passing(attributes, price=10**400) == []
