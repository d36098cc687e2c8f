"""What the attributes of a catalog are, learnt from its items when it is built."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from reclane.errors import CatalogError
from reclane_worker.intent.languages import LANGUAGES, Concept
from reclane_worker.intent.lexicon import fold

Kind = Literal["number", "category", "features", "yes_no", "mentions", "text"]

MAX_VALUES: Final = 50_000  # of one attribute that requests may name
_CLOSED: Final = 0.1  # a vocabulary so small beside its items is a controlled one
_ALWAYS_CLOSED: Final = 12
_UNIQUE: Final = 0.6  # scalars of which more differ are names and addresses, no categories
_LONG_CHARS: Final = 40  # on average: prose
_REFERENCES: Final = 0.5  # lists of which so many are titles of other items point at those
_YES_NO: Final = frozenset(word for one in LANGUAGES for word in (*one.yes, *one.no))


class Attribute(BaseModel):
    """One attribute. `closed`: its values are a controlled vocabulary, so that an item without a
    wanted one does not fit; else it may only be untold. `low` to `high` is the range of numbers,
    `cheap` and `dear` their terciles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    closed: bool = False
    whole: bool = False
    low: float = 0.0
    high: float = 0.0
    cheap: float = 0.0
    dear: float = 0.0
    concept: Concept | None = None
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
        return described.model_copy(
            update={
                "concept": concept_of(name) if described.kind == "number" else None,
                "aliases": self._aliases.attributes.get(name, ()),
                "values": self._aliases.values.get(name, {}),
            }
        )


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


def concept_of(name: str) -> Concept | None:
    """What a numeric attribute of this name measures, as far as its name tells."""
    folded = fold(name.replace("_", " "))
    for language in LANGUAGES:
        for concept, words in language.names.items():
            if any(word in folded for word in words):
                return concept
    return None


class _Column:
    """What one attribute held so far."""

    def __init__(self) -> None:
        self._values: Counter[str] = Counter()
        self._numbers: list[float] = []
        self._items = self._flags = self._lists = self._chars = self._elements = 0

    def add(self, value: object) -> None:
        self._items += 1
        self._lists += isinstance(value, list)
        for one in value if isinstance(value, list) else (value,):
            self._add(one)

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

    def describe(self, titles: Set[str]) -> Attribute:
        if self._flags or (self._values and {fold(one) for one in self._values} <= _YES_NO):
            return Attribute(kind="yes_no", closed=True)
        if len(self._numbers) > self._elements:
            return _numeric(np.asarray(self._numbers))
        distinct = len(self._values)
        prose = self._chars > _LONG_CHARS * max(1, self._elements)
        if prose or not distinct or distinct >= MAX_VALUES:
            return Attribute(kind="text")
        if not self._lists and distinct > max(_ALWAYS_CLOSED, _UNIQUE * self._items):
            return Attribute(kind="text")
        if self._lists and sum(fold(v) in titles for v in self._values) > _REFERENCES * distinct:
            return Attribute(kind="mentions")
        closed = distinct <= max(_ALWAYS_CLOSED, _CLOSED * self._items)
        return Attribute(kind="features" if self._lists else "category", closed=closed)


def _numeric(numbers: "np.ndarray[Any, np.dtype[np.float64]]") -> Attribute:
    low, cheap, dear, high = np.quantile(numbers, (0, 1 / 3, 2 / 3, 1))
    whole = bool((numbers == np.round(numbers)).all())
    return Attribute(kind="number", whole=whole, low=low, high=high, cheap=cheap, dear=dear)


def names_of(schema: Schema) -> Iterator[tuple[str, str]]:
    """What attributes are called -> the attribute."""
    for name, one in schema.attributes.items():
        for called in (name, name.replace("_", " "), *one.aliases):
            yield called, name
