"""What the values of a catalog are called, by whoever asks for them. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from reclane_worker.intent.languages import FUNCTION_WORDS, LANGUAGES, SYNONYMS
from reclane_worker.intent.lexicon import Lexicon, fold
from reclane_worker.intent.schema import Attribute, Schema
from reclane_worker.intent.ways import side_of

MAX_WIDER: Final = 50  # values that a narrower one stands for: an answer tells them all
NAMED: Final = frozenset({"category", "features", "mentions"})
_COMMON: Final = 0.02  # of items have a word in their text: it is no name
_COMMONER: Final = 5  # times as many as have it as a value
_WHOLES: Final[dict[str, tuple[str, ...]]] = {
    part: tuple(whole for whole, parts in language.wholes.items() if part in parts)
    for language in LANGUAGES
    for parts in language.wholes.values()
    for part in parts
}
_SAY_LITTLE: Final = frozenset(word for language in LANGUAGES for word in language.free) | {
    "paid",
    "none",
    "included",
    "available",
}
"""Values that many attributes may have: they are said with the attribute's name."""
_LATIN: Final = re.compile(r"[a-z]{4,}")


def value_entries(
    schema: Schema,
    values: Callable[[str], Mapping[str, int]],
    spread: Callable[[str], int],
    items: int,
) -> Iterator[tuple[str, tuple[str, str]]]:
    """What values are called -> attribute and value, but for words that mean nothing here."""
    places = _first_words(schema, values)
    for name, one in schema.attributes.items():
        if one.kind not in NAMED:
            continue
        sided = one.kind == "category" and side_of(name, one.aliases)
        for value, count in values(name).items():
            plain, given = fold(value), one.values.get(value, ())
            first = plain.partition(" ")[0]
            short = (first,) if sided and first in places else ()
            own = (f"{value} {name}", f"{name} {value}") if plain in _SAY_LITTLE else (value,)
            for called in (*own, *given, *short, *_otherwise(plain, one)):
                folded = fold(called)
                said = spread(folded)
                common = said > _COMMON * items and said > _COMMONER * count
                if folded not in FUNCTION_WORDS and not common:
                    yield called, (name, value)


def _otherwise(value: str, attribute: Attribute) -> Iterator[str]:
    """Other words for a folded value: `moderately` priced, an `upscale` place, the `weekend`."""
    yield from SYNONYMS.get(value, SYNONYMS.get(value.removesuffix("s"), ()))
    yield from _WHOLES.get(value, ())
    if attribute.closed and attribute.kind == "category" and _LATIN.fullmatch(value):
        yield f"{value}ly"


def _first_words(schema: Schema, values: Callable[[str], Mapping[str, int]]) -> set[str]:
    """First words of places that something starts or ends at, which may stand for the whole."""
    firsts = {
        fold(value).partition(" ")[0]
        for name, one in schema.attributes.items()
        if one.kind == "category" and side_of(name, one.aliases)
        for value in values(name)
        if " " in value
    }
    if not firsts:
        return set()
    named = {fold(value) for name in schema.attributes for value in values(name)}
    return {word for word in firsts - named if _LATIN.fullmatch(word)}


def wider_values(
    schema: Schema, values: Callable[[str], Mapping[str, int]], known: Lexicon[tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Values of open vocabularies -> values that contain them: who asks for noodles takes beef
    noodles."""
    wider: dict[str, list[str]] = {}
    for name, one in schema.attributes.items():
        if one.kind != "features" or one.closed:
            continue
        for value in values(name):
            for found in known.inside(fold(value)):
                for attribute, narrower in found:
                    if attribute == name and narrower != value:
                        wider.setdefault(narrower, []).append(value)
    return {value: tuple(dict.fromkeys(more))[:MAX_WIDER] for value, more in wider.items()}


def word_counts(
    schema: Schema, values: Callable[[str], Mapping[str, int]], titles: Iterable[str]
) -> Counter[str]:
    """The words of values and titles that a misspelt one may stand for, and how many items have
    each."""
    counts: Counter[str] = Counter()
    for name, one in schema.attributes.items():
        for value, count in values(name).items() if one.kind in NAMED else ():
            for called in (value, *one.values.get(value, ())):
                counts.update(dict.fromkeys(_LATIN.findall(fold(called)), count))
    for title in titles:
        counts.update(set(_LATIN.findall(fold(title))))
    return counts
