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
        scripts = Counter(s for s in map(script, text) if s)
        letters = scripts.total()
        if not letters or not tokens:
            return 1.0
        known = sum(n * self._knowledge(name) ** 2 for name, n in scripts.items())
        readable = sum(1 for token in tokens if token != self.unknown) / len(tokens)
        return known / letters * readable

    def readable(self, text: str) -> str:
        """Leave out letters of scripts the model cannot read, unless nothing else remains:
        in a text of two languages they would only blur the vector with unknown tokens."""
        if text.isascii():
            return text
        kept = "".join(
            c if not script(c) or self._knowledge(script(c)) > READABLE else " " for c in text
        )
        return kept if any(script(c) for c in kept) else text

    def _knowledge(self, name: str) -> float:
        return self.scripts.get(name, 0.0)
