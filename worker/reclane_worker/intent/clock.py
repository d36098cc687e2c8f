"""Times of day in a request, and which of a catalog's times they bound. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from reclane_worker.intent.languages import LANGUAGES, Op, Side, alternatives, words
from reclane_worker.intent.leads import inside
from reclane_worker.intent.lexicon import ending
from reclane_worker.intent.measures import CLOCK, minutes_of
from reclane_worker.intent.numbers import Quantity
from reclane_worker.intent.schema import Attribute
from reclane_worker.intent.ways import VERBS, side_of, verb_before

ROUGHLY: Final = 60.0  # minutes on both sides of a time that is meant roughly
_REACH: Final = 24  # characters before a time in which words of it stand

Times = Mapping[str, Attribute]
"""A catalog's attributes that are times of day, by name."""


def times_in(text: str, times: Times, taken: Sequence[tuple[int, int]]) -> Iterator[Quantity]:
    """Bounds of the times in folded text outside what is `taken`, from left to right.

    Of a time without a bound a journey starts at the earliest, or ends at the latest, and rather
    within an hour of it.
    """
    found = [(one, minutes_of(one)) for one in CLOCK.finditer(text)]
    said = [
        (one.start(), one.end(), at)
        for one, at in found
        if at is not None and not inside(one.start(), taken)
    ]
    for part in _PARTS.finditer(text):
        low, high = _OF_DAY[part[0]]
        if not any(start - 1 <= part.start() <= end + 1 for start, end, _ in said):
            names = _meant(text, part.start(), times, None)
            bounds = {"gte": float(low), "lte": float(high)}
            yield from _one(part.start(), part.end(), names, bounds, sure=False)
    while said:
        start, end, at = said.pop(0)
        if said and _JOINED.fullmatch(text[end : said[0][0]]):
            _, end, until = said.pop(0)
            bounds = {"gte": min(at, until), "lte": max(at, until)}
            yield from _one(start, end, _meant(text, start, times, None), bounds)
        else:
            yield from _bounded(text, start, end, at, times)


def _bounded(text: str, start: int, end: int, at: float, times: Times) -> Iterator[Quantity]:
    first = max(0, start - _REACH)
    before = text[first:start].rstrip()
    if phrase := ending(before, _ROUGHLY):
        yield from _near(
            first + len(before) - len(phrase), end, at, _meant(text, start, times, None)
        )
        return
    if after := _AFTER.match(text, end):
        op = _AFTERS[after[1]]
        yield from _one(start, after.end(), _meant(text, start, times, op), {op: at})
    elif after := _AFTER_ROUGHLY.match(text, end):
        yield from _near(start, after.end(), at, _meant(text, start, times, None))
    elif phrase := ending(before, _BEFORE):
        op = _BEFORES[phrase]
        before = before.removesuffix(phrase).rstrip()
        if negation := _NEGATED.search(before):
            op = _OPPOSITE[op]
            before = before[: negation.start()].rstrip()
        names = _meant(text, start, times, op)
        yield from _one(first + len(before), end, names, {op: at})
    else:
        yield from _unbounded(start, end, at, _meant(text, start, times, None), times)


def _unbounded(
    start: int, end: int, at: float, names: tuple[str, ...], times: Times
) -> Iterator[Quantity]:
    sides = {side_of(name, times[name].aliases) for name in names}
    if sides == {"start"}:
        yield from _one(start, end, names, {"gte": at})
        yield from _one(start, end, names, {"gte": at, "lte": at + ROUGHLY}, sure=False)
    elif sides == {"end"}:
        yield from _one(start, end, names, {"lte": at})
        yield from _one(start, end, names, {"gte": at - ROUGHLY, "lte": at}, sure=False)
    else:
        yield from _near(start, end, at, names)


def _near(start: int, end: int, at: float, names: tuple[str, ...]) -> Iterator[Quantity]:
    yield from _one(start, end, names, {"gte": at - ROUGHLY, "lte": at + ROUGHLY}, sure=False)


def _one(
    start: int, end: int, names: tuple[str, ...], bounds: dict[str, float], sure: bool = True
) -> Iterator[Quantity]:
    if names:
        yield Quantity(start, end, names, bounds, sure=sure)


def _meant(text: str, at: int, times: Times, op: Op | None) -> tuple[str, ...]:
    """The attributes that a time is about: by the verb beside it, else by its bound."""
    verb = verb_before(text, at)
    said = verb[0] if verb else None
    if verb and op and "," in text[verb[1] : at] and said != _USUAL[op]:
        said = None  # of a list, it is the verb of another part
    side: Side = said or (_USUAL[op] if op else "start")
    sides = {name: side_of(name, one.aliases) for name, one in times.items()}
    if same := tuple(name for name, one in sides.items() if one == side):
        return same
    if said and all(sides.values()):
        return ()  # the other side is not told of any item
    return tuple(name for name, one in sides.items() if one is None) or tuple(sides)


_USUAL: Final[dict[Op, Side]] = {"gt": "start", "gte": "start", "lt": "end", "lte": "end"}
_OPPOSITE: Final[dict[Op, Op]] = {"gt": "lt", "gte": "lte", "lt": "gt", "lte": "gte"}
_BEFORES: Final[dict[str, Op]] = {
    phrase: op for language in LANGUAGES for phrase, op in language.clock_before.items()
}
_AFTERS: Final[dict[str, Op]] = {
    phrase: op for language in LANGUAGES for phrase, op in language.clock_after.items()
}
_OF_DAY: Final = {
    part: bounds for language in LANGUAGES for part, bounds in language.parts_of_day.items()
}
_PARTS: Final = re.compile(alternatives(_OF_DAY))
_BEFORE: Final = words(lambda one: one.clock_before)
_AFTER: Final = re.compile(rf"\s?({alternatives(_AFTERS)})")
_ROUGHLY: Final = words(lambda one: one.roughly)
_AFTER_ROUGHLY: Final = re.compile(rf"\s?({alternatives(_ROUGHLY)})")
_NEGATED: Final = re.compile(
    rf"(?:\b(?:no|not|cannot)|n['’]?t|不)(?:\s(?:{alternatives(VERBS)}))?$"
)
_JOINED: Final = re.compile(rf"\s?(?:{alternatives(words(lambda one: one.joins))})\s?")
