"""A catalog's schema, learnt from its items."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

import numpy as np

from reclane.errors import CatalogError
from reclane_worker.intent.languages import LANGUAGES, UNITS, Concept
from reclane_worker.intent.lexicon import fold
from reclane_worker.intent.measures import MISSING, Measure, measured, size_of
from reclane_worker.intent.schema import (
    FIRST_YEAR,
    LAST_YEAR,
    MAX_VALUES,
    Aliases,
    Attribute,
    Schema,
    listed,
)

_CLOSED: Final = 0.1  # a vocabulary so small beside its items is a controlled one
_ALWAYS_CLOSED: Final = 12
_SEPARATORS: Final = ("|", ";", "、", ",")
_LISTS: Final = 0.2  # of an attribute's texts list several values
_REPEATED: Final = 3.0  # items have each of them, on average, or it is no list
_PART_CHARS: Final = 25
_SHARED: Final = 2.5  # items have each value of a single one, on average: so that it sorts them
_UNIQUE: Final = 0.6  # scalars of which more differ are names and addresses, no categories
_LONG_CHARS: Final = 40  # on average: prose
_REFERENCES: Final = 0.5  # lists of which so many are titles of other items point at those
_MEASURES: Final = 0.8  # of an attribute's texts are measures: then it is a number
_SOME: Final = 0.3  # are, where the others have units that nobody knows: `5000 mAh`
_STRANGE: Final = re.compile(r"\d[\d.,]*\s?[a-z]{1,12}")
_AMBIGUOUS: Final = frozenset({"min", "h", "g", "mi", "day", "days", "pound", "pounds"})
"""Units that are other words of names, too: `min_age`."""
_OLD_YEAR: Final = 1450
_FAR_YEAR: Final = 2060
_HOURS: Final = 48.0  # durations without a unit that go up to so much are hours
_YES_NO: Final = frozenset(word for one in LANGUAGES for word in (*one.yes, *one.no))


class SchemaBuilder:
    """Collects what attributes hold, item by item, within bounded memory."""

    def __init__(self, aliases: Aliases | None = None) -> None:
        self._aliases = aliases or Aliases()
        self._columns: defaultdict[str, _Column] = defaultdict(_Column)
        self._titles: set[str] = set()

    def add(self, title: str, attributes: Mapping[str, Any]) -> None:
        if len(self._titles) < MAX_VALUES:
            self._titles.add(fold(title))
        for name, value in attributes.items():
            self._columns[name].add(value)

    def build(self) -> Schema:
        """Raises:
        CatalogError: an alias names an attribute that no item has.
        """
        unknown = self._unknown()
        if unknown:
            raise CatalogError(f"aliases: no item has an attribute {', '.join(sorted(unknown))}")
        return Schema(
            attributes={name: self._attribute(name, one) for name, one in self._columns.items()}
        )

    def forget_unknown(self) -> None:
        """Leave out aliases of attributes that no item has, instead of refusing them."""
        unknown, given = self._unknown(), self._aliases
        self._aliases = Aliases(
            attributes={n: one for n, one in given.attributes.items() if n not in unknown},
            values={n: one for n, one in given.values.items() if n not in unknown},
        )

    def _unknown(self) -> set[str]:
        return {*self._aliases.attributes, *self._aliases.values} - self._columns.keys()

    def _attribute(self, name: str, column: "_Column") -> Attribute:
        described = column.describe(self._titles)
        update: dict[str, Any] = {
            "aliases": self._aliases.attributes.get(name, ()),
            "values": self._aliases.values.get(name, {}),
        }
        if described.kind == "number" and described.concept is None:
            concept = concept_of(name)
            if concept is None and described.whole and _like_years(described):
                concept = "year"
            if concept == "year" and not FIRST_YEAR <= described.low <= described.high <= LAST_YEAR:
                concept = None  # of experience, say
            update["concept"] = concept
            update["unit"] = _unit_of(name, concept, described.high)
        return described.model_copy(update=update)


def learn_schema(rows: Iterable[Mapping[str, Any]], aliases: Aliases) -> Schema:
    """The schema of a catalog's items, `title` and `attributes` of each; aliases of attributes
    that no item has any more are left out."""
    builder = SchemaBuilder(aliases)
    for row in rows:
        builder.add(row["title"], row["attributes"])
    builder.forget_unknown()
    return builder.build()


def aliases_of(schema: Schema) -> Aliases:
    """What an operator added when the catalog was built."""
    attributes = schema.attributes.items()
    return Aliases(
        attributes={name: one.aliases for name, one in attributes if one.aliases},
        values={name: one.values for name, one in attributes if one.values},
    )


def _like_years(numbers: Attribute) -> bool:
    """Whether numbers that no name explains are all from the printing press to a lifetime hence."""
    return _OLD_YEAR <= numbers.low < numbers.high <= _FAR_YEAR


def concept_of(name: str) -> Concept | None:
    """What a numeric attribute of this name measures, as far as its name tells."""
    for word in _units_in(name):
        if word not in _AMBIGUOUS:
            return UNITS[word].concept
    folded = fold(name.replace("_", " "))
    for language in LANGUAGES:
        for concept, words in language.names.items():
            if any(word in folded for word in words):
                return concept
    return None


def _unit_of(name: str, concept: Concept | None, high: float) -> str:
    """The unit of bare numbers, by the name; durations have one anyway."""
    said = [word for word in _units_in(name) if UNITS[word].concept == concept]
    if not said and concept == "duration":
        return "hours" if high <= _HOURS else ""
    return next((word for word in said if UNITS[word].size != 1), "")


def _units_in(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", fold(name)) if word in UNITS]


class _Column:
    """What one attribute held so far."""

    def __init__(self) -> None:
        self._values: Counter[str] = Counter()
        self._numbers: list[float] = []
        self._measures: list[Measure] = []
        self._items = self._flags = self._lists = self._chars = self._elements = 0
        self._told = self._strange = 0

    def add(self, value: object) -> None:
        self._items += 1
        self._lists += isinstance(value, list)
        for one in value if isinstance(value, list) else (value,):
            self._add(one)
        if isinstance(value, str):
            self._measure(value)

    def _add(self, value: object) -> None:
        if isinstance(value, bool):
            self._flags += 1
        elif isinstance(value, int | float):
            if len(self._numbers) < MAX_VALUES:
                self._numbers.append(float(value))
        elif isinstance(value, str):
            self._elements += 1
            self._chars += len(value)
            if len(self._values) < MAX_VALUES or value in self._values:
                self._values[value] += 1

    def _measure(self, text: str) -> None:
        if self._told >= MAX_VALUES or text.casefold() in MISSING:
            return
        self._told += 1
        if found := measured(text):
            self._measures.append(found)
        elif _STRANGE.fullmatch(text.casefold()):
            self._strange += 1

    def _measured(self) -> Attribute | None:
        """A number that is written as text; None where it is not, or measures this and that."""
        least = max(1.0, _MEASURES * (self._told - self._strange), _SOME * self._told)
        if len(self._measures) < least:
            return None
        if not any(one.value for one in self._measures):
            return None  # free, all of them
        concepts = Counter(one.concept for one in self._measures)
        concept, most = concepts.most_common(1)[0]
        bare = concepts[None] if concept is not None else 0
        if most + bare < least:
            return None
        units = Counter(one.unit for one in self._measures if one.unit and one.concept == concept)
        unit = units.most_common(1)[0][0] if units else ""
        numbers = [
            one.value * size_of(one.unit) / size_of(unit) if one.unit else one.value
            for one in self._measures
            if one.concept in (concept, None)
        ]
        described = _numeric(np.asarray([*numbers, *self._numbers]))
        return described.model_copy(update={"concept": concept, "unit": unit})

    def _listing(self) -> Attribute | None:
        """Features that texts list; None where they do not."""
        if len(self._values) >= MAX_VALUES:
            return None
        for separator in _SEPARATORS:
            lists = sum(count for text, count in self._values.items() if separator in text)
            if lists < max(2.0, _LISTS * self._elements):
                continue
            parts: Counter[str] = Counter()
            for text, count in self._values.items():
                parts.update(dict.fromkeys(listed(separator, text) or (text.strip(),), count))
            mean = sum(map(len, parts)) / len(parts)
            if parts.total() >= _REPEATED * len(parts) and mean <= _PART_CHARS:
                closed = len(parts) <= self._few()
                return Attribute(kind="features", closed=closed, separator=separator)
        return None

    def describe(self, titles: Set[str]) -> Attribute:
        if self._flags or (self._values and {fold(one) for one in self._values} <= _YES_NO):
            return Attribute(kind="yes_no", closed=True)
        if len(self._numbers) > self._elements:
            return _numeric(np.asarray(self._numbers))
        if not self._lists and (number := self._measured()):
            return number
        if not self._lists and (listing := self._listing()):
            return listing
        distinct = len(self._values)
        prose = self._chars > _LONG_CHARS * max(1, self._elements)
        if prose or not distinct or distinct >= MAX_VALUES:
            return Attribute(kind="text")
        if not self._lists and distinct > max(_ALWAYS_CLOSED, _UNIQUE * self._items):
            return Attribute(kind="text")
        if self._lists and sum(fold(v) in titles for v in self._values) > _REFERENCES * distinct:
            return Attribute(kind="mentions")
        if self._lists:
            return Attribute(kind="features", closed=distinct <= self._few())
        each = self._elements / distinct
        return Attribute(kind="category", closed=distinct <= self._few() or each >= _SHARED)

    def _few(self) -> float:
        """So many values make a controlled vocabulary."""
        return max(_ALWAYS_CLOSED, _CLOSED * self._items)


def _numeric(numbers: "np.ndarray[Any, np.dtype[np.float64]]") -> Attribute:
    low, cheap, dear, high = np.quantile(numbers, (0, 1 / 3, 2 / 3, 1))
    whole = bool((numbers == np.round(numbers)).all())
    return Attribute(kind="number", whole=whole, low=low, high=high, cheap=cheap, dear=dear)
