"""Which requests were answered worst, and what was made of them: for people to look at. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reclane_worker.evaluation.measuring import OURS, Answered, Measured

DECIDES: Final = "NDCG@10"
RELEVANT: Final = 8  # of the items that answer a request, the best placed
FIRST: Final = 5
_ROUNDED: Final = 1e-5  # what saving takes from a value is no fall
_BOUNDS: Final = {"gt": "above", "gte": "at least", "lt": "below", "lte": "at most"}


@dataclass(frozen=True, slots=True)
class Placed:
    """An item and its rank, None where it is beyond what was asked for or not in the catalog; and
    whether it answers the request."""

    title: str
    rank: int | None
    right: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One request: how well it was answered, now and, if so compared, before; what was understood,
    where the items came that answer it, of `relevant` many, and what came first."""

    id: str
    query: str
    value: float
    before: float | None
    text: str
    constraints: tuple[str, ...]
    trust: float
    flags: tuple[str, ...]
    relevant: int
    wanted: tuple[Placed, ...]
    first: tuple[Placed, ...]


def worst(one: Measured, count: int, before: Sequence[float] | None) -> list[Case]:
    """The requests with the least NDCG@10, those first whose first right item comes latest."""
    values = one.values[OURS]
    order = sorted(range(len(one.cases)), key=lambda i: (values[DECIDES][i], values["RR"][i]))
    return [_case(one, place, before) for place in order[:count]]


def fallen(one: Measured, count: int, before: Sequence[float]) -> list[Case]:
    """The requests whose NDCG@10 fell most since an earlier run; none that did not fall."""
    values = one.values[OURS][DECIDES]
    lost = {place: before[place] - value for place, value in enumerate(values)}
    order = sorted((place for place in lost if lost[place] > _ROUNDED), key=lambda i: -lost[i])
    return [_case(one, place, before) for place in order[:count]]


def _case(one: Measured, place: int, before: Sequence[float] | None) -> Case:
    case, answered = one.cases[place], one.answers[place]
    intent = answered.intent
    return Case(
        id=case.id,
        query=case.request.query or "",
        value=one.values[OURS][DECIDES][place],
        before=None if before is None else before[place],
        text=intent["text"],
        constraints=tuple(map(constraint_told, intent["constraints"])),
        trust=intent["encoder_trust"],
        flags=tuple(map(_flag, answered.flags)),
        relevant=len(case.relevant),
        wanted=tuple(_wanted(one, case.relevant, answered)),
        first=tuple(
            Placed(_title(one, item), rank, item in case.relevant)
            for rank, item in enumerate(answered.ranking[:FIRST], start=1)
        ),
    )


def _wanted(one: Measured, relevant: frozenset[str], answered: Answered) -> Iterator[Placed]:
    """The items that answer a request, by rank, and then by name."""
    ranks = {item: rank for rank, item in enumerate(answered.ranking, start=1)}
    last = len(ranks) + 1
    for item in sorted(relevant, key=lambda item: (ranks.get(item, last), item))[:RELEVANT]:
        yield Placed(_title(one, item), ranks.get(item), True)


def _title(one: Measured, item: str) -> str:
    position = one.catalog.positions.get(item)
    return f"{item} (not in the catalog)" if position is None else one.catalog.titles[position]


def _flag(flag: Mapping[str, Any]) -> str:
    reasons = "; ".join(flag["reasons"])
    return f"{flag['code']}: {reasons}" if reasons else str(flag["code"])


def constraint_told(constraint: Mapping[str, Any]) -> str:
    """A constraint of an answer's intent in words: `must not: genres is horror ("horror")`."""
    how = "must" if constraint["hard"] else "would rather"
    negated = " not" if constraint["unless"] else ""
    names = " or ".join(constraint["attributes"])
    said = f" (“{constraint['said']}”)" if constraint["said"] else ""
    return f"{how}{negated}: {names} {_condition(constraint['condition'])}{said}"


def _condition(condition: Mapping[str, Any]) -> str:
    given = {name: value for name, value in condition.items() if value is not None}
    if given.keys() == {"gte", "lte"}:
        return f"is {given['gte']:g} to {given['lte']:g}"
    if bounds := [f"{_BOUNDS[name]} {value:g}" for name, value in given.items() if name in _BOUNDS]:
        return "is " + " and ".join(bounds)
    (value,) = given.values()
    values = value if isinstance(value, list | tuple) else (value,)
    return "is " + " or ".join(f"{one:g}" if type(one) is float else str(one) for one in values)
