"""Numbers in a request, and which attributes of a catalog they bound. Pure."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from reclane_worker.intent.languages import (
    CURRENCIES,
    LANGUAGES,
    ORDINALS,
    SPOKEN,
    UNITS,
    Bound,
    Concept,
    Op,
    alternatives,
    words,
)
from reclane_worker.intent.leads import inside
from reclane_worker.intent.lexicon import (
    MAY_SPELL,
    SPELT_NUMBER,
    Lexicon,
    Span,
    ending,
    fold,
    spelt,
)
from reclane_worker.intent.measures import size_of
from reclane_worker.intent.schema import FIRST_YEAR, LAST_YEAR, Schema, names_of, short_names

ABOUT: Final = 0.2  # how far from a price or a duration that is said without a bound
_MEANT_ROUGHLY: Final = frozenset({"price", "duration", "weight", "distance"})
CLOSE: Final = 0.05  # and from another measure that has decimals
_THIS_CENTURY: Final = 30  # decades of two digits below belong to it
_NAME_REACH: Final = 14  # characters between a name and its number
_OPPOSITE: Final[dict[Op, Op]] = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}
_AFTER_REACH: Final = 4
_SHORTEST_UNIT: Final = 3
_YEARS: Final = 50  # beyond the catalog's, in which a bare number of four digits is a year


@dataclass(frozen=True, slots=True)
class Quantity:
    """Numbers in folded text[start:end] that bound one of `attributes`, or name its value. Where
    nothing but a bare number tells that, it is not `sure`."""

    start: int
    end: int
    attributes: tuple[str, ...]
    bounds: dict[str, float] = field(default_factory=dict)
    value: float = 0.0
    sure: bool = True


class NumberReader:
    """Finds quantities that a catalog's numeric attributes can take."""

    def __init__(self, schema: Schema) -> None:
        self._numeric = {
            name: one
            for name, one in schema.attributes.items()
            if one.kind == "number" and one.concept != "clock"
        }
        concepts = (
            (word, concept)
            for language in LANGUAGES
            for concept, called in language.names.items()
            for word in called
        )
        self._names: Lexicon[tuple[str, str]] = Lexicon(
            [
                *((called, ("attribute", name)) for called, name in names_of(schema)),
                *((called, ("attribute", name)) for called, name in short_names(self._numeric)),
                *((word, ("concept", concept)) for word, concept in concepts),
            ]
        )
        counted = [name for name, one in self._numeric.items() if not (one.concept or one.unit)]
        called = [fold(name.replace("_", " ")) for name in counted]
        self._spelt = _before_names([*called, *(part for part, _ in short_names(counted))])

    def in_digits(self, text: str) -> str:
        """Folded text with numbers in digits that are written out before a name: `three bedrooms`
        where those are counted."""
        if not MAY_SPELL.search(text):
            return text
        return self._spelt.sub(lambda found: str(spelt(found[0])), text)

    def find(self, text: str, taken: Sequence[tuple[int, int]]) -> Iterator[Quantity]:
        """Quantities outside what is `taken` by values, from left to right."""
        if not self._numeric or not _DIGIT.search(text):
            return
        names = [span for span in self._names.find(text) if not _overlaps(span, taken)]
        at = 0
        while found := _NUMBER.search(text, at):
            at = max(found.end("a"), found.start() + 1)
            begin = found.start("a")
            if inside(begin, taken) or not _counts(text, found):
                continue
            quantity = self._decade(text, found) or self._quantity(text, found, names)
            if quantity:
                yield quantity
                at = quantity.end

    def _decade(self, text: str, found: "re.Match[str]") -> Quantity | None:
        digits = found["a"]
        said = _DECADE.match(text, found.start("a"))
        if not said or len(digits) not in (2, 4) or not digits.isdecimal():
            return None
        first = int(digits)
        if len(digits) == 2:
            first += 2000 if first < _THIS_CENTURY else 1900
        years = self._of("year")
        bounds = {"gte": float(first), "lte": float(first + 9)}
        return Quantity(found.start("a"), said.end(), years, bounds) if years else None

    def _quantity(
        self, text: str, found: "re.Match[str]", names: Sequence[Span[tuple[str, str]]]
    ) -> Quantity | None:
        low = _value(found["a"], found["b"] or "")
        high = _value(found["b"]) if found["b"] else None
        before = _before(text[max(0, found.start() - _BEFORE_REACH) : found.start()])
        between = high is not None and _follows_between(text, found)
        if not between and found["join"] in _NEEDS_BETWEEN:
            high = None
        end = found.end() if high is not None else _end_of_one(found)
        after = None if high is not None else _AFTER.match(text, end)
        bound = _AFTERS[after["op"]] if after else before[0]
        unit = _concept(found, high is not None)
        named = self._named(text, found.start(), after.end() if after else end, names)
        if named and not after and high is None:
            after, bound = self._after_name(text, end, names, bound)
        counts = _counted(text, after.end() if after else end)
        attributes = self._bounded(found, named, unit, bound, low, between, counts)
        if not attributes:
            return None
        low, high, attributes = self._in_unit(found, low, high, attributes)
        sure = bool(named is not None or unit or bound or between)
        end = after.end() if after else end
        start = found.start() - (before[2] if before[0] else 0)
        if high is not None:
            low, high = min(low, high), max(low, high)
            return Quantity(start, end, attributes, {"gte": low, "lte": high}, sure=sure)
        if bound is not None:
            op = _OPPOSITE[bound.op] if before[1] and not after else bound.op
            return Quantity(start, end, attributes, {op: low})
        exact = self._exact(start, end, attributes, low)
        return exact and replace(exact, sure=sure)

    def _after_name(
        self,
        text: str,
        end: int,
        names: Sequence[Span[tuple[str, str]]],
        bound: Bound | None,
    ) -> tuple["re.Match[str] | None", Bound | None]:
        """A bound behind the name: `3rd floor or below`."""
        for name in names:
            if end <= name.start <= end + _AFTER_REACH and bound is None:
                if after := _AFTER.match(text, name.end):
                    return after, _AFTERS[after["op"]]
                break
        return None, bound

    def _in_unit(
        self,
        found: "re.Match[str]",
        low: float,
        high: float | None,
        attributes: tuple[str, ...],
    ) -> tuple[float, float | None, tuple[str, ...]]:
        """The numbers in the unit that the attributes have, and those of these that have it."""
        of_low, of_high = found["ua"] or found["ub"], found["ub"] or found["ua"]
        if not of_low or UNITS[of_low].concept != self._numeric[attributes[0]].concept:
            return low, high, attributes
        size = size_of(self._numeric[attributes[0]].unit)
        alike = tuple(n for n in attributes if size_of(self._numeric[n].unit) == size)
        low *= size_of(of_low) / size
        return low, high if high is None else high * size_of(of_high) / size, alike

    def _exact(
        self, start: int, end: int, attributes: tuple[str, ...], value: float
    ) -> Quantity | None:
        """A number without a bound: that of whole numbers, at least that of a rating, about that
        of a price or another measure."""
        if not any(
            one.low <= value <= one.high for one in map(self._numeric.get, attributes) if one
        ):
            return None  # it counts something else
        first = self._numeric[attributes[0]]
        if first.concept in _MEANT_ROUGHLY:
            bounds = {"gte": value * (1 - ABOUT), "lte": value * (1 + ABOUT)}
            return Quantity(start, end, attributes, bounds)
        if first.concept == "rating" and not first.whole:
            return Quantity(start, end, attributes, {"gte": value})
        measure = first.concept not in (None, "year", "rating")
        if measure and (first.unit or not first.whole):
            bounds = {"gte": value * (1 - CLOSE), "lte": value * (1 + CLOSE)}
            return Quantity(start, end, attributes, bounds)
        return Quantity(start, end, attributes, value=value)

    def _bounded(
        self,
        found: "re.Match[str]",
        named: tuple[str, ...] | None,
        unit: Concept | None,
        bound: Bound | None,
        value: float,
        between: bool,
        counts: bool,
    ) -> tuple[str, ...]:
        """The attributes that a number is about: by a name beside it, its unit, or its bound."""
        if named and self._concepts(named) == {"year"} and not _is_year(found, value):
            named = None  # so much a year
        if named is not None and (unit is None or unit in self._concepts(named)):
            return named
        concept = unit or (bound.concept if bound else None)
        year_like = _is_year(found, value)
        if concept is None and counts and bound is not None:
            return ()  # of something that no attribute is called
        if concept == "year" and not year_like:
            return ()
        if concept is None and year_like and len(found["a"]) == 4 and self._may_be_year(value):
            concept = "year"
        if concept is None and (bound is not None or between):
            concept = "price"
        return self._called_so(found["ua"], self._of(concept)) if concept else ()

    def _may_be_year(self, value: float) -> bool:
        """Whether any item is from about then."""
        years = [one for one in self._numeric.values() if one.concept == "year"]
        return any(one.low - _YEARS <= value <= one.high + _YEARS for one in years)

    def _named(
        self, text: str, start: int, end: int, names: Sequence[Span[tuple[str, str]]]
    ) -> tuple[str, ...] | None:
        """Numeric attributes by a name before or right after; none of them where the name is of
        another attribute; None without a name."""
        before = [n for n in names if n.end <= start and start - n.end <= _NAME_REACH]
        between = text[before[-1].end : start] if before else ""
        if before and not _STOP.search(between):
            while len(before) > 1 and before[-2].end == before[-1].start:
                before.pop()  # of two names that touch, the first says which the second is
            return self._meant(before[-1])
        for name in names:
            apart = text[end : name.start]
            if name.start >= end and len(apart) <= _AFTER_REACH and not _STOP.search(apart):
                meant = self._meant(name)
                return meant or None
        return None

    def _meant(self, name: Span[tuple[str, str]]) -> tuple[str, ...]:
        attributes = [called for kind, called in name.found if kind == "attribute"]
        concepts = [concept for kind, concept in name.found if kind == "concept"]
        numeric = tuple(one for one in attributes if one in self._numeric)
        if attributes and not self._concepts(numeric) & set(concepts):
            return numeric
        return tuple(dict.fromkeys(one for _, concept in name.found for one in self._of(concept)))

    def _concepts(self, attributes: Sequence[str]) -> set[Concept | None]:
        return {self._numeric[name].concept for name in attributes}

    def _of(self, concept: str) -> tuple[str, ...]:
        return tuple(name for name, one in self._numeric.items() if one.concept == concept)

    def _called_so(self, unit: str | None, names: tuple[str, ...]) -> tuple[str, ...]:
        """Of several attributes those whose name has the unit in it: stars, not the guests'
        rating."""
        word = "star" if unit == "*" else (unit or "").removesuffix("s")
        if len(names) < 2 or len(word) < _SHORTEST_UNIT:
            return names
        return tuple(name for name in names if word in fold(name)) or names


