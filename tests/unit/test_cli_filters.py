"""Filters as people write them become the contract's, or an error that names them."""

import re
from typing import Any

import pytest

from reclane.cli.filters import BadFilter, parse_filters, parse_value
from reclane.contract import parse_request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("genre=drama", {"genre": {"eq": "drama"}}),
        ("year=1999", {"year": {"eq": 1999}}),
        ("price=4.50", {"price": {"eq": 4.5}}),
        ("new=true", {"new": {"eq": True}}),
        ("new=False", {"new": {"eq": False}}),
        ('year="1999"', {"year": {"eq": "1999"}}),
        ("genre=drama,crime", {"genre": {"in": ["drama", "crime"]}}),
        ('title="Heat, the film", Alien', {"title": {"in": ["Heat, the film", "Alien"]}}),
        (r'title="say \"hi\""', {"title": {"eq": 'say "hi"'}}),
        ("tags~=a,b", {"tags": {"any_of": ["a", "b"]}}),
        ("tags~=a", {"tags": {"any_of": ["a"]}}),
        ("year>=2000", {"year": {"gte": 2000.0}}),
        ("year>2000", {"year": {"gt": 2000.0}}),
        ("year<=2000", {"year": {"lte": 2000.0}}),
        ("year<-1.5e3", {"year": {"lt": -1500.0}}),
        (" year >= 2000 ", {"year": {"gte": 2000.0}}),
        ("running time<90", {"running time": {"lt": 90.0}}),
        ("题材=科幻", {"题材": {"eq": "科幻"}}),
        ("formula=a>b", {"formula": {"eq": "a>b"}}),
    ],
)
def test_a_filter_is_read_and_the_contract_takes_it(text: str, expected: dict[str, Any]) -> None:
    assert parse_filters([text]) == expected
    assert parse_request({"query": "x", "filters": expected}).filters


def test_bounds_on_one_attribute_merge() -> None:
    found = parse_filters(["year>=2000", "genre=drama", "year<2010"])
    assert found == {"year": {"gte": 2000.0, "lt": 2010.0}, "genre": {"eq": "drama"}}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["year"], "NAME=VALUE"),
        (["=drama"], "NAME=VALUE"),
        ([""], "NAME=VALUE"),
        (["genre="], "a value is missing"),
        (["genre=a,,b"], "a value is missing"),
        (["genre=a,"], "a value is missing"),
        (['genre="a'], "a quote is not closed"),
        (['genre="a"b'], "a quote is not closed"),
        (["genre!=drama"], "no 'not equal'"),
        (["genre==drama"], "a single ="),
        (["year>=new"], "a bound is a number, not 'new'"),
        (["year>true"], "a bound is a number, not 'true'"),
        (["year<"], "a bound is a number"),
        (["year<nan"], "a bound is a number"),
        (["genre=a", "genre=b"], "genre has a filter already"),
        (["year=1999", "year>=2000"], "year has a filter already"),
        (["year>=1999", "year>=2000"], "year has that bound already"),
    ],
)
def test_a_bad_filter_is_named(texts: list[str], said: str) -> None:
    with pytest.raises(BadFilter, match=re.escape(said)) as caught:
        parse_filters(texts)
    assert repr(texts[-1]) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1e9999", "1e999", "0x10", "1_000", "١", "-", ".", "drama"]
)
def test_what_is_not_plainly_a_number_is_text(text: str) -> None:
    assert parse_value(text) == text
