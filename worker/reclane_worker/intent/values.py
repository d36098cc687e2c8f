"""Values of attributes in a request: which are asked for, which are ruled out, which are
alternatives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reclane.contract import MAX_FILTER_VALUES, AnyOf, Constraint
from reclane_worker.intent.languages import words
from reclane_worker.intent.leads import (
    ALTERNATIVES,
    COMMA,
    OR,
    TOGETHER,
    Lead,
    inside,
    is_waived,
    joined,
    lead_of,
)
from reclane_worker.intent.lexicon import Lexicon, Span
from reclane_worker.intent.schema import Attribute
from reclane_worker.intent.ways import side_of, side_said


@dataclass(frozen=True, slots=True)
class Value:
    """A value in the text, with the attributes that have it; `start` is that of the words that
    negate it."""

    span: Span[tuple[str, str]]
    start: int
    attributes: tuple[str, ...]
    values: tuple[str, ...]
    negated: bool
    hard: bool
    aside: bool


class Values:
    """Finds a catalog's values in requests. `known` is what they are called, `wider` the values
    that a value stands for as well."""

    def __init__(
        self,
        attributes: Mapping[str, Attribute],
        known: Lexicon[tuple[str, str]],
        wider: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._attributes = attributes
        self._known = known
        self._wider = wider

    def find(self, text: str, taken: Sequence[tuple[int, int]]) -> list[Value]:
        """Those outside what is `taken`, from left to right."""
        spans = (span for span in self._known.find(text) if not inside(span.start, taken))
        found = [self._value(text, span) for span in spans]
        return _spread_negations(text, self._opposed(text, [one for one in found if one]))

    def constraints(self, text: str, values: Sequence[Value]) -> Iterator[Constraint]:
        yield from self._categories(text, values)
        yield from self._features(text, values)

    def _kind(self, name: str) -> str:
        return self._attributes[name].kind

    def _value(self, text: str, span: Span[tuple[str, str]]) -> Value | None:
        """A value that is asked for or against; not one that only says where, or need not be."""
        names = tuple(dict.fromkeys(name for name, _ in span.found))
        names, start = self._on_its_way(text, span, names)
        lead = lead_of(text, start)
        if "near" in lead.said or text[span.end :].lstrip().startswith(_NEAR_AFTER):
            names = tuple(name for name in names if self._kind(name) == "mentions")
        if not names or is_waived(text, span):
            return None
        values = tuple(dict.fromkeys(value for name, value in span.found if name in names))
        values += tuple(wide for value in values for wide in self._wider.get(value, ()))
        closed = any(self._attributes[name].closed for name in names)
        return Value(
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

    def _is_topic(self, names: Sequence[str], lead: Lead) -> bool:
        """Whether a value is what something is about. `On` says so of genres and tags, of which an
        item has several; of one it says where it belongs."""
        several = any(self._kind(name) != "category" for name in names)
        return "about" in lead.said or ("perhaps about" in lead.said and several)

    def _opposed(self, text: str, values: list[Value]) -> list[Value]:
        """What may be a start or an end is what its alternative is, else what no other value is."""
        settled = {one.attributes for one in values if len(one.attributes) == 1}
        opposed: list[Value] = []
        for one in values:
            last = opposed[-1] if opposed else None
            left = tuple(name for name in one.attributes if (name,) not in settled)
            if last and set(last.attributes) < set(one.attributes) and _joined(text, last, one, OR):
                one = replace(one, attributes=last.attributes)
            elif 0 < len(left) < len(one.attributes) and self._has_side(left):
                one = replace(one, attributes=left)
            opposed.append(one)
        return opposed

    def _has_side(self, names: Sequence[str]) -> bool:
        return all(side_of(name, self._attributes[name].aliases) for name in names)

    def _categories(self, text: str, values: Sequence[Value]) -> Iterator[Constraint]:
        """Of attributes with one value: alternatives that are joined, else what was said last."""
        wanted: dict[tuple[str, ...], list[Value]] = {}
        for one in values:
            if not all(self._kind(name) == "category" for name in one.attributes):
                continue
            if one.negated:
                yield _constraint(text, [one])
                continue
            kept = wanted.setdefault(one.attributes, [])
            if kept and one.aside and not kept[-1].aside:
                continue
            if kept and not _joined(text, kept[-1], one, ALTERNATIVES):
                kept.clear()
            kept.append(one)
        for group in wanted.values():
            yield _constraint(text, group)

    def _features(self, text: str, values: Sequence[Value]) -> Iterator[Constraint]:
        """Of attributes with many values: each, but alternatives together."""
        group: list[Value] = []
        for one in values:
            if all(self._kind(name) == "category" for name in one.attributes):
                continue
            together = group and one.negated == group[-1].negated
            if together and _joined(text, group[-1], one, OR):
                group.append(one)
                continue
            if group:
                yield _constraint(text, group)
            group = [one]
        if group:
            yield _constraint(text, group)


def _constraint(text: str, group: Sequence[Value]) -> Constraint:
    """One wish for what a group of alternatives names."""
    wanted = dict.fromkeys(value for one in group for value in one.values)
    return Constraint(
        attributes=tuple(dict.fromkeys(name for one in group for name in one.attributes)),
        condition=AnyOf(any_of=tuple(wanted)[:MAX_FILTER_VALUES]),
        unless=group[0].negated,
        hard=group[0].negated or any(one.hard for one in group),
        said=text[group[0].span.start : group[-1].span.end],
    )


def _spread_negations(text: str, values: list[Value]) -> list[Value]:
    """`not horror or comedy` is against both, and so is a list that ends so."""
    spread: list[Value] = []
    for at, one in enumerate(values):
        last = spread[-1] if spread else None
        if last and last.negated and one.attributes == last.attributes:
            following = values[at + 1 : at + 2]
            listed = following and _joined(text, one, following[0], TOGETHER)
            if _joined(text, last, one, TOGETHER | COMMA if listed else TOGETHER):
                one = replace(one, negated=True, start=last.span.end)
        elif last and last.negated and _joined(text, last, one, OR):
            one = replace(one, negated=True, start=last.span.end)
        spread.append(one)
    return spread


def _joined(text: str, one: Value, other: Value, words: frozenset[str]) -> bool:
    return joined(text, one.span.end, other.span.start, other.span.end, words)


_NEAR_AFTER: Final = words(lambda one: one.near_after)
