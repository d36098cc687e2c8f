"""Phrases are found where a plain search at every place finds them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclane_worker.intent.lexicon import Lexicon, fold, is_border

PHRASES = [
    "tv",
    "a座",
    "wi-fi",
    "new york",
    "new york city",
    "york",
    "c++",
    "科幻",
    "科幻电影",
    "5g",
    "+1",
    "ok",
    "straße",
    "o'neill",
    "u_v",
    "x y",
]
KNOWN = {
    *map(fold, PHRASES),
    *(fold(phrase) + "s" for phrase in PHRASES if phrase[-1].isascii() and phrase[-1].isalpha()),
    "wi fi",
}
PIECES = [*PHRASES, *"abs -_+'.1个座科幻é\u0301", "newyork", "tvs", "york's", "ｔｖ"]


def searched(text: str) -> list[tuple[int, int]]:
    """From left to right the longest known phrase between two borders."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(text):
        ends = (
            end
            for end in range(len(text), at + 1, -1)
            if text[at:end] in KNOWN and is_border(text, at) and is_border(text, end)
        )
        end = next(ends, None)
        if end is not None:
            found.append((at, end))
        at = end or at + 1
    return found


lexicon = Lexicon((phrase, phrase) for phrase in PHRASES)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_phrases_are_found_wherever_words_have_borders(text: str) -> None:
    text = fold(text)
    assert [(one.start, one.end) for one in lexicon.find(text)] == searched(text)
    for start in range(len(text)):
        one = lexicon.at(text, start)
        beginning = [end for at, end in searched(text[start:]) if at == 0]
        if is_border(text, start):
            assert ([one.end - start] if one else []) == beginning
        else:
            assert one is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a tv and tvs", ["tv", "tv"]),
        ("stv tvx", []),
        ("new york city of new york", ["new york city", "new york"]),
        ("wifi wi fi", ["wi-fi"]),
        ("科幻电影和科幻", ["科幻电影", "科幻"]),
        ("在a座", ["a座"]),
        ("ba座", []),
        ("c++ +1", ["c++", "+1"]),
    ],
)
def test_a_phrase_is_a_word_of_its_own(text: str, said: list[str]) -> None:
    assert [one.found[0] for one in lexicon.find(text)] == said


def test_phrases_inside_others_are_told_too() -> None:
    assert list(lexicon.inside("new york city")) == [("new york city",), ("new york",), ("york",)]
