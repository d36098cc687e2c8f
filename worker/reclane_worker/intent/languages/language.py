"""What a language tells of how requests are said. Its words only: what they are about comes from
each catalog's schema. All are lower case, as `lexicon.fold` gives text.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Op = Literal["gt", "gte", "lt", "lte"]
Side = Literal["start", "end"]
Concept = Literal[
    "price",
    "rating",
    "year",
    "duration",
    "size",
    "weight",
    "volume",
    "area",
    "storage",
    "distance",
    "clock",
]


class Unit(NamedTuple):
    """What a unit measures, and how many of the concept's smallest or usual one it is: minutes,
    inches, grams, gigabytes, kilometres. Currencies are not converted."""

    concept: Concept
    size: float


@dataclass(frozen=True, slots=True)
class Bound:
    """A phrase beside a number, and the side of it that is meant; of one concept, or of any."""

    phrase: str
    op: Op
    concept: Concept | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How a language says of two attributes which one is meant: of a journey, a day or a life,
    its start or its end. `names` begin the words of an attribute's name; the others stand before
    or after what is meant, or anywhere before a time."""

    names: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """Words of one language. `names` are what attributes of a concept are called, or part of it;
    `units` how large each is, see `Unit`."""

    names: dict[Concept, tuple[str, ...]]
    name_parts: tuple[str, ...]  # of attributes' names, which alone do not tell which one
    units: dict[Concept, dict[str, float]]
    before: tuple[Bound, ...]  # stand before their number
    after: tuple[Bound, ...]
    bound_verbs: tuple[str, ...]  # may stand between a negation and a bound
    multipliers: dict[str, float]  # after digits
    per: tuple[str, ...]  # and a word may stand between a number and a bound behind it
    between: tuple[str, ...]  # before two numbers that `joins` join
    joins: tuple[str, ...]
    decades: tuple[str, ...]  # after two or four digits
    times: dict[str, int]  # of a day, with a name: minutes since midnight
    after_hours: dict[str, Literal["a", "p"]]  # said after an hour: before or after noon
    clock_before: dict[str, Op]  # stand before a time of day
    clock_after: dict[str, Op]
    roughly: tuple[str, ...]  # before or after a time of day
    ways: dict[Side, Way]
    parts_of_day: dict[str, tuple[int, int]]  # from and to, minutes since midnight
    free: tuple[str, ...]
    low: tuple[str, ...]  # of a price, without a number
    high: tuple[str, ...]
    rated: tuple[str, ...]  # well, without a number
    negations: tuple[str, ...]  # before what is not wanted
    fillers: tuple[str, ...]  # may stand between such a word and its object
    waived_before: tuple[str, ...]  # beside what need not be
    waived_after: tuple[str, ...]
    unneeded: tuple[str, ...]  # after what is negated: that need not be, either
    any_of: tuple[str, ...]  # between alternatives
    ands: tuple[str, ...]  # between what is wanted, or not wanted, together
    topics: tuple[str, ...]  # before what something is about, which is no category of it
    perhaps_topics: tuple[str, ...]  # before such, or before what it belongs to
    near_before: tuple[str, ...]  # what stands beside these is a place, not what is wanted
    near_after: tuple[str, ...]
    asides: tuple[str, ...]  # before what is wanted only where nothing else is
    counters: tuple[str, ...]  # may stand between a number and its unit
    similar: tuple[str, ...]  # before the title of an item
    yes: tuple[str, ...]
    no: tuple[str, ...]
    number_words: dict[str, int]
    hundreds: dict[str, int]  # multiply what was said before them
    ordinals: dict[str, int]
    wholes: dict[str, tuple[str, ...]]  # words that stand for several values
    counts: tuple[str, ...]  # patterns with a group for how many
    empty: tuple[str, ...]  # tell nothing of what is wanted, even together
    synonyms: tuple[tuple[str, ...], ...]  # of values and of attributes' names
