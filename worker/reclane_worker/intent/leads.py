"""What the words beside a phrase say of it: not, about, near, need not be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reclane_worker.intent.languages import Language, words
from reclane_worker.intent.lexicon import Span, ending

_BESIDE: Final = 24  # characters in which a word that changes a value's meaning stands
_MOST_FILLERS: Final = 3


@dataclass(frozen=True, slots=True)
class Lead:
    """What words before a phrase say of it, and where they begin."""

    said: frozenset[str]
    start: int


def lead_of(text: str, at: int) -> Lead:
    """What the word before `at` says of what follows it, fillers aside: `not`, `about`, `near`,
    `aside`."""
    first = max(0, at - _BESIDE)
    before = text[first:at]
    lead = Lead(frozenset(), at)
    for _ in range(1 + _MOST_FILLERS):
        before = before.rstrip(" -")
        if word := ending(before, _LEADING):
            if "not" in _LEADS[word] or not lead.said:
                lead = Lead(_LEADS[word], first + len(before) - len(word))
            if "perhaps about" not in lead.said:
                break
            before = before.removesuffix(word)  # `not on monday`
        elif word := ending(before, _FILLERS):
            before = before.removesuffix(word)
        else:
            break
    return lead


def is_waived(text: str, span: Span[Any]) -> bool:
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


def is_unneeded(text: str, span: Span[Any], lead: Lead) -> bool:
    """Whether it is said of a feature that none is needed."""
    return "not" in lead.said and text[span.end :].lstrip().startswith(_UNNEEDED)


def joined(text: str, end: int, start: int, after: int, words: frozenset[str]) -> bool:
    """Whether one of these words joins what ends and what starts there, which reaches to `after`:
    `north or in the east`, `thai food or indian food`."""
    between = text[end:start].strip()
    if between in words:
        return True
    parts = between.split()
    while len(parts) > 1 and parts[-1] in _PREPOSITIONS:
        parts.pop()
    if len(parts) == 2 and text[after:].lstrip().startswith(parts[0]):
        parts = parts[1:]
    return len(parts) == 1 and parts[0] in words


def inside(at: int, taken: Sequence[tuple[int, int]]) -> bool:
    return any(start <= at < end for start, end in taken)


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
_PREPOSITIONS: Final = frozenset(
    (
        *_FILLERS,
        *words(lambda one: one.perhaps_topics),
        *words(lambda one: (word for way in one.ways.values() for word in way.before)),
    )
)
ALTERNATIVES: Final = frozenset(words(lambda one: one.any_of))
OR: Final = ALTERNATIVES - {",", "、", "/"}
COMMA: Final = frozenset({",", "、"})
TOGETHER: Final = OR | frozenset(words(lambda one: one.ands))