def _before_names(names: Sequence[str]) -> "re.Pattern[str]":
    """Number words before one of these names, in singular or plural."""
    said = {form for name in names if name.isascii() for form in (name, name.removesuffix("s"))}
    if not said:
        return _NEVER
    numbers = rf"(?<![a-z])(?:{SPELT_NUMBER}|{alternatives(ORDINALS)})"
    more = alternatives(_AFTERS)
    called = "|".join(map(re.escape, said))
    return re.compile(rf"{numbers}(?=[\s-](?:(?:{more}) )?(?:{called})s?(?![a-z]))")


def _overlaps(span: Span[tuple[str, str]], taken: Sequence[tuple[int, int]]) -> bool:
    return any(span.start < end and start < span.end for start, end in taken)


def _counts(text: str, found: "re.Match[str]") -> bool:
    """Whether digits are a number: no part of a word, and none that float64 cannot hold."""
    finite = all(math.isfinite(_value(digits)) for digits in found.group("a", "b") if digits)
    return finite and not _is_in_a_word(text, found)


def _is_year(found: "re.Match[str]", value: float) -> bool:
    return FIRST_YEAR <= value <= LAST_YEAR and value == int(value) and not found["cur"]


def _counted(text: str, end: int) -> bool:
    """Whether a noun follows a number: `100 employees`."""
    following = _AFTER_BOUND.match(text, end)
    return following is not None and following[1] not in SPOKEN


