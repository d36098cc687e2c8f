"""What a catalog's attributes are: learnt when it is built, read by people and by `Reader`."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from reclane.errors import CatalogError
from reclane_worker.intent.languages import LANGUAGES, SYNONYMS, Concept
from reclane_worker.intent.lexicon import fold
from reclane_worker.intent.measures import reader
from reclane_worker.manifest import SCHEMA, Manifest, path_in

Kind = Literal["number", "category", "features", "yes_no", "mentions", "text"]

MAX_VALUES: Final = 50_000  # of one attribute that requests may name
FIRST_YEAR: Final = 1000
LAST_YEAR: Final = 2100
_SHORTEST_NAME: Final = 4
_TELL_LITTLE: Final = frozenset(part for one in LANGUAGES for part in one.name_parts) | {
    word for one in LANGUAGES for said in one.names.values() for word in said
}


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


def readers(schema: Schema) -> dict[str, Callable[[str], Iterable[str | float]]]:
    """What texts of attributes stand for beside themselves: numbers in the attribute's unit, or
    the values that a text lists."""
    found: dict[str, Callable[[str], Iterable[str | float]]] = {}
    for name, one in schema.attributes.items():
        if one.kind == "number":
            found[name] = reader(one.concept, one.unit)
        elif one.separator:
            found[name] = partial(listed, one.separator)
    return found


def listed(separator: str, text: str) -> list[str]:
    """The values in a text; none where it is one."""
    if separator not in text:
        return []
    return list(dict.fromkeys(filter(None, map(str.strip, text.split(separator)))))


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
