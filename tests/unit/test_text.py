"""Cleaning text, lexical terms in several scripts, and which script a letter is in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclane_worker.text import normalise, script, spoken, terms


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("", ""),
        (" \t\n ", ""),
        ("  a \n\t b  ", "a b"),
        ("ＡＢＣ１２３", "ABC123"),
        ("ﬁlm", "film"),
        ("e\u0301", "é"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("&lt;b&gt;", "<b>"),
        ("caf&eacute;", "café"),
        ("a\u200bb\ufeffc\u2060d", "abcd"),
        ("run\u00adning \u202eshoes\u202c", "running shoes"),
        ("❤\ufe0f", "❤"),
        ("a\x00b\x07c\x7fd", "abcd"),
        ("a\u3000b\u00a0c\u2028d", "a b c d"),
        ("line\r\nnext", "line next"),
        ("科幻　电影", "科幻 电影"),
    ],
)
def test_text_is_cleaned(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@pytest.mark.parametrize("text", ["Tom & Jerry", "ﬁlm  ＡＢ", "科幻　电影", "a\u200bb", "İ ß Σ"])
def test_cleaning_clean_text_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize("separator", ["\r", "\v", "\f"])
def test_a_control_character_that_is_a_space_parts_words(separator: str) -> None:
    assert normalise(f"heat{separator}alien") == "heat alien"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("?! — …", []),
        ("Running SHOES", ["running", "shoes"]),
        ("sci-fi, 2001!", ["sci", "fi", "2001"]),
        ("don't stop", ["don", "t", "stop"]),
        ("naïve Ünïcode", ["naïve", "ünïcode"]),
        ("a a", ["a", "a"]),
        ("Привет мир", ["привет", "мир"]),
        ("한국 영화", ["한국", "영화"]),
        ("科", ["科"]),
        ("科幻", ["科幻"]),
        ("科幻电影", ["科幻", "幻电", "电影"]),
        ("科幻，电影", ["科幻", "电影"]),
        ("好看 的", ["好看", "的"]),
        ("スターウォーズ", ["スタ", "ター", "ーウ", "ウォ", "ォー", "ーズ"]),
        ("看3D电影吗", ["看", "3d", "电影", "影吗"]),
        ("iphone手机case", ["iphone", "手机", "case"]),
        ("𠮷野家", ["𠮷野", "野家"]),
    ],
)
def test_terms_are_words_or_bigrams_of_unspaced_scripts(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(st.text(alphabet=st.characters(max_codepoint=0x7F)))
def test_ascii_is_read_as_other_text_is(text: str) -> None:
    assert terms(text) == terms(f"{text} é")[:-1]


def test_thai_becomes_bigrams_not_one_long_word() -> None:
    found = terms("หนังวิทยาศาสตร์")
    assert {"หน", "ทย", "สต"} <= set(found)
    assert max(map(len, found)) == 2


def test_a_query_in_thai_shares_terms_with_a_title_that_contains_it() -> None:
    title = set(terms("ดูหนังวิทยาศาสตร์สนุก"))
    assert set(terms("วิทยาศาสตร์")) & title
    assert not set(terms("กาแฟ")) & title


@pytest.mark.parametrize("word", ["हिन्दी", "विज्ञान", "தமிழ்", "مَدرسة"])
def test_a_word_with_combining_marks_is_one_term(word: str) -> None:
    assert terms(word) == [word]


@pytest.mark.parametrize(
    ("letter", "expected"),
    [
        ("a", "LATIN"),
        ("é", "LATIN"),
        ("я", "CYRILLIC"),
        ("科", "CJK"),
        ("𠮷", "CJK"),
        ("の", "HIRAGANA"),
        ("カ", "KATAKANA"),
        ("ー", "KATAKANA"),
        ("한", "HANGUL"),
        ("ท", "THAI"),
        ("ا", "ARABIC"),
        ("1", ""),
        (" ", ""),
        ("!", ""),
        ("😀", ""),
    ],
)
def test_a_letter_has_a_script_and_nothing_else_has(letter: str, expected: str) -> None:
    assert script(letter) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("👟", "athletic shoe"),
        ("🎹 🎹🎸", "musical keyboard guitar"),
        ("👩👧", "woman girl"),
        ("shoes 👟", "shoes 👟"),
        ("科幻 🚀", "科幻 🚀"),
        ("5 👟", "5 👟"),
        ("🇯🇵", "🇯🇵"),
        ("?!", "?!"),
        ("。。。", "。。。"),
        ("", ""),
    ],
)
def test_symbols_alone_are_called_by_their_names(text: str, said: str) -> None:
    assert spoken(text) == said
