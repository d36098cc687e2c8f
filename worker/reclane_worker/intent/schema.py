"""What the attributes of a catalog are, learnt from its items when it is built."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from reclane.errors import CatalogError
from reclane_worker.intent.languages import LANGUAGES, SYNONYMS, UNITS, Concept
from reclane_worker.intent.lexicon import fold
from reclane_worker.intent.measures import MISSING, Measure, measured, reader, size_of
from reclane_worker.manifest import SCHEMA, Manifest, path_in

Kind = Literal["number", "category", "features", "yes_no", "mentions", "text"]

MAX_VALUES: Final = 50_000  # of one attribute that requests may name
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
FIRST_YEAR: Final = 1000
LAST_YEAR: Final = 2100
_OLD_YEAR: Final = 1450
_FAR_YEAR: Final = 2060
_HOURS: Final = 48.0  # durations without a unit that go up to so much are hours
_SHORTEST_NAME: Final = 4
_TELL_LITTLE: Final = frozenset(part for one in LANGUAGES for part in one.name_parts) | {
    word for one in LANGUAGES for said in one.names.values() for word in said
}
_YES_NO: Final = frozenset(word for one in LANGUAGES for word in (*one.yes, *one.no))


class Attribute(BaseModel):
    """One attribute. `closed`: its values are a controlled vocabulary, so that an item without a
    wanted one does not fit; else it may only be untold. `low` to `high` is the range of numbers,
    `cheap` and `dear` their terciles, all in `unit` where one is known; times of day are minutes
    since midnight. Numbers may be written as text, `79 minutes`. `separator` stands between the
    features that a text lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    closed: bool = False
    whole: bool = False
    low: float = 0.0
    high: float = 0.0
    cheap: float = 0.0
    dear: float = 0.0
    concept: Concept | None = None
    unit: str = ""
    separator: str = ""
    aliases: tuple[str, ...] = ()
    values: dict[str, tuple[str, ...]] = {}
    """A value's other names, as the operator gave them."""


class Schema(BaseModel):
    """The attributes of a catalog by name. People may read it; `aliases` come from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: dict[str, Attribute] = {}


class Aliases(BaseModel):
    """What an operator adds: other names of attributes, and of their values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: dict[str, tuple[str, ...]] = {}
    values: dict[str, dict[str, tuple[str, ...]]] = {}


def read_aliases(path: Path) -> Aliases:
    """Raises:
    CatalogError: with what to write.
    """
    try:
        return Aliases.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CatalogError(
            f"{path} does not hold aliases ({type(error).__name__}); write "
            '{"attributes": {"price": ["room rate"]}, "values": {"type": {"luxury": ["5 star"]}}}'
        ) from None


def stored_schema(folder: Path, manifest: Manifest) -> Schema:
    """What the build of a catalog's base learnt."""
    return Schema.model_validate_json((folder / path_in(manifest.base, SCHEMA)).read_bytes())


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
    for word in _units_in(name):
        if UNITS[word].concept == concept and UNITS[word].size != 1:
            return word
    if concept != "duration" or any(UNITS[w].concept == concept for w in _units_in(name)):
        return ""
    return "hours" if high <= _HOURS else ""


def _units_in(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", fold(name)) if word in UNITS]


def readers(schema: Schema) -> dict[str, Callable[[str], Iterable[str | float]]]:
    """What texts of attributes stand for beside themselves: numbers in the attribute's unit, or
    the values that a text lists."""
    found: dict[str, Callable[[str], Iterable[str | float]]] = {}
    for name, one in schema.attributes.items():
        if one.kind == "number":
            found[name] = reader(one.concept, one.unit)
        elif one.separator:
            found[name] = partial(_listed, one.separator)
    return found


def _listed(separator: str, text: str) -> list[str]:
    """The values in a text; none where it is one."""
    if separator not in text:
        return []
    return list(dict.fromkeys(filter(None, map(str.strip, text.split(separator)))))


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
                parts.update(dict.fromkeys(_listed(separator, text) or (text.strip(),), count))
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


def short_names(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """A word of an attribute's name that no other has -> the attribute: `battery` of
    `battery_life`."""
    parts = {name: re.split(r"[\W_]+", fold(name)) for name in names}
    counts = Counter(part for found in parts.values() for part in set(found))
    for name, found in parts.items():
        for part in found if len(found) > 1 else ():
            if len(part) >= _SHORTEST_NAME and counts[part] == 1 and part not in _TELL_LITTLE:
                yield part, name
                for other in SYNONYMS.get(part, ()):
                    yield other, name


def names_of(schema: Schema) -> Iterator[tuple[str, str]]:
    """What attributes are called -> the attribute."""
    for name, one in schema.attributes.items():
        plain = name.replace("_", " ")
        for called in (name, plain, *SYNONYMS.get(fold(plain), ()), *one.aliases):
            yield called, name
