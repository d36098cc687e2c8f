"""What a long text says beyond what the model takes, cut into passages that it can take."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import regex

from reclane_worker.encoder import Encoder
from reclane_worker.text import normalise

MOST: Final = 7  # further passages of one item: with the first, eight times what the model takes
_SENTENCE: Final = regex.compile(  # in normalised text, where ！ and ？ are ! and ?
    r"\S.*?(?:[。!?]+[\"'”’」』)\]]*|\.+[\"'”’」』)\]]*(?=\s|$)|$)", regex.DOTALL
)


def heading(title: str, fields: Sequence[str]) -> str:
    """What an item's further passages begin with: its title, where that is encoded at all."""
    return normalise(title) if "title" in fields else ""


def cut(text: str, heading: str, encoder: Encoder) -> list[str]:
    """The further passages of a normalised text of which the model takes only the beginning:
    consecutive, each after the heading, and all that it takes.

    A passage ends with a sentence where one ends in its second half; the first begins with the
    sentence that the model's limit cuts in two. A heading of more than half a passage is left out.
    """
    limit = encoder.max_tokens
    if limit is None:
        return []
    pieces, ends = _pieces(text, max(8, limit // 2))
    opening = f"{heading}. " if heading else ""
    around, first, *each = map(
        len, encoder.tokenise(["a", f"a {opening}", *(text[a:b] for a, b in pieces)], "document")
    )
    around -= 1  # a prompt, special tokens
    room = limit - around
    counts = [tokens - around for tokens in each]
    spent = first - around - 1
    if 2 * spent > room:
        opening, spent = "", 0
    found = windows(counts, ends, room, room - spent)
    return [opening + text[pieces[a][0] : pieces[b - 1][1]] for a, b in found[1 : MOST + 1]]


def windows(
    counts: Sequence[int], ends: Sequence[bool], first: int, other: int
) -> list[tuple[int, int]]:
    """Cut pieces of so many tokens into runs, (start, end), of at most `first` tokens and then of
    `other`, or of a single piece. `ends` tells which pieces end a sentence: so does a run, where
    one ends in its second half."""
    sums = list(accumulate(counts, initial=0))
    found: list[tuple[int, int]] = []
    start, room = 0, first
    while start < len(counts):
        end = start + 1
        while end < len(counts) and sums[end + 1] - sums[start] <= room:
            end += 1
        if end < len(counts):
            half = sums[start] + room / 2
            border = (at for at in range(end, start, -1) if ends[at - 1] and sums[at] >= half)
            end = next(border, end)
        found.append((start, end))
        start, room = end, other
    return found


def _pieces(text: str, longest: int) -> tuple[list[tuple[int, int]], list[bool]]:
    """Where the sentences of a text lie, those of more than `longest` letters in pieces cut at
    spaces or, without any, anywhere; and whether a sentence ends with each piece."""
    piece = regex.compile(rf"\S.{{0,{longest - 1}}}(?=\s|$)|\S{{1,{longest}}}", regex.DOTALL)
    pieces: list[tuple[int, int]] = []
    ends: list[bool] = []
    for sentence in _SENTENCE.finditer(text):
        found = [one.span() for one in piece.finditer(text, *sentence.span())]
        pieces += found
        ends += [False] * (len(found) - 1) + [True]
    return pieces, ends
