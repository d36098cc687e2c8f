"""Words of a request that nobody knows, as the catalog spells them: one slip away. Pure.

A slip is a letter less, more or other, or two in turn (Damerau 1964). All spellings one slip away
are looked up, where SymSpell (Garbe) looks deletions up in an index: a word has some hundreds, they
take no memory, and only unknown words are tried.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from string import ascii_lowercase
from typing import Final

SHORTEST: Final = 5  # letters: of shorter words too many are one slip away from another
TURNED: Final = 4  # but for those with two letters in turn
LONGEST: Final = 24
MAX_UNKNOWN: Final = 16  # words of one text that are looked up
CLEARLY: Final = 10  # times as many items have the word as any other that may be meant
_REMEMBERED: Final = 16_384
_WORD: Final = re.compile(rf"(?<![\w'-])[A-Za-z]{{{TURNED},{LONGEST}}}(?![\w'-])")


class Speller:
    """Mends words of Latin letters for one catalog.

    `counts` are words of its attributes and titles, with how many items have each; `spread` tells
    that of a word in the items' texts, and `known` whether a word that no item has is one all the
    same.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        spread: Callable[[str], int],
        known: Callable[[str], bool],
    ) -> None:
        self._counts = counts
        self._spread = spread
        self._known = known
        self._meant = lru_cache(_REMEMBERED)(self._look_up)

    def mended(self, text: str, reach: int) -> tuple[str, dict[str, str]]:
        """A text with misspelt words mended that begin within `reach` characters, and those words:
        what is meant, where it stood nowhere as such -> what stood there."""
        slips: dict[str, str] = {}
        parts, end = [], 0
        for start, stop, meant in self._slips(text, reach):
            slips[meant] = text[start:stop].lower()
            parts += [text[end:start], meant]
            end = stop
        if not slips:
            return text, slips
        stood = {word.lower() for word in _WORD.findall(text)}
        new = {meant: word for meant, word in slips.items() if meant not in stood}
        return "".join([*parts, text[end:]]), new

    def _slips(self, text: str, reach: int) -> Iterator[tuple[int, int, str]]:
        unknown = 0
        for found in _WORD.finditer(text):
            if found.start() >= reach or unknown == MAX_UNKNOWN:
                return
            meant = self._meant(found[0].lower())
            if meant is not None:
                unknown += 1
            if meant:
                yield found.start(), found.end(), meant

    def _look_up(self, word: str) -> str | None:
        """The word that is meant; "" where none is, or it may be one of several; None for a word
        of the catalog."""
        if self._items_with(word):
            return None
        other_number = word[:-1] if word.endswith("s") else word + "s"
        if self._known(word) or self._items_with(other_number):
            return ""
        return self._clearest(_turned(word)) or self._clearest(_one_edit(word))

    def _clearest(self, words: Iterable[str]) -> str:
        near = {word: count for word in words if (count := self._items_with(word))}
        first, *others = sorted(near, key=lambda word: -near[word])[:2] or [""]
        return "" if others and near[first] < CLEARLY * near[others[0]] else first

    def _items_with(self, word: str) -> int:
        return max(self._counts.get(word, 0), self._spread(word))


def _turned(word: str) -> Iterator[str]:
    """All words with two neighbours in turn: the slip that leaves all letters there."""
    for at in range(len(word) - 1):
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _one_edit(word: str) -> Iterator[str]:
    """All words with one letter less, more or other; none of a short one."""
    for at in range(len(word) + 1) if len(word) >= SHORTEST else ():
        left, right = word[:at], word[at:]
        yield left + right[1:]
        for letter in ascii_lowercase:
            yield left + letter + right
            yield left + letter + right[1:]
