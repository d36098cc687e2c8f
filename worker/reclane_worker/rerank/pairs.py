"""Request and item as one sequence of tokens, of which neither can steer the model.

What either says is data. Their texts are tokenised apart from what stands around them, and any
token of theirs that means something to the model beside its letters is dropped.
"""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from reclane.errors import ModelUnusable
from reclane_worker.encoder import KNOWN_SCRIPT_PIECES, Tokens, pieces_by_script
from reclane_worker.literacy import Literacy
from reclane_worker.text import normalise

MAX_TOKENS: Final = 512  # of a pair, also where the model takes more: what counts comes first
MIN_ROOM: Final = 8
ITEM_SHARE: Final = 0.4
_LONGEST_PIECE: Final = 12  # letters: longer texts are cut before they are tokenised
_STEERING: Final = re.compile(r"[<>]|\[/?INST\]")  # of prompts: their marks, where they are letters


class Pair(NamedTuple):
    """Tokens and, for each, a mark: 1 + its segment. 0 is left for padding."""

    tokens: Tokens
    marks: list[int]


@dataclass(frozen=True, slots=True)
class Template:
    """What stands before a request, between it and an item, and after that; and their marks."""

    before: Pair
    between: Pair
    after: Pair
    request_mark: int = 1
    item_mark: int = 1

    def __len__(self) -> int:
        return len(self.before.tokens) + len(self.between.tokens) + len(self.after.tokens)

    def fill(self, request: Sequence[int], item: Sequence[int]) -> Pair:
        """The whole sequence."""
        before, between, after = self.before, self.between, self.after
        return Pair(
            [*before.tokens, *request, *between.tokens, *item, *after.tokens],
            [
                *(*before.marks, *[self.request_mark] * len(request)),
                *(*between.marks, *[self.item_mark] * len(item), *after.marks),
            ],
        )


class Pairing:
    """Makes pairs of at most `most` tokens for one model. For several threads."""

    def __init__(self, tokenizer: Any, template: Template, most: int) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # a tokenizer changes itself while it works
        self._template = template
        self._most = min(most, MAX_TOKENS)
        self._room = self._most - len(template)
        if self._room < MIN_ROOM:
            raise ModelUnusable(
                f"the reranker takes {most} tokens, {len(template)} of which the prompt needs; "
                "set RECLANE_RERANKER to a model that takes more"
            )
        self._steering = steering_tokens(tokenizer)
        pieces = pieces_by_script(tokenizer)
        self._literacy = Literacy(
            {name: min(1.0, count / KNOWN_SCRIPT_PIECES) for name, count in pieces.items()},
            tokenizer.unk_token_id,
        )

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of texts, without any that would steer the model."""
        if not texts:
            return []
        read = [as_data(text[: self._most * _LONGEST_PIECE]) for text in texts]
        with self._lock:
            encoded = self._tokenizer(
                read,
                add_special_tokens=False,
                truncation=True,
                max_length=self._most,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        return [[one for one in ids if one not in self._steering] for ids in encoded["input_ids"]]

    def trust(self, text: str, tokens: Tokens) -> float:
        """0 to 1: how far the model can read this text's scripts."""
        return self._literacy.trust(text, tokens)

    def cut(self, request: int, item: int) -> tuple[int, int]:
        """How much fits of so many tokens of each. The request comes first; of the room ITEM_SHARE
        is the item's, as far as it needs it."""
        kept = min(item, int(ITEM_SHARE * self._room))
        request = min(request, self._room - kept)
        return request, min(item, self._room - request)

    def length(self, request: int, item: int) -> int:
        """Tokens of the pair of so many of each."""
        return len(self._template) + sum(self.cut(request, item))

    def pair(self, request: Sequence[int], item: Sequence[int]) -> Pair:
        """One sequence for the model, whatever the lengths."""
        of_request, of_item = self.cut(len(request), len(item))
        return self._template.fill(request[:of_request], item[:of_item])


def as_data(text: str) -> str:
    """A text in one line, without the marks by which prompts are made."""
    return " ".join(_STEERING.sub(" ", normalise(text)).split())


def steering_tokens(tokenizer: Any) -> frozenset[int]:
    """Tokens that text must not become: all that were added to the vocabulary, and those that
    begin, end, pad or part texts. The one for what a vocabulary lacks is harmless."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    roles = ("bos", "eos", "pad", "cls", "sep", "mask")
    others = {getattr(tokenizer, f"{role}_token_id", None) for role in roles}
    return frozenset(special - ({tokenizer.unk_token_id} - others))


def pair_template(tokenizer: Any) -> Template:
    """How a model's own tokenizer joins two texts, seen on an example.

    Raises:
        ModelUnusable: the two texts cannot be found in what it makes of them.
    """
    first, second = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in _EXAMPLE)
    whole = tokenizer(*_EXAMPLE, return_token_type_ids=True)
    tokens: Tokens = whole["input_ids"]
    marks = [1 + one for one in whole.get("token_type_ids") or [0] * len(tokens)]
    begin = _find(first, tokens, 0)
    middle = _find(second, tokens, begin + len(first))
    end = middle + len(second)

    def part(*where: int | None) -> Pair:
        return Pair(tokens[slice(*where)], marks[slice(*where)])

    return Template(
        part(None, begin),
        part(begin + len(first), middle),
        part(end, None),
        marks[begin],
        marks[middle],
    )


_EXAMPLE: Final = ("request", "item")


def _find(part: Tokens, whole: Tokens, start: int) -> int:
    for at in range(start, len(whole) - len(part) + 1):
        if part and whole[at : at + len(part)] == part:
            return at
    raise ModelUnusable(
        "the reranker's tokenizer does not join two texts; set RECLANE_RERANKER to a cross-encoder"
    )