def _is_in_a_word(text: str, found: "re.Match[str]") -> bool:
    before = text[found.start("a") - 1 : found.start("a")]
    return before.isascii() and (before.isalnum() or before in "._/#") if before else False


def _value(said: str, like: str = "") -> float:
    """The number; of two that are said together the first has the second's thousands, too."""
    digits, multiplier = _parts(said)
    return float(digits.replace(",", "")) * _MULTIPLIERS.get(multiplier or _parts(like)[1], 1.0)


def _parts(said: str) -> tuple[str, str]:
    found = _PARTS.fullmatch(said)
    return (found[1], found[2]) if found else (said, "")


def _follows_between(text: str, found: "re.Match[str]") -> bool:
    return _BETWEEN.search(text[max(0, found.start() - 20) : found.start()]) is not None


def _end_of_one(found: "re.Match[str]") -> int:
    return found.end("ua") if found["ua"] else found.end("a")


def _concept(found: "re.Match[str]", two: bool) -> Concept | None:
    unit = found["ua"] or (found["ub"] if two else None)
    if unit:
        return UNITS[unit].concept
    return "price" if found["cur"] else None


def _before(text: str) -> tuple[Bound | None, bool, int]:
    """The bound that is said at the end of a text, whether it is negated, and how long all that
    is."""
    bare = text.rstrip()
    while bare.endswith(_BOUND_FILLERS):
        bare = bare[: -len(next(one for one in _BOUND_FILLERS if bare.endswith(one)))].rstrip()
    phrase = ending(bare, _PHRASES)
    if not phrase:
        return None, False, 0
    bare = bare.removesuffix(phrase)
    if verb := ending(bare.rstrip(), _BOUND_VERBS):
        without = bare.rstrip().removesuffix(verb)
        bare = without if without.rstrip().endswith(_NOT) else bare
    negated = bare.rstrip().endswith(_NOT)
    if negated:
        bare = bare.rstrip()
        bare = bare.removesuffix(next(one for one in _NOT if bare.endswith(one)))
    return _BEFORES[phrase], negated, len(text) - len(bare)


