"""Features that an item has or has not, by the names of their attributes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reclane.contract import AnyOf, Constraint
from reclane_worker.intent.languages import LANGUAGES
from reclane_worker.intent.leads import (
    OR,
    TOGETHER,
    inside,
    is_unneeded,
    is_waived,
    joined,
    lead_of,
)
from reclane_worker.intent.lexicon import Lexicon
from reclane_worker.intent.schema import Schema, names_of, short_names


@dataclass(frozen=True, slots=True)
class _Switch:
    """What an item shall have, one of these, or not have."""

    names: tuple[str, ...]
    without: bool
    start: int
    end: int

    def is_joined(self, text: str, other: "_Switch", words: frozenset[str]) -> bool:
        return joined(text, self.end, other.start, other.end, words)

    def constraint(self, text: str) -> Constraint:
        return Constraint(
            attributes=self.names,
            condition=_YES,
            unless=self.without,
            said=text[self.start : self.end],
        )


class Switches:
    """Finds a catalog's features in requests."""

    def __init__(self, schema: Schema) -> None:
        self._names = Lexicon(_entries(schema))

    def find(self, text: str, taken: Sequence[tuple[int, int]]) -> Iterator[Constraint]:
        """Those outside what is `taken`. Of alternatives one is enough; `without` reaches as far
        as they are joined."""
        last: _Switch | None = None
        for span in self._names.find(text):
            lead = lead_of(text, span.start)
            waived = is_unneeded(text, span, lead) or is_waived(text, span)
            if waived or inside(span.start, taken):
                continue
            without = "not" in lead.said or all(negated for _, negated in span.found)
            names = tuple(dict.fromkeys(name for name, _ in span.found))
            one = _Switch(names, without, span.start, span.end)
            if last and last.without and last.is_joined(text, one, TOGETHER):
                one = replace(one, without=True)
            elif last and not without and last.is_joined(text, one, OR):
                one = replace(one, names=(*last.names, *names), start=last.start)
                last = None
            if last:
                yield last.constraint(text)
            last = one
        if last:
            yield last.constraint(text)


def _entries(schema: Schema) -> Iterator[tuple[str, tuple[str, bool]]]:
    """What attributes that an item has or has not are called -> the attribute, and whether the
    name negates it: `unfurnished`."""
    switches = [name for name, one in schema.attributes.items() if one.kind == "yes_no"]
    for called, name in (*names_of(schema), *short_names(switches)):
        if name in switches:
            yield called, (name, False)
            if called.isascii() and called.isalpha():
                yield f"un{called}", (name, True)


_SAID_YES: Final = (word for language in LANGUAGES for word in language.yes)
_YES: Final = AnyOf(
    any_of=tuple(
        dict.fromkeys([True, *(w for y in _SAID_YES for w in (y, y.capitalize(), y.upper()))])
    )
)
