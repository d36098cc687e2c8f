"""What a model can read: how far to trust its vector of a text, and what to leave out. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reclane_worker.text import script

READABLE: Final = 0.5  # knowledge of a script above which its letters are kept


@dataclass(frozen=True, slots=True)
class Literacy:
    """How well a model knows each script, 0 to 1, any other not at all; and the token that stands
    for what its vocabulary lacks."""

    scripts: Mapping[str, float]
    unknown: int | None

    def trust(self, text: str, tokens: list[int]) -> float:
        """Mean over letters of the knowledge of their script squared, times the share of tokens
        that are not unknown. By script only: French under an English model counts as known."""
        letters = known = 0.0
        for letter, count in Counter(text).items():  # each letter once: texts may be long
            if name := script(letter):
                letters += count
                known += count * self._knowledge(name) ** 2
        if not letters or not tokens:
            return 1.0
        unread = tokens.count(self.unknown) if self.unknown is not None else 0
        return known / letters * (1 - unread / len(tokens))

    def readable(self, text: str) -> str:
        """Leave out letters of scripts the model cannot read, unless nothing else remains:
        in a text of two languages they would only blur the vector with unknown tokens."""
        if text.isascii():
            return text
        scripts = {letter: name for letter in set(text) if (name := script(letter))}
        dark = [letter for letter, name in scripts.items() if self._knowledge(name) <= READABLE]
        if len(dark) == len(scripts):
            return text
        return text.translate(dict.fromkeys(map(ord, dark), " "))

    def _knowledge(self, name: str) -> float:
        return self.scripts.get(name, 0.0)
