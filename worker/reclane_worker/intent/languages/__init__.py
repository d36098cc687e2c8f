"""The words that a request is read by. A new language is one more file, and a name in LANGUAGES;
how its times of day are written is in `measures.CLOCK`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple
from typing import Final

from reclane_worker.intent.languages.chinese import CHINESE
from reclane_worker.intent.languages.english import ENGLISH
from reclane_worker.intent.languages.language import Bound, Concept, Language, Op, Side, Unit, Way

__all__ = [
    "CURRENCIES",
    "FUNCTION_WORDS",
    "HUNDREDS",
    "LANGUAGES",
    "NUMBER_WORDS",
    "ORDINALS",
    "SPOKEN",
    "SYNONYMS",
    "UNITS",
    "Bound",
    "Concept",
    "Language",
    "Op",
    "Side",
    "Unit",
    "Way",
    "alternatives",
    "tells_nothing",
    "words",
]

LANGUAGES: Final = (ENGLISH, CHINESE)

NUMBER_WORDS: Final = {
    word: number for language in LANGUAGES for word, number in language.number_words.items()
}
CURRENCIES: Final = "$€£¥"


def words(take: Callable[[Language], Iterable[str]]) -> tuple[str, ...]:
    """Words of all languages, the longest first; `don't` is also written `dont`."""
    found = {word for language in LANGUAGES for word in take(language)}
    found |= {word.replace("n't", "nt") for word in found}
    return tuple(sorted(found, key=len, reverse=True))


def alternatives(found: Iterable[str]) -> str:
    """A pattern for any of the words: whole ones where they are written with spaces."""
    return "|".join(
        ("(?<![a-z])" if word[0].isascii() and word[0].isalpha() else "")
        + re.escape(word)
        + ("(?![a-z])" if word[-1].isascii() and word[-1].isalpha() else "")
        for word in sorted(found, key=len, reverse=True)
    )


HUNDREDS: Final = {word: n for language in LANGUAGES for word, n in language.hundreds.items()}
ORDINALS: Final = {word: n for language in LANGUAGES for word, n in language.ordinals.items()}
UNITS: Final[dict[str, Unit]] = {
    word: Unit(concept, size)
    for language in LANGUAGES
    for concept, units in language.units.items()
    for word, size in units.items()
}
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(other for other in group if other != word)
    for language in LANGUAGES
    for group in language.synonyms
    for word in group
}
FUNCTION_WORDS: Final = frozenset(
    words(
        lambda one: (
            *one.negations,
            *one.fillers,
            *one.any_of,
            *one.topics,
            *one.perhaps_topics,
            *one.near_before,
            *one.near_after,
            *one.similar,
            *one.yes,
            *one.no,
        )
    )
)
"""Words that are never the value of an attribute."""


def _said(value: object) -> Iterator[str]:
    """All texts in a language's rows, however deep."""
    if isinstance(value, str):
        yield from _LATIN_WORD.findall(value)
    elif isinstance(value, dict):
        yield from _said((*value, *value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _said(part)


_LATIN_WORD: Final = re.compile("[a-z]+")
SPOKEN: Final = frozenset(word for one in LANGUAGES for word in _said(astuple(one)))
"""Every word of Latin letters that requests are read by: no misspelling."""
_EMPTY: Final = frozenset(words(lambda one: one.empty))
_EMPTY_RUN: Final = re.compile(rf"(?:{alternatives(word for word in _EMPTY if word[0] > 'z')})*+")
_RUN: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def tells_nothing(text: str) -> bool:
    """Whether folded text has nothing but words that say nothing of what is wanted."""
    return all(
        run[0] in _EMPTY or _EMPTY_RUN.fullmatch(run[0]) is not None
        for run in _RUN.finditer(text.replace("’", "'"))
    )
