"""A request's words become constraints on one catalog's attributes. Read `Reader.read` first."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

from reclane.contract import (
    MAX_CONSTRAINTS,
    MAX_QUERY_BYTES,
    MAX_SIMILAR,
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
    words,
)
from reclane_worker.intent.leads import inside, is_waived
from reclane_worker.intent.lexicon import Lexicon, Span, fold_normalised
from reclane_worker.intent.numbers import NumberReader, Quantity
from reclane_worker.intent.schema import Schema
from reclane_worker.intent.spelling import Speller
from reclane_worker.intent.switches import Switches
from reclane_worker.intent.values import Value, Values
from reclane_worker.intent.vocabulary import value_entries, wider_values, word_counts
from reclane_worker.text import has_word, normalise, spoken, terms

READ_CHARS: Final = 1_000  # of a text: more is compared, not read
TELLING_CHARS: Final = 160  # of a story: it tells what somebody remembers, and may err
MAX_TITLES: Final = 200_000
MAX_COUNT: Final = 100
_MARKS: Final = " \"'“”‘’《》「」"
_LATIN: Final = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a query asks: the text to compare, constraints on attributes, how many items, and the
    positions of items that others shall be like."""

    text: str
    constraints: tuple[Constraint, ...] = ()
    count: int | None = None
    similar: tuple[int, ...] = ()


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
        known = Lexicon(value_entries(schema, values, spread, len(titles)))
        wider = wider_values(schema, values, known)
        self._values = Values(schema.attributes, known, wider)
        self._numbers = NumberReader(schema)
        self._times = {n: one for n, one in self._attributes.items() if one.concept == "clock"}
        self._priced = {n: one for n, one in self._attributes.items() if one.concept == "price"}
        self._rated = {n: one for n, one in self._attributes.items() if one.concept == "rating"}
        self._switches = Switches(schema)
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
        values = self._values.find(text, title)
        taken = [*title, *((one.span.start, one.span.end) for one in values)]
        times = list(times_in(text, self._times, taken)) if self._times else []
        counted = [*taken, *((one.start, one.end) for one in times)]
        constraints = [
            *self._values.constraints(text, values),
            *(_number_constraint(text, one) for one in times),
            *(_number_constraint(text, one) for one in self._numbers.find(text, counted)),
            *self._switches.find(text, taken),
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

    # ---- prices and ratings without a number

    def _prices(self, text: str, taken: Sequence[tuple[int, int]]) -> Iterator[Constraint]:
        for span in _PRICED.find(text) if self._priced or self._rated else ():
            if inside(span.start, taken) or is_waived(text, span):
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


def _reach(plain: str) -> int:
    """How much of a text is read: no half words at its end, where words have ends."""
    if len(plain) <= READ_CHARS:
        return len(plain)
    space = plain.rfind(" ", 0, READ_CHARS + 1)
    return space if space > 0 else READ_CHARS


def _without(
    plain: str, reach: int, text: str, values: Sequence[Value], similar: Span[int] | None
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


def _count(text: str) -> int | None:
    """How many items are asked for; one may be a manner of speaking."""
    for pattern in _COUNTS:
        if found := pattern.search(text):
            word = found[1]
            count = int(word) if word.isdecimal() else NUMBER_WORDS.get(word, 1)
            if 1 < count <= MAX_COUNT:
                return count
    return None


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
