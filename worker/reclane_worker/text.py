"""Text before any model sees it: clean-up, lexical terms, and which script a letter is in. Pure."""

import html
import re
import threading
import unicodedata
from functools import lru_cache
from typing import Final

import regex
import Stemmer

# Scripts written without spaces between words get character bigrams; others whole words.
UNSPACED: Final = (  # as in a character class of a pattern
    "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u30ff\u31f0-\u31ff"  # kana
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
)
_UNSPACED: Final = re.compile(f"[{UNSPACED}]+")
_WORD: Final = regex.compile(r"[\w\p{M}]+")  # a combining mark belongs to its word
_ASCII_WORD: Final = re.compile(r"\w+", re.ASCII)
_FLAG_LETTERS: Final = frozenset(map(chr, range(0x1F1E6, 0x1F200)))  # nothing but letters by name
_TELLING: Final = re.compile(r"[^\W_]")
_INVISIBLE: Final = re.compile(
    "[\u0000-\u0008\u000e-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]"
)


def normalise(text: str) -> str:
    """Unicode NFKC, HTML entities resolved, invisible characters and runs of space removed."""
    text = unicodedata.normalize("NFKC", html.unescape(text))
    return " ".join(_INVISIBLE.sub("", text).split())


def terms(text: str) -> list[str]:
    """Lexical terms of normalised text: lower-case words, or bigrams of unspaced scripts."""
    text = text.lower()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    found: list[str] = []
    for word in _WORD.findall(text):
        end = 0
        for run in _UNSPACED.finditer(word):
            if run.start() > end:
                found.append(word[end : run.start()])
            found.extend(_bigrams(run.group()))
            end = run.end()
        if end < len(word):
            found.append(word[end:])
    return found


def stems(text: str) -> list[str]:
    """`terms`, words in Latin letters cut to their stems (Snowball's for English): who asks for a
    shoe finds shoes. Other languages' words are cut alike on both sides, which does little harm."""
    found: list[str] = _stemming.stemmer.stemWords(terms(text))
    return found


class _Stemming(threading.local):
    """A stemmer keeps state, so each thread has its own."""

    def __init__(self) -> None:
        self.stemmer = Stemmer.Stemmer("english")


_stemming: Final = _Stemming()


def has_word(text: str) -> bool:
    """Whether a text has a letter or digit at all."""
    return _TELLING.search(text) is not None


def spoken(text: str) -> str:
    """A text of symbols alone by their names, each once: of an athletic shoe, `athletic shoe`. Any
    other text as it is."""
    if has_word(text):
        return text
    symbols = [c for c in text if unicodedata.category(c) == "So" and c not in _FLAG_LETTERS]
    names = dict.fromkeys(unicodedata.name(symbol, "").lower() for symbol in symbols)
    return " ".join(filter(None, names)) or text


def _bigrams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


@lru_cache(maxsize=65_536)
def script(letter: str) -> str:
    """The script of one character by its Unicode name (LATIN, CJK, ...); '' if not a letter."""
    if not letter.isalpha():
        return ""
    return unicodedata.name(letter, "UNKNOWN").split(" ", 1)[0].split("-", 1)[0]


def is_unspaced(letter: str) -> bool:
    """Whether a letter belongs to a script that is written without spaces between words."""
    return _UNSPACED.match(letter) is not None
