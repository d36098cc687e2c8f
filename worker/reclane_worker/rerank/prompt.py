"""What a causal model is asked, and which of its tokens say yes and no.

The words are those that Qwen3-Reranker was trained with (Zhang et al. 2025, Qwen3 Embedding); any
model that follows instructions understands them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from reclane.errors import ModelUnusable
from reclane_worker.encoder import Tokens
from reclane_worker.rerank.pairs import Pair, Template

SYSTEM: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
USER: Final = (
    "<Instruct>: Given what a person asks for, judge whether the item fits it\n"
    "<Query>: {request}\n<Document>: {item}"
)
_REQUEST, _ITEM = "\ue000", "\ue001"  # stand for the texts: no prompt has these letters
YES: Final = ("yes", "Yes")
NO: Final = ("no", "No")


def prompt_template(tokenizer: Any) -> tuple[Template, list[int], list[int]]:
    """The prompt around request and item, and the tokens that say yes, and no, after it.

    Raises:
        ModelUnusable: the model's chat template or tokenizer does not allow that.
    """
    chats = bool(getattr(tokenizer, "chat_template", None))
    prompt = _chat(tokenizer) if chats else f"{SYSTEM}\n\n{_user()}\n\nAnswer:"
    before, found, rest = prompt.partition(_REQUEST)
    between, also, after = rest.partition(_ITEM)
    if not (found and also and after):
        raise ModelUnusable(
            "the reranker's chat template does not show what a user says; set RECLANE_RERANKER to "
            "a model that follows instructions"
        )
    read = _reader(tokenizer)
    start = [] if chats else _start(tokenizer)
    template = Template(_part([*start, *read(before)]), _part(read(between)), _part(read(after)))
    lead = "" if chats else " "
    yes, no = (sorted({*_next(read, after, lead, words, tokenizer)}) for words in (YES, NO))
    if not yes or not no or set(yes) & set(no):
        raise ModelUnusable(
            "the reranker's tokenizer has no tokens that tell yes from no; set RECLANE_RERANKER "
            "to another causal model, or to a cross-encoder"
        )
    return template, yes, no


def _user() -> str:
    return USER.format(request=_REQUEST, item=_ITEM)


def _chat(tokenizer: Any) -> str:
    """The prompt by the model's chat template; some know no system, some think aloud."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": _user()}]
    together = [{"role": "user", "content": f"{SYSTEM}\n{_user()}"}]
    for said in (messages, together):
        with suppress(Exception):  # a template raises what it likes
            shown = tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            if SYSTEM in shown:
                return str(shown)
    return ""


def _reader(tokenizer: Any) -> Callable[[str], Tokens]:
    def read(text: str) -> Tokens:
        ids: Tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return read


def _start(tokenizer: Any) -> Tokens:
    """The token that begins every text, where the tokenizer puts one."""
    ids: Tokens = tokenizer("a")["input_ids"]
    return ids[:1] if tokenizer.bos_token_id in ids[:1] else []


def _part(tokens: Tokens) -> Pair:
    return Pair(tokens, [1] * len(tokens))


def _next(
    read: Callable[[str], Tokens], after: str, lead: str, words: Sequence[str], tokenizer: Any
) -> Iterator[int]:
    """The first token of each word where it follows the prompt, if it tells of the word."""
    known = read(after)
    for word in words:
        whole = read(after + lead + word)
        follows = whole[: len(known)] == known and len(whole) > len(known)
        first = whole[len(known)] if follows else next(iter(read(lead + word)), None)
        shown = "" if first is None else tokenizer.decode([first]).strip().lower()
        if first is not None and shown and word.lower().startswith(shown):
            yield first
