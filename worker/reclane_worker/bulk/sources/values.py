"""Cells to the values of a request's fields: pure.

A cell is whatever a format gives: text in CSV, lists and numbers in Parquet, JSON text in a
database. None and "" mean that the row leaves the field out. What a reader cannot use it lets
through: the contract then says what is wrong, without quoting it.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from pydantic_core import from_json

Read: TypeAlias = Callable[[Any, str], Any]
"""(cell, separator) -> value"""


class Unreadable(Exception):
    """Why a cell or row cannot be used; never its content."""


def text(cell: Any, separator: str = "") -> Any:
    """Ids are often numbers in files; in a request they are text."""
    return str(cell) if isinstance(cell, int) and not isinstance(cell, bool) else cell


def _number(cell: Any, separator: str) -> Any:
    try:
        number = float(cell) if isinstance(cell, str) else cell
    except ValueError:
        raise Unreadable("not a number") from None
    # Columns of integers with gaps are often stored as floats.
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _boolean(cell: Any, separator: str) -> Any:
    known = {"true": True, "1": True, "false": False, "0": False}
    return known.get(str(cell).strip().lower(), cell)


def _list(cell: Any, separator: str) -> Any:
    if isinstance(cell, str):
        cell = _json(cell) if cell.lstrip().startswith("[") else cell.split(separator)
    if not isinstance(cell, list | tuple):
        return cell
    return [_element(one) for one in cell if one not in (None, "")]


def _element(one: Any) -> Any:
    if isinstance(one, dict) and one.keys() == {"id", "weight"}:
        return text(one["id"]) if one["weight"] is None else [text(one["id"]), one["weight"]]
    return [text(one[0]), one[1]] if isinstance(one, list) and len(one) == 2 else text(one)


def _object(cell: Any, separator: str) -> Any:
    if isinstance(cell, str):
        return _json(cell)
    if isinstance(cell, list):  # a Parquet map
        return dict(cell) if all(isinstance(pair, tuple) for pair in cell) else cell
    return _without_none(cell)


def _without_none(value: Any) -> Any:
    """A Parquet struct has every field in every row; those that are null were never given."""
    if not isinstance(value, dict):
        return value
    return {name: _without_none(one) for name, one in value.items() if one is not None}


def _json(cell: str) -> Any:
    try:
        return from_json(cell, allow_inf_nan=False)
    except ValueError:
        raise Unreadable("not valid JSON") from None


READERS: Final[dict[str, Read]] = {
    **dict.fromkeys(("query", "user_id", "catalog", "variant"), text),
    **dict.fromkeys(("k", "offset", "diversity"), _number),
    "explain": _boolean,
    **dict.fromkeys(("history", "candidates", "exclude", "fields"), _list),
    **dict.fromkeys(("filters", "context", "intent"), _object),
}
"""How each field that a row may give is read."""


def read_value(field: str, cell: Any, separator: str) -> Any:
    """The field's value, None where the row leaves it out.

    Raises:
        Unreadable: naming the field.
    """
    if cell is None or cell == "":
        return None
    try:
        return READERS[field](cell, separator)
    except Unreadable as error:
        raise Unreadable(f"{field}: {error}") from None
