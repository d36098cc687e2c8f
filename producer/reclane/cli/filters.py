"""Filters on the command line: `year>=2000`, `genre=drama`, `genre=a,b`, `tags~=a,b`. Pure."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final

SYNTAX: Final = (
    "write NAME=VALUE, NAME=A,B (one of them), NAME~=A,B (a list that shares one), "
    "NAME>=N, NAME>N, NAME<=N or NAME<N"
)

_FILTER: Final = re.compile(r"\s*([^<>=!~]*[^<>=!~\s])\s*(>=|<=|!=|~=|==|=|>|<)\s*(.*?)\s*", re.S)
_VALUES: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,"]*))\s*(,|$)')
_BOUNDS: Final = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_BOOLEANS: Final = {"true": True, "false": False}

Scalar = str | int | float | bool


class BadFilter(ValueError):
    """A filter that cannot be read; the message names it and says what to write."""


def parse_filters(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The contract's `filters` from what was written; bounds on one attribute merge.

    Raises:
        BadFilter: naming the first one that cannot be read or contradicts an earlier one.
    """
    filters: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, condition = _parse(text)
        known = filters.setdefault(name, {})
        if known and not (_is_range(known) and _is_range(condition)):
            raise BadFilter(f"{text!r}: {name} has a filter already; only bounds may be combined")
        if known.keys() & condition.keys():
            raise BadFilter(f"{text!r}: {name} has that bound already")
        known.update(condition)
    return filters


def parse_value(text: str) -> Scalar:
    """A whole number, a number, true or false; anything else is text."""
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    found = _FILTER.fullmatch(text)
    if found is None:
        raise BadFilter(f"{text!r}: {SYNTAX}")
    name, operator, written = found.groups()
    if operator == "!=":
        raise BadFilter(f"{text!r}: there is no 'not equal'; --exclude leaves out single items")
    if operator == "==":
        raise BadFilter(f"{text!r}: write a single =")
    if operator in _BOUNDS:
        return name, {_BOUNDS[operator]: _bound(text, written)}
    if written.startswith(("<", ">", "=")):
        raise BadFilter(f"{text!r}: {SYNTAX}")
    values = _values(text, written)
    if operator == "~=":
        return name, {"any_of": values}
    return name, {"in": values} if len(values) > 1 else {"eq": values[0]}


def _bound(text: str, written: str) -> float:
    value = parse_value(written)
    if isinstance(value, str | bool):
        raise BadFilter(f"{text!r}: a bound is a number, not {written!r}")
    return float(value)


def _values(text: str, written: str) -> list[Scalar]:
    """Values between commas; in double quotes one may hold commas, and is always text."""
    values: list[Scalar] = []
    at = 0
    while True:
        found = _VALUES.match(written, at)
        if found is None:
            raise BadFilter(f'{text!r}: a quote is not closed; write NAME="A, B"')
        quoted, plain, comma = found.groups()
        if quoted is None and not plain.strip():
            raise BadFilter(f"{text!r}: a value is missing; {SYNTAX}")
        values.append(
            parse_value(plain.strip()) if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        )
        if not comma:
            return values
        at = found.end()


def _is_range(condition: dict[str, Any]) -> bool:
    return condition.keys() <= set(_BOUNDS.values())
