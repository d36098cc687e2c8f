"""A request's words become constraints on one catalog's attributes. Read `Reader.read` first."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final

from reclane.contract import (
    MAX_CONSTRAINTS,
    MAX_FILTER_VALUES,
    MAX_QUERY_BYTES,
    MAX_SIMILAR,
    AnyOf,
    Constraint,
    Eq,
    Range,
)
from reclane_worker.intent.clock import times_in
from reclane_worker.intent.languages import (
    CURRENCIES,
    LANGUAGES,
    NUMBER_WORDS,
    SPOKEN,
    Language,
    words,
)
from reclane_worker.intent.lexicon import Lexicon, Span, ending, fold_normalised
from reclane_worker.intent.numbers import NumberReader, Quantity
from reclane_worker.intent.schema import Schema, names_of, short_names
from reclane_worker.intent.spelling import Speller
from reclane_worker.intent.vocabulary import value_entries, wider_values, word_counts
from reclane_worker.intent.ways import side_of, side_said
from reclane_worker.text import has_word, normalise, spoken, terms

READ_CHARS: Final = 1_000  # of a text: more is compared, not read
TELLING_CHARS: Final = 160  # of a story: it tells what somebody remembers, and may err
MAX_TITLES: Final = 200_000
MAX_COUNT: Final = 100
_MARKS: Final = " \"'“”‘’《》「」"
_LATIN: Final = re.compile(r"[a-z]{4,}")
_BESIDE: Final = 24  # characters in which a word that changes a value's meaning stands


@dataclass(frozen=True, slots=True)
class Reading:
    """What a query asks: the text to compare, constraints on attributes, how many items, and the
    positions of items that others shall be like."""

    text: str
    constraints: tuple[Constraint, ...] = ()
    count: int | None = None
    similar: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Lead:
    """What words before a phrase say of it, and where they begin."""

    said: frozenset[str]
    start: int


@dataclass(frozen=True, slots=True)
class _Value:
    """A value in the text, with the attributes that have it; `start` is that of the words that
    negate it."""

    span: Span[tuple[str, str]]
    start: int
    attributes: tuple[str, ...]
    values: tuple[str, ...]
    negated: bool
    hard: bool
    aside: bool


@dataclass(frozen=True, slots=True)
class _Switch:
    """What an item shall have, one of these, or not have."""

    names: tuple[str, ...]
    without: bool
    start: int
    end: int

    def constraint(self, text: str) -> Constraint:
        return Constraint(
            attributes=self.names,
            condition=_YES,
            unless=self.without,
            said=text[self.start : self.end],
        )


class Reader:
    """Reads queries for one catalog: made once, when that is loaded.

    `values` gives the text values of an attribute and how many items have each, `spread` how many
    items have a term in their text, `knows` whether a word is known that no item has.
    """

    def __init__(
        self,
        schema: Schema,
        values: Callable[[str], Mapping[str, int]],
        titles: Sequence[str],
        spread: Callable[[str], int] = lambda term: 0,
        knows: Callable[[str], bool] = lambda word: False,
    ) -> None:
        self._attributes = schema.attributes
        self._values = Lexicon(value_entries(schema, values, spread, len(titles)))
        self._wider = wider_values(schema, values, self._values)
        self._numbers = NumberReader(schema)
        self._times = {n: one for n, one in self._attributes.items() if one.concept == "clock"}
        self._priced = {n: one for n, one in self._attributes.items() if one.concept == "price"}
        self._rated = {n: one for n, one in self._attributes.items() if one.concept == "rating"}
        self._yes_no = Lexicon(_switch_entries(schema))
        shown = titles if len(titles) <= MAX_TITLES else ()
        self._titles = Lexicon((title, position) for position, title in enumerate(shown))
        self._knows = knows
        self._speller: Speller | None = Speller(
            word_counts(schema, values, shown), spread, lambda word: word in SPOKEN or knows(word)
        )

    def knows_any(self, text: str) -> bool:
        """Whether any word is known that no item has; of a long text its beginning decides."""
        return any(map(self._knows, terms(text[:READ_CHARS])))

    def read(self, query: str) -> Reading:
        """What a query asks of this catalog. What a story tells is wished for, not demanded, and so
        is what is misspelt, or said by symbols."""
        written = normalise(query)[:MAX_QUERY_BYTES]  # one character may become eighteen
        plain, slips = self._mended(spoken(written))
        if not self._attributes:
            return Reading(plain)
        reach = _reach(plain)
        text = self._numbers.in_digits(fold_normalised(plain[:reach]))
        similar = next(self._similar(text), None)
        title = [(similar.start, similar.end)] if similar else []  # its words are no wishes
        spans = (span for span in self._values.find(text) if not _inside(span.start, title))
        found = [self._value(text, span) for span in spans]
        values = _spread_negations(text, self._opposed(text, [one for one in found if one]))
        taken = [*title, *((one.span.start, one.span.end) for one in values)]
        times = list(times_in(text, self._times, taken)) if self._times else []
        counted = [*taken, *((one.start, one.end) for one in times)]
        constraints = [
            *self._categories(text, values),
            *self._features(text, values),
            *(_number_constraint(text, one) for one in times),
            *(_number_constraint(text, one) for one in self._numbers.find(text, counted)),
            *self._switches(text, taken),
            *self._prices(text, taken),
        ]
        if len(text) > TELLING_CHARS or not has_word(written):
            constraints = [one.model_copy(update={"hard": False}) for one in constraints]
        constraints = [_as_said(one, slips) for one in constraints] if slips else constraints
        return Reading(
            _without(plain, reach, text, values, similar),
            tuple(dict.fromkeys(constraints))[:MAX_CONSTRAINTS],
            _count(text),
            similar.found[:MAX_SIMILAR] if similar else (),
        )

    def unmending(self) -> "Reader":
        """One that takes every word as it is written."""
        reader = copy(self)
        reader._speller = None
        return reader

    def _mended(self, plain: str) -> tuple[str, dict[str, str]]:
        if self._speller is None or len(plain) > TELLING_CHARS:
            return plain, {}  # in a story one word matters little, and may be a name
        return self._speller.mended(plain)

    def _kind(self, name: str) -> str:
        return self._attributes[name].kind

    # ---- values

    def _value(self, text: str, span: Span[tuple[str, str]]) -> _Value | None:
        """A value that is asked for or against; not one that only says where, or need not be."""
        names = tuple(dict.fromkeys(name for name, _ in span.found))
        names, start = self._on_its_way(text, span, names)
        lead = _lead(text, start)
        if "near" in lead.said or text[span.end :].lstrip().startswith(_NEAR_AFTER):
            names = tuple(name for name in names if self._kind(name) == "mentions")
        if not names or _is_waived(text, span, lead):
            return None
        values = tuple(dict.fromkeys(value for name, value in span.found if name in names))
        values += tuple(wide for value in values for wide in self._wider.get(value, ()))
        closed = any(self._attributes[name].closed for name in names)
        return _Value(
            span,
            lead.start if "not" in lead.said else span.start,
            names,
            values,
            negated="not" in lead.said,
            hard=closed and not self._is_topic(names, lead),
            aside="aside" in lead.said,
        )

    def _on_its_way(
        self, text: str, span: Span[tuple[str, str]], names: tuple[str, ...]
    ) -> tuple[tuple[str, ...], int]:
        """Of attributes for a start and for an end, those for the one that is said, and where that
        begins."""
        if len(names) < 2:
            return names, span.start
        sides = {name: side_of(name, self._attributes[name].aliases) for name in names}
        if len(set(sides.values())) < 2:
            return names, span.start
        said, start = side_said(text, span.start, span.end)
        return tuple(name for name in names if sides[name] == said) or names, start

    def _is_topic(self, names: Sequence[str], lead: _Lead) -> bool:
        """Whether a value is what something is about. `On` says so of genres and tags, of which an
        item has several; of one it says where it belongs."""
        several = any(self._kind(name) != "category" for name in names)
        return "about" in lead.said or ("perhaps about" in lead.said and several)

    def _opposed(self, text: str, values: list[_Value]) -> list[_Value]:
        """What may be a start or an end is what its alternative is, else what no other value is."""
        settled = {one.attributes for one in values if len(one.attributes) == 1}
        opposed: list[_Value] = []
        for one in values:
            last = opposed[-1] if opposed else None
            left = tuple(name for name in one.attributes if (name,) not in settled)
            if (
                last
                and set(last.attributes) < set(one.attributes)
                and _joined(text, last, one, _OR)
            ):
                one = replace(one, attributes=last.attributes)
            elif 0 < len(left) < len(one.attributes) and self._has_side(left):
                one = replace(one, attributes=left)
            opposed.append(one)
        return opposed

    def _has_side(self, names: Sequence[str]) -> bool:
        return all(side_of(name, self._attributes[name].aliases) for name in names)

    def _categories(self, text: str, values: Sequence[_Value]) -> Iterator[Constraint]:
        """Of attributes with one value: alternatives that are joined, else what was said last."""
        wanted: dict[tuple[str, ...], list[_Value]] = {}
        for one in values:
            if not all(self._kind(name) == "category" for name in one.attributes):
                continue
            if one.negated:
                yield _constraint(text, [one])
                continue
            kept = wanted.setdefault(one.attributes, [])
            if kept and one.aside and not kept[-1].aside:
                continue
            if kept and not _joined(text, kept[-1], one, _ALTERNATIVES):
                kept.clear()
            kept.append(one)
        for group in wanted.values():
            yield _constraint(text, group)

    def _features(self, text: str, values: Sequence[_Value]) -> Iterator[Constraint]:
        """Of attributes with many values: each, but alternatives together."""
        group: list[_Value] = []
        for one in values:
            if all(self._kind(name) == "category" for name in one.attributes):
                continue
            together = group and one.negated == group[-1].negated
            if together and _joined(text, group[-1], one, _OR):
                group.append(one)
                continue
            if group:
                yield _constraint(text, group)
            group = [one]
        if group:
            yield _constraint(text, group)

    def _switches(self, text: str, taken: Sequence[tuple[int, int]]) -> Iterator[Constraint]:
        """Features that an item has or has not, by the name of their attribute. Of alternatives one
        is enough; `without` reaches as far as they are joined."""
        last: _Switch | None = None
        for span in self._yes_no.find(text):
            lead = _lead(text, span.start)
            unneeded = "not" in lead.said and text[span.end :].lstrip().startswith(_UNNEEDED)
            if _inside(span.start, taken) or unneeded or _is_waived(text, span, lead):
                continue
            without = "not" in lead.said or all(negated for _, negated in span.found)
            names = tuple(dict.fromkeys(name for name, _ in span.found))
            one = _Switch(names, without, span.start, span.end)
            between = text[last.end : span.start].strip() if last else ""
            if last and last.without and between in _TOGETHER:
                one = replace(one, without=True)
            elif last and not without and between in _OR:
                one = replace(one, names=(*last.names, *names), start=last.start)
                last = None
            if last:
                yield last.constraint(text)
            last = one
        if last:
            yield last.constraint(text)

    # ---- prices and ratings without a number

    def _prices(self, text: str, taken: Sequence[tuple[int, int]]) -> Iterator[Constraint]:
        for span in _PRICED.find(text) if self._priced or self._rated else ():
            if _inside(span.start, taken) or _is_waived(text, span, _lead(text, span.start)):
                continue
            word, (kind, *_) = text[span.start : span.end], span.found
            if kind == "rated":
                for name, one in self._rated.items():
                    bound = Range(gte=one.dear)
                    yield Constraint(attributes=(name,), condition=bound, hard=False, said=word)
                continue
            if kind == "free":
                if free := tuple(name for name, one in self._priced.items() if one.low == 0):
                    yield Constraint(attributes=free, condition=Eq(eq=0), said=word)
                continue
            if _PRICE_FOLLOWS.match(text, span.end):
                continue  # `budget 900 dollars`
            for name, one in self._priced.items():
                bound = Range(lte=one.cheap) if kind == "low" else Range(gte=one.dear)
                yield Constraint(attributes=(name,), condition=bound, hard=False, said=word)

    # ---- items to be like

    def _similar(self, text: str) -> Iterator[Span[int]]:
        """Titles, each with the words before it that say so, and its quotes."""
        for said in _SIMILAR.find(text) if self._titles else ():
            at = said.end
            while at < len(text) and text[at] in _MARKS:
                at += 1
            quoted = text[at - 1] in _MARKS[1:]
            span = self._titles.at(text, at)
            if span and (quoted or len(terms(text[span.start : span.end])) > 1):
                end = span.end
                while quoted and end < len(text) and text[end] in _MARKS:
                    end += 1
                yield replace(span, start=said.start, end=end)


def _switch_entries(schema: Schema) -> Iterator[tuple[str, tuple[str, bool]]]:
    """What attributes that an item has or has not are called -> the attribute, and whether the
    name negates it: `unfurnished`."""
    switches = [name for name, one in schema.attributes.items() if one.kind == "yes_no"]
    for called, name in (*names_of(schema), *short_names(switches)):
        if name in switches:
            yield called, (name, False)
            if called.isascii() and called.isalpha():
                yield f"un{called}", (name, True)


def _as_said(constraint: Constraint, slips: Mapping[str, str]) -> Constraint:
    """A constraint in the request's own words; one of a misspelt word is a wish at most."""
    said = _LATIN.sub(lambda found: slips.get(found[0], found[0]), constraint.said)
    if said == constraint.said:
        return constraint
    return constraint.model_copy(update={"said": said, "hard": False})