_BEFORES: Final = {one.phrase: one for language in LANGUAGES for one in language.before}
_AFTERS: Final = {one.phrase: one for language in LANGUAGES for one in language.after}
_NEVER: Final = re.compile(r"(?!)")
_DIGIT: Final = re.compile(r"\d")
_MULTIPLIERS: Final = {
    word: size for language in LANGUAGES for word, size in language.multipliers.items()
}
_DIGITS: Final = rf"\d+(?:,\d{{3}})*(?:\.\d+)?(?:\s?(?:{alternatives(_MULTIPLIERS)}))?"
_PARTS: Final = re.compile(r"([\d,.]+)\s?(\D*)")
_NUMBER: Final = re.compile(
    rf"(?P<cur>[{CURRENCIES}])?\s?(?P<a>{_DIGITS})(?:[\s-]?(?P<ua>{alternatives(UNITS)}))?"
    rf"(?:\s?(?P<join>{alternatives(words(lambda one: one.joins))})\s?[{CURRENCIES}]?"
    rf"(?P<b>{_DIGITS})\s?(?P<ub>{alternatives(UNITS)})?)?"
)
_STOP: Final = re.compile(r"[\d,。,;!?、]")  # a name beyond is another number's
_NEEDS_BETWEEN: Final = frozenset({"and"})
_BETWEEN: Final = re.compile(rf"(?:{alternatives(words(lambda one: one.between))})\s*$")
_DECADE: Final = re.compile(rf"\d+(?:{alternatives(words(lambda one: one.decades))})")
_PHRASES: Final = words(lambda one: (bound.phrase for bound in one.before))
_AFTER_BOUND: Final = re.compile(r"\s?([a-z]{3,})")
_BOUND_FILLERS: Final = (" the", " a", " year", "在", "为")
_NOT: Final = ("not", "no", "n't", "不")
_BOUND_VERBS: Final = words(lambda one: one.bound_verbs)
_BEFORE_REACH: Final = 30
_PER: Final = rf"(?:\s(?:{alternatives(words(lambda one: one.per))})\s[a-z]+)?"
_AFTER: Final = re.compile(rf"{_PER}\s?(?P<op>{alternatives(_AFTERS)})(?!\s?[{CURRENCIES}]?\d)")
