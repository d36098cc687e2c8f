"""Filters over item attributes: which items of a catalog pass, as a boolean mask."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reclane.contract import AnyOf, Eq, Filter, In, Range, Scalar
from reclane.errors import RequestFailed

Mask = npt.NDArray[np.bool_]

_EXACT: Final = 2**53


class Attributes:
    """Columns of a catalog: numbers as an array (NaN where absent), other values by posting.

    `readers` say of some attributes which numbers or other values a text stands for beside itself.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        size: int,
        readers: Mapping[str, Callable[[str], Iterable[str | float]]] = MappingProxyType({}),
    ) -> None:
        self._size = size
        self._readers = readers
        self._numbers: dict[str, npt.NDArray[np.float64]] = {}
        self._postings: defaultdict[str, defaultdict[Any, array[int]]] = defaultdict(
            lambda: defaultdict(lambda: array("i"))
        )
        for position, row in enumerate(rows):
            for name, value in row.items():
                self._add(position, name, value)

    def __len__(self) -> int:
        return self._size

    @property
    def names(self) -> list[str]:
        return sorted({*self._numbers, *self._postings})

    def check(self, filters: Mapping[str, Filter]) -> None:
        """Refuse filters that this catalog cannot answer, before anything runs.

        Raises:
            RequestFailed: code `invalid_filter`, naming the attributes that exist.
        """
        for name, condition in filters.items():
            if name not in self._numbers and name not in self._postings:
                known = ", ".join(self.names[:30]) or "none"
                raise RequestFailed(
                    f"this catalog has no attribute {name!r}; it has: {known}", "invalid_filter"
                )
            if isinstance(condition, Range) and name not in self._numbers:
                raise RequestFailed(
                    f"{name!r} is not numeric: use eq, in, any_of", "invalid_filter"
                )

    def mask(self, filters: Mapping[str, Filter]) -> Mask:
        """Items that pass every filter, shape (items,). Filters have passed `check`."""
        passed = np.ones(self._size, dtype=bool)
        for name, condition in filters.items():
            passed &= self._one(name, condition)
        return passed

    def passing(self, names: Sequence[str], condition: Filter) -> Mask:
        """Items of which one of these attributes passes; an attribute that is none, or no number
        where a range is asked, passes nowhere."""
        passed = np.zeros(self._size, dtype=bool)
        for name in names:
            if name in self._numbers or (
                name in self._postings and not isinstance(condition, Range)
            ):
                passed |= self._one(name, condition)
        return passed

    def texts(self, name: str) -> dict[str, int]:
        """The distinct text values of an attribute, and how many items have each; not a text that
        lists others."""
        held: Mapping[Any, array[int]] = self._postings.get(name, {})
        return {
            value: len(items)
            for value, items in held.items()
            if isinstance(value, str)
            and not any(isinstance(other, str) for other in self._others(name, value))
        }

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """What each item has of a numeric attribute, (items,), NaN where nothing is told."""
        return self._numbers.get(name, np.full(self._size, np.nan))

    def shared(self, names: Sequence[str]) -> Iterator[Sequence[int]]:
        """Of each value of these attributes, numbers aside, the items that have it."""
        for name in names:
            for items in self._postings.get(name, {}).values():
                yield list(dict.fromkeys(items))  # a list may name a value twice

    def _one(self, name: str, condition: Filter) -> Mask:
        match condition:
            case Range():
                return self._within(name, condition)
            case Eq():
                return self._equals(name, (condition.eq,))
            case In():
                return self._equals(name, condition.in_)
            case AnyOf():
                return self._equals(name, condition.any_of)

    def _within(self, name: str, bounds: Range) -> Mask:
        column = self._numbers[name]
        passed = ~np.isnan(column)
        if bounds.gt is not None:
            passed &= column > bounds.gt
        if bounds.gte is not None:
            passed &= column >= bounds.gte
        if bounds.lt is not None:
            passed &= column < bounds.lt
        if bounds.lte is not None:
            passed &= column <= bounds.lte
        return passed

    def _equals(self, name: str, values: Sequence[Scalar]) -> Mask:
        passed = np.zeros(self._size, dtype=bool)
        numbers = [value for value in values if _is_number(value)]
        if numbers and name in self._numbers:
            passed |= np.isin(self._numbers[name], np.asarray(numbers, dtype=np.float64))
        held: Mapping[Any, array[int]] = self._postings.get(name, {})
        for value in values:
            if items := held.get(_key(value)):
                passed[np.frombuffer(items, np.int32)] = True
        return passed

    def _add(self, position: int, name: str, value: Any) -> None:
        if _is_number(value):
            self._count(position, name, value)
            return
        for element in value if isinstance(value, list) else (value,):
            self._postings[name][_key(element)].append(position)
        for other in self._others(name, value):
            if isinstance(other, str):
                self._postings[name][other].append(position)
            else:
                self._count(position, name, other)

    def _others(self, name: str, value: Any) -> Iterable[str | float]:
        read = self._readers.get(name)
        return read(value) if read and isinstance(value, str) else ()

    def _count(self, position: int, name: str, number: float) -> None:
        if name not in self._numbers:
            self._numbers[name] = np.full(self._size, np.nan)
        self._numbers[name][position] = number


def _is_number(value: Any) -> bool:
    """Whether float64 holds the value exactly; larger integers are ids, matched as such."""
    if isinstance(value, int) and not isinstance(value, bool):
        return -_EXACT <= value <= _EXACT
    return isinstance(value, float)


def _key(value: Any) -> Any:
    """True and 1 are one dictionary key in Python, but not one attribute value."""
    return ("bool", value) if isinstance(value, bool) else value