def _number_constraint(text: str, one: Quantity) -> Constraint:
    condition: Range | Eq = Range(**one.bounds) if one.bounds else Eq(eq=one.value)
    return Constraint(
        attributes=one.attributes,
        condition=condition,
        hard=one.sure,
        said=text[one.start : one.end].strip(),
    )


def _constraint(text: str, group: Sequence[_Value]) -> Constraint:
    """One wish for what a group of alternatives names."""
    wanted = dict.fromkeys(value for one in group for value in one.values)
    return Constraint(
        attributes=tuple(dict.fromkeys(name for one in group for name in one.attributes)),
        condition=AnyOf(any_of=tuple(wanted)[:MAX_FILTER_VALUES]),
        unless=group[0].negated,
        hard=group[0].negated or any(one.hard for one in group),
        said=text[group[0].span.start : group[-1].span.end],
    )


def _spread_negations(text: str, values: list[_Value]) -> list[_Value]:
    """`not horror or comedy` is against both, and so is a list that ends so."""
    spread: list[_Value] = []
    for at, one in enumerate(values):
        last = spread[-1] if spread else None
        if last and last.negated and one.attributes == last.attributes:
            following = values[at + 1 : at + 2]
            listed = following and _joined(text, one, following[0], _TOGETHER)
            if _joined(text, last, one, _TOGETHER | _COMMA if listed else _TOGETHER):
                one = replace(one, negated=True, start=last.span.end)
        elif last and last.negated and _joined(text, last, one, _OR):
            one = replace(one, negated=True, start=last.span.end)
        spread.append(one)
    return spread


