"""Words of a request that nobody knows, as the catalog spells them: one slip away. Pure.

Slips are those that people make (Damerau 1964), after the first letter: two letters in turn, one
missing, one too many, a vowel for another. With any letter for any other, `lemons` would be demons.
All that may be meant is looked up, where SymSpell (Garbe) looks deletions up in an index: that is
some two hundred words, it takes no memory, and only unknown words are tried.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from string import ascii_lowercase
from typing import Final

from reclane_worker.text import stems

SHORTEST: Final = 5  # letters: of shorter words too many are one slip away from another
TURNED: Final = 4  # but for those with two letters in turn
LONGEST: Final = 24
SEVERAL: Final = 2  # items that have a word in their text: of one it may be a slip itself
CLEARLY: Final = 10  # times as many items have the word as any other that may be meant
_VOWELS: Final = "aeiouy"
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
        # A cache around a method would hold the index of a catalog that is gone: `uncollected`.
        self._meant: dict[str, str] = {}

    def mended(self, text: str) -> tuple[str, dict[str, str]]:
        """A text with its misspelt words mended, and those: what is meant, where it stood nowhere
        as such -> what stood there."""
        slips = {word: self._meaning(word) for word in map(str.lower, _WORD.findall(text))}
        if not any(slips.values()):
            return text, {}
        mended = _WORD.sub(lambda found: slips[found[0].lower()] or found[0], text)
        return mended, {
            meant: word for word, meant in slips.items() if meant and meant not in slips
        }

    def _meaning(self, word: str) -> str:
        meant = self._meant.get(word)
        if meant is None:
            if len(self._meant) >= _REMEMBERED:
                self._meant.clear()
            meant = self._meant[word] = self._look_up(word)
        return meant

    def _look_up(self, word: str) -> str:
        """The word that is meant; "" where it is right, or nothing clear is meant."""
        other_number = word[:-1] if word.endswith("s") else word + "s"
        here = any(self._counts.get(one) or self._spread(one) for one in (word, other_number))
        if here or self._known(word):
            return ""
        return self._clearest(_turned(word)) or self._clearest(_one_edit(word))

    def _clearest(self, words: Iterable[str]) -> str:
        near = {word: count for word in words if (count := self._items_with(word))}
        first, *others = sorted(near, key=lambda word: -near[word])[:2] or [""]
        return "" if others and near[first] < CLEARLY * near[others[0]] else first

    def _items_with(self, word: str) -> int:
        """Texts are counted by stems: that of `theing` is `the`, and yet it is no word."""
        is_word = stems(word)[0] in (word, word.removesuffix("s")) or self._known(word)
        spread = self._spread(word) if is_word else 0
        return max(self._counts.get(word, 0), spread if spread >= SEVERAL else 0)


def _turned(word: str) -> Iterator[str]:
    """What is meant where two neighbours are in turn: the slip that leaves all letters there."""
    for at in range(1, len(word) - 1):
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _one_edit(word: str) -> Iterator[str]:
    """What is meant where a letter is missing, too many, or another vowel; nothing of a short word.
    The last letter is one too many only where it is double: else it may be an ending."""
    for at in range(1, len(word) + 1) if len(word) >= SHORTEST else ():
        left, right = word[:at], word[at:]
        for letter in ascii_lowercase:
            yield left + letter + right
        if len(right) > 1 or right == left[-1]:
            yield left + right[1:]
        if len(right) > 1 and right[0] in _VOWELS:
            for letter in _VOWELS:
                yield left + letter + right[1:]
