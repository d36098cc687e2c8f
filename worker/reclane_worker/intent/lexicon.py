"""Where known phrases stand in a text: longest first, on word borders. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

from reclane_worker.intent.languages import (
    HUNDREDS,
    NUMBER_WORDS,
    ORDINALS,
    UNITS,
    alternatives,
    words,
)
from reclane_worker.text import UNSPACED, is_unspaced, normalise

T = TypeVar("T")
MAX_PHRASE: Final = 64

_DIGIT: Final = re.compile(r"\d")
_DASH: Final = re.compile(r"[-\u2010-\u2015~\u301c到至]")
_HYPHENS: Final = re.compile(
    r"(?:\s*[-\u2010-\u2015~\u301c]+|(?<=[^\W_a-z])(?:到|至))\s*(?=[\d.$€£¥])"
)
_COUNTERS: Final = re.compile(
    rf"(?<=\d)\s?(?:{alternatives(words(lambda one: one.counters))})(?={alternatives(UNITS)})"
)
_NUMBERS: Final = alternatives(word for word in NUMBER_WORDS if word.isascii())
SPELT_NUMBER: Final = rf"(?:{_NUMBERS})(?:[\s-](?:and\s)?(?:{_NUMBERS}|{alternatives(HUNDREDS)}))*"
"""A pattern of a number in English words."""
_FIRST: Final = "".join(sorted({word[0] for word in NUMBER_WORDS} | set("半十")))
_SPELT: Final = re.compile(
    rf"(?<![a-z])(?=[ah{_FIRST}])"  # first letters of all below: ends most of the work
    r"(?:(?P<half>half an hour)|(?P<more>an hour and a half)"
    r"|(?P<an>an?)(?= (?:hour|minute)\b)"
    r"|(?P<half_a>half an?)"
    rf"(?= (?:{alternatives(unit for unit in UNITS if unit.isascii())}))"
    rf"|(?P<word>{SPELT_NUMBER})"
    rf"(?=[\s-](?:{alternatives(unit for unit in UNITS if unit.isascii())})))"
    r"|(?P<hanzi>[一二两三四五六七八九十])(?=个?(?:小时|分钟)|星级)|(?P<half_hour>半个?小时)"
)
_ENDS: Final = {word[-2:] for word in (*NUMBER_WORDS, *HUNDREDS, *ORDINALS) if word.isascii()}
_END: Final = "|".join(sorted(_ENDS))
MAY_SPELL: Final = re.compile(  # whether a number may be written out; says no at once, mostly
    rf"[一二两三四五六七八九十半]|[an] (?:hour|minute)|half an?|(?:{_END})[ -][a-z]"
)
_LETTER: Final = rf"[^\W_{UNSPACED}]"  # of a script with spaces between words
_WORD: Final = re.compile(rf"{_LETTER}+|\S")
_ASCII_WORD: Final = re.compile(r"[a-zA-Z0-9]+|\S")
_RANGE: Final = re.compile(rf"(\d[\d.]*)({alternatives(UNITS)})-(\d[\d.]*)\2")


@dataclass(frozen=True, slots=True)
class Span(Generic[T]):
    """A phrase in a text, and all that it may stand for."""

    start: int
    end: int
    found: tuple[T, ...]


def fold(text: str) -> str:
    """Text as phrases are compared: normalised, lower case, hyphens between numbers bare."""
    return fold_normalised(normalise(text))


def fold_normalised(text: str) -> str:
    """As `fold`, of text that is normalised already. Where two numbers have one unit, the first
    goes without."""
    text = text.casefold().replace("’", "'")
    if MAY_SPELL.search(text):
        text = _SPELT.sub(_in_digits, text)
    if not _DIGIT.search(text):
        return text
    if _DASH.search(text):
        text = _HYPHENS.sub("-", text)
    text = _COUNTERS.sub("", text)
    return _RANGE.sub(r"\1-\3\2", text) if "-" in text else text


def _in_digits(found: "re.Match[str]") -> str:
    """A number that is written out before its unit."""
    if found["half"] or found["half_hour"]:
        return "30 minutes"
    if found["more"]:
        return "90 minutes"
    if found["half_a"]:
        return "0.5"
    return "1" if found["an"] else str(spelt(found["word"] or found["hanzi"]))


def spelt(said: str) -> int:
    """The number that is written out: `two hundred and fifty`, `thirty-two`, `third`."""
    total = 0
    for word in re.split(r"[\s-]", said):
        if word in HUNDREDS:
            total = max(1, total) * HUNDREDS[word]
        elif word != "and":
            total += ORDINALS.get(word, 0) or NUMBER_WORDS[word]
    return total


class Lexicon(Generic[T]):
    """Phrases and what they stand for. English plurals are found by their singular, too."""

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        known: defaultdict[str, list[T]] = defaultdict(list)
        for phrase, meaning in entries:
            for form in _forms(fold(phrase)):
                if meaning not in known[form]:
                    known[form].append(meaning)
        self._known = {form: tuple(found) for form, found in known.items()}
        sizes: defaultdict[str, set[int]] = defaultdict(set)
        for form in known:
            sizes[_head(form, 0, _WORD.match(form))].add(len(form))
        self._sizes = {head: sorted(found, reverse=True) for head, found in sizes.items()}

    def __bool__(self) -> bool:
        return bool(self._known)

    def at(self, text: str, start: int) -> Span[T] | None:
        """The longest phrase that begins at `start` of folded text."""
        if not is_border(text, start):
            return None
        return next(self._spans(text, start, _head(text, start, _WORD.match(text, start))), None)

    def inside(self, text: str) -> Iterator[tuple[T, ...]]:
        """What every phrase in folded text stands for, those inside others too."""
        for start, head in _beginnings(text)[0]:
            for span in self._spans(text, start, head):
                yield span.found

    def find(self, text: str) -> Iterator[Span[T]]:
        """Phrases in folded text from left to right, none inside another."""
        beginnings, heads = _beginnings(text)
        if self._sizes.keys().isdisjoint(heads):
            return
        resume = 0
        for start, head in beginnings:
            if head in self._sizes and start >= resume:
                span = next(self._spans(text, start, head), None)
                if span:
                    resume = span.end
                    yield span

    def _spans(self, text: str, start: int, head: str) -> Iterator[Span[T]]:
        """Phrases that begin where this head does, the longest first."""
        for size in self._sizes.get(head, ()):
            end = start + size
            found = self._known.get(text[start:end])
            if found and end <= len(text) and is_border(text, end):
                yield Span(start, end, found)


def _forms(phrase: str) -> Iterator[str]:
    if not 2 <= len(phrase) <= MAX_PHRASE:
        return
    yield phrase
    if "-" in phrase and not _DIGIT.search(phrase):
        yield phrase.replace("-", " ")
    if phrase[-1].isascii() and phrase[-1].isalpha():
        yield phrase.removesuffix("s") if phrase.endswith("s") else phrase + "s"


def ending(text: str, said: tuple[str, ...]) -> str:
    """The longest of the words that the text ends with, as a word of its own; "" for none. `said`
    comes the longest first."""
    if not text.endswith(said):
        return ""
    word = next(word for word in said if text.endswith(word))
    return word if is_border(text, len(text) - len(word)) else ""


@lru_cache(maxsize=16)
def _beginnings(text: str) -> tuple[tuple[tuple[int, str], ...], frozenset[str]]:
    """Where words may begin with the heads of phrases that begin there, and these heads. Several
    lexicons look through one text."""
    word = _ASCII_WORD if text.isascii() else _WORD
    places = tuple((at := found.start(), _head(text, at, found)) for found in word.finditer(text))
    return places, frozenset(head for _, head in places)


def _head(text: str, start: int, word: "re.Match[str] | None") -> str:
    """What phrases are found by: the word that begins there, of which a phrase has all or nothing.
    Of a word of one letter, and where words have no borders, two letters."""
    return word[0] if word and len(word[0]) > 1 else text[start : start + 2]


def is_border(text: str, at: int) -> bool:
    """Whether a word may begin or end here: anywhere in a script without spaces."""
    return not (0 < at < len(text) and _in_word(text[at - 1]) and _in_word(text[at]))


@lru_cache(maxsize=65_536)
def _in_word(letter: str) -> bool:
    return letter.isalnum() and not is_unspaced(letter)