def _reach(plain: str) -> int:
    """How much of a text is read: no half words at its end, where words have ends."""
    if len(plain) <= READ_CHARS:
        return len(plain)
    space = plain.rfind(" ", 0, READ_CHARS + 1)
    return space if space > 0 else READ_CHARS


def _without(
    plain: str, reach: int, text: str, values: Sequence[_Value], similar: Span[int] | None
) -> str:
    """The text to compare: without the title of a model, and without what is not wanted and the
    words that say so; these stay where nothing else is left."""
    negated = [one for one in values if one.negated]
    title = [(similar.start, similar.end)] if similar else []
    if not (negated or title):
        return plain
    left = _cut(text, [*title, *((one.start, one.span.end) for one in negated)])
    if not has_word(left + plain[reach:]):
        left = _cut(text, [*title, *((one.span.start, one.span.end) for one in negated)])
    return normalise(left + plain[reach:])


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text without these stretches, which may overlap."""
    left, at = "", 0
    for start, end in sorted(spans):
        left += text[at:start] + " "
        at = max(at, end)
    return left + text[at:]


def _joined(text: str, one: _Value, other: _Value, words: frozenset[str]) -> bool:
    """Whether one of these words joins two values: `north or in the east`, `thai food or indian
    food`."""
    between = text[one.span.end : other.span.start].strip()
    if between in words:
        return True
    parts = between.split()
    while len(parts) > 1 and parts[-1] in _PREPOSITIONS:
        parts.pop()
    if len(parts) == 2 and text[other.span.end :].lstrip().startswith(parts[0]):
        parts = parts[1:]
    return len(parts) == 1 and parts[0] in words


def _inside(at: int, taken: Sequence[tuple[int, int]]) -> bool:
    return any(start <= at < end for start, end in taken)


def _count(text: str) -> int | None:
    """How many items are asked for; one may be a manner of speaking."""
    for pattern in _COUNTS:
        if found := pattern.search(text):
            word = found[1]
            count = int(word) if word.isdecimal() else NUMBER_WORDS.get(word, 1)
            if 1 < count <= MAX_COUNT:
                return count
    return None


# ---- the languages' words, put together


def _lead(text: str, at: int) -> _Lead:
    """What the word before `at` says of what follows it, fillers aside: `not`, `about`, `near`,
    `aside`."""
    first = max(0, at - _BESIDE)
    before = text[first:at]
    lead = _Lead(frozenset(), at)
    for _ in range(1 + _MOST_FILLERS):
        before = before.rstrip(" -")
        if word := ending(before, _LEADING):
            if "not" in _LEADS[word] or not lead.said:
                lead = _Lead(_LEADS[word], first + len(before) - len(word))
            if "perhaps about" not in lead.said:
                break
            before = before.removesuffix(word)  # `not on monday`
        elif word := ending(before, _FILLERS):
            before = before.removesuffix(word)
        else:
            break
    return lead


def _is_waived(text: str, span: Span[Any], lead: _Lead) -> bool:
    """Whether it is said of something that it need not be."""
    if text[span.end :].lstrip().startswith(_WAIVED_AFTER):
        return True
    before = text[max(0, span.start - _BESIDE) : span.start].rstrip(" -")
    for _ in range(1 + _MOST_FILLERS):
        if before.endswith(_WAIVED_BEFORE):
            return True
        filler = ending(before, _FILLERS)
        if not filler:
            return False
        before = before.removesuffix(filler).rstrip(" -")
    return False


_SAID_YES: Final = (word for language in LANGUAGES for word in language.yes)
_YES: Final = AnyOf(
    any_of=tuple(
        dict.fromkeys([True, *(w for y in _SAID_YES for w in (y, y.capitalize(), y.upper()))])
    )
)
_MOST_FILLERS: Final = 3
_FILLERS: Final = words(lambda one: one.fillers)
_SAYING: Final[dict[str, Callable[[Language], tuple[str, ...]]]] = {
    "not": lambda one: one.negations,
    "about": lambda one: one.topics,
    "perhaps about": lambda one: one.perhaps_topics,
    "near": lambda one: one.near_before,
    "aside": lambda one: one.asides,
}
_LEADING: Final = words(lambda one: (word for said in _SAYING.values() for word in said(one)))
_LEADS: Final = {
    word: frozenset(what for what, said in _SAYING.items() if word in words(said))
    for word in _LEADING
}
_WAIVED_BEFORE: Final = words(lambda one: one.waived_before)
_WAIVED_AFTER: Final = words(lambda one: one.waived_after)
_UNNEEDED: Final = words(lambda one: one.unneeded)
_NEAR_AFTER: Final = words(lambda one: one.near_after)
_PRICED: Final = Lexicon(
    (word, kind)
    for language in LANGUAGES
    for kind, said in (
        ("free", language.free),
        ("low", language.low),
        ("high", language.high),
        ("rated", language.rated),
    )
    for word in said
)
_PRICE_FOLLOWS: Final = re.compile(rf"[:\s]{{0,2}}(?:is |of |up to )?[{CURRENCIES}]?\d")
_SIMILAR: Final = Lexicon((word, word) for word in words(lambda one: one.similar))
_COUNTS: Final = tuple(re.compile(pattern) for pattern in words(lambda one: one.counts))
_ALTERNATIVES: Final = frozenset(words(lambda one: one.any_of))
_PREPOSITIONS: Final = frozenset(
    (
        *_FILLERS,
        *words(lambda one: one.perhaps_topics),
        *words(lambda one: (word for way in one.ways.values() for word in way.before)),
    )
)
_OR: Final = _ALTERNATIVES - {",", "、", "/"}
_COMMA: Final = frozenset({",", "、"})
_TOGETHER: Final = _OR | frozenset(words(lambda one: one.ands))
