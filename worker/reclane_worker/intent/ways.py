"""Which of two attributes is meant where one tells a start and the other an end: from where and to
where, leaving and arriving. Pure."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from reclane_worker.intent.languages import Side, Way, alternatives, words
from reclane_worker.intent.lexicon import ending, fold

_REACH: Final = 24  # characters before a value in which words of it stand
_SIDES: Final[tuple[Side, ...]] = ("start", "end")
_SHORT: Final = 3  # letters: a name's word of so many must be the same, longer ones may go on
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|[_\W]+")


@lru_cache(maxsize=4_096)
def side_of(name: str, aliases: tuple[str, ...] = ()) -> Side | None:
    """What an attribute of this name tells: a start, an end, or neither."""
    parts = [fold(part) for called in (name, *aliases) for part in _CAMEL.split(called) if part]
    for part in parts:
        for side in _SIDES:
            if any(_begins(part, stem) for stem in _words(side, lambda way: way.names)):
                return side
    return None


def _begins(part: str, stem: str) -> bool:
    return part == stem or (part.startswith(stem) and (len(stem) > _SHORT or not stem.isascii()))


def side_said(text: str, start: int, end: int) -> tuple[Side | None, int]:
    """Which one is meant by folded text[start:end]: by the words before it, else those after; and
    where all that begins."""
    first = max(0, start - _REACH)
    before = text[first:start].rstrip()
    before = before.removesuffix(ending(before, _ARTICLES)).rstrip()
    if phrase := ending(before, _BEFORE):
        return _SAID[phrase], first + len(before) - len(phrase)
    return ("start" if _FOLLOWED.match(text, end) else None), start


def verb_before(text: str, at: int) -> tuple[Side, int] | None:
    """Which one the last verb of going or coming before `at` says, else the first one after, and
    where it ends."""
    last: tuple[Side, int] | None = None
    for found in _VERBS.finditer(text):
        if last is not None and found.start() >= at:
            break
        last = _VERB[found[0]], found.end()
    return last


def _words(side: Side, take: Callable[[Way], Iterable[str]]) -> tuple[str, ...]:
    return words(lambda language: take(language.ways[side]))


def _sides(take: Callable[[Way], Iterable[str]]) -> dict[str, Side]:
    return {word: side for side in _SIDES for word in _words(side, take)}


_ARTICLES: Final = ("the",)
_SAID: Final = _sides(lambda way: way.before)
_BEFORE: Final = tuple(sorted(_SAID, key=len, reverse=True))
_FOLLOWED: Final = re.compile(rf"\s*(?:{alternatives(_words('start', lambda way: way.after))})")
_VERB: Final = _sides(lambda way: way.verbs)
VERBS: Final = tuple(_VERB)
_VERBS: Final = re.compile(alternatives(_VERB))
