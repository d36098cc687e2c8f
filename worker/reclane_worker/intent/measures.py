"""What a value written as text measures: `79 minutes`, `$30`, `1 TB`, `09:45`. Pure."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from reclane_worker.intent.languages import (
    CURRENCIES,
    LANGUAGES,
    NUMBER_WORDS,
    UNITS,
    Concept,
    alternatives,
)
from reclane_worker.intent.lexicon import fold

LONGEST: Final = 40  # characters: longer values are no measures
MISSING: Final = frozenset({"", "?", "-", "n/a", "na", "none", "null", "unknown", "无", "未知"})
"""Folded values that tell nothing."""


class Measure(NamedTuple):
    """A number and what it measures; None and "" where nothing is said of that. The unit is as
    written."""

    value: float
    concept: Concept | None = None
    unit: str = ""


def measured(text: str) -> Measure | None:
    """What a whole text measures; None where it is not one number with at most a unit.

    Hours with minutes are minutes, times of day minutes since midnight, a date is its year.
    """
    if len(text) > LONGEST:
        return None
    folded = fold(text)
    if folded in _FREE:
        return Measure(0.0, "price")
    if found := CLOCK.fullmatch(folded):
        minutes = minutes_of(found)
        return None if minutes is None else Measure(minutes, "clock")
    if found := _DATE.fullmatch(folded):
        return Measure(float(found[1]), "year")
    if found := _HOURS_MINUTES.fullmatch(folded):
        return Measure(60.0 * int(found[1]) + int(found[2]), "duration", "minutes")
    if not (found := _MEASURE.fullmatch(folded)) or (found["currency"] and found["unit"]):
        return None
    value = float(found["number"].replace(",", ""))
    if not math.isfinite(value):
        return None
    if found["currency"]:
        return Measure(value, "price")
    unit = found["unit"] or ""
    return Measure(value, UNITS[unit].concept if unit else None, unit)


def size_of(unit: str) -> float:
    """How large a unit is, see `Unit`; 1 where there is none."""
    return UNITS[unit].size if unit in UNITS else 1.0


def reader(concept: Concept | None, unit: str) -> Callable[[str], Iterator[float]]:
    """Reads the text values of an attribute that measures `concept` in `unit`; nothing from those
    that measure nothing, or something else."""

    def read(text: str) -> Iterator[float]:
        found = measured(text)
        if found and found.concept in (None, concept):
            yield found.value * size_of(found.unit) / size_of(unit) if found.unit else found.value

    return read


def minutes_of(found: "re.Match[str]") -> float | None:
    """Since midnight, of a match of `CLOCK`; None of what is no time of day."""
    if found["named"]:
        return float(_NAMED[found["named"]])
    if found["hanzi"]:
        return _chinese(found)
    said = found["hour"] or found["oclock"] or found["shared"] or found["past"] or found["bare"]
    hour = int(said) if said.isdecimal() else NUMBER_WORDS[said]
    minute = int(found["minute"] or 0) + _QUARTERS.get(found["quarter"] or "", 0)
    half = (found["half"] or found["half_shared"] or "")[:1]
    half = _HALVES.get(found["spoken"] or "", half)
    if hour > 24 or minute > 59 or (half in _AM_PM and not 1 <= hour <= 12):
        return None
    if half in _AM_PM:
        hour = hour % 12 + (12 if half == "p" else 0)
    return float(60 * hour + minute) % _DAY


def _chinese(found: "re.Match[str]") -> float | None:
    said = found["hanzi"]
    hour = int(said) if said.isdecimal() else _spelt(said)
    if hour is None or hour > 24:
        return None
    if found["part"] in _AFTERNOON and hour < 12:
        hour += 12
    minute = 30 if found["halfpast"] else int(found["past_hanzi"] or 0)
    return float(60 * hour + minute) if minute < 60 else None


def _spelt(said: str) -> int | None:
    """一 to 九十九."""
    tens, ten, ones = said.partition("十")
    if not ten:
        return NUMBER_WORDS.get(said)
    parts = NUMBER_WORDS.get(tens or "一"), NUMBER_WORDS.get(ones, None if ones else 0)
    return None if parts[0] is None or parts[1] is None else 10 * parts[0] + parts[1]


_NAMED: Final = {word: at for language in LANGUAGES for word, at in language.times.items()}
_AFTERNOON: Final = frozenset({"中午", "下午", "傍晚", "晚上"})
_HALVES: Final = {said: half for one in LANGUAGES for said, half in one.after_hours.items()}
_AM_PM: Final = ("a", "p")
_DAY: Final = 24 * 60
_QUARTERS: Final = {"half past": 30, "quarter past": 15, "quarter to": -15}
_HALF: Final = r"[ap]\.?m\b\.?"
_HOUR: Final = rf"\d{{1,2}}|{alternatives(word for word in NUMBER_WORDS if word.isascii())}"
_SPOKEN: Final = alternatives(_HALVES)
CLOCK: Final = re.compile(
    r"(?<![\d:.])(?:"
    rf"(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}})(?::\d{{2}})?(?![\d:])"
    rf"|(?P<quarter>half past|quarter past|quarter to) (?P<past>{_HOUR})(?![\d:])"
    rf"|(?P<oclock>{_HOUR})(?=\s?(?:{_HALF}|o['’]?clock\b|{_SPOKEN}))"
    rf"|(?P<shared>\d{{1,2}})(?=\s?(?:and|to|-|until|till|or)\s?\d{{1,2}}(?::\d{{2}})?"
    rf"\s?(?P<half_shared>{_HALF}|o['’]?clock\b))"
    r"|(?P<part>早上|上午|中午|下午|傍晚|晚上|凌晨)?(?P<hanzi>\d{1,2}|[一二两三四五六七八九十]{1,3})点"
    r"(?:钟|(?P<halfpast>半)|(?P<past_hanzi>\d{1,2})分?)?"
    r"|(?:(?<=before )|(?<=after )|(?<=by )|(?<=until ))(?P<bare>\d{1,2})"
    r"(?=\s*(?:$|[,;!?)]|\.(?!\d)|(?:on|from|to|and|for|in)\b))"
    rf"|(?P<named>{alternatives(_NAMED)}))"
    rf"(?:\s?(?:(?P<half>{_HALF})|o['’]?clock\b|(?P<spoken>{_SPOKEN})))?"
)
"""A time of day in folded text."""
_FREE: Final = frozenset(word for language in LANGUAGES for word in language.free)
_DATE: Final = re.compile(r"(\d{4})[-/.]\d{1,2}[-/.]\d{1,2}(?:[t ]\d{2}:\d{2}.*)?")
_HOURS_MINUTES: Final = re.compile(
    r"(\d{1,3})\s?(?:h|hr|hrs|hour|hours|小时)\s?(?:and\s)?(\d{1,2})\s?(?:m|min|mins|minutes?|分钟?)"
)
_MEASURE: Final = re.compile(
    rf"(?P<currency>[{CURRENCIES}])?\s?(?P<number>-?(?:0|[1-9]\d*|[1-9]\d{{0,2}}(?:,\d{{3}})+)(?:\.\d+)?)"
    rf"(?:[\s-]?(?P<unit>{alternatives(UNITS)}))?"
)
