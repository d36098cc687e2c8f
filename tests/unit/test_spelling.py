"""Words that nobody knows are mended where the catalog has one a slip away, and only there."""

from collections.abc import Mapping

import pytest

from reclane_worker.intent.spelling import Speller

COUNTS = {
    "comedy": 9,
    "horror": 9,
    "science": 5,
    "fiction": 5,
    "spirited": 1,
    "demons": 3,
    "film": 8,
}
TEXTS = {
    "during": 40,
    "running": 30,
    "shoes": 30,
    "those": 90,
    "guitar": 4,
    "diner": 5,
    "denier": 6,
}
ENGLISH = frozenset({"funny", "would", "running"})


def speller(counts: Mapping[str, int] = COUNTS) -> Speller:
    return Speller(counts, lambda word: TEXTS.get(word, 0), ENGLISH.__contains__)


def mended(text: str) -> str:
    return speller().mended(text)[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a comdey", "a comedy"),  # two in turn
        ("horor", "horror"),  # one missing
        ("horrror", "horror"),  # one too many
        ("comady", "comedy"),  # another vowel
        ("Scinece ficton", "science fiction"),
        ("runing shose", "running shoes"),
        ("flim", "film"),  # short words only where all letters are there
        ("Spirted Away", "spirited Away"),
        ("horor!", "horror!"),
        ("想看horor电影", "想看horor电影"),  # no border, no word
    ],
)
def test_a_word_a_slip_away_is_mended(written: str, meant: str) -> None:
    assert mended(written) == meant


@pytest.mark.parametrize(
    "text",
    [
        "a funny film that would be good",  # what the model knows
        "comedy and horror",  # what the catalog has
        "guitars, films and comedys",  # another number of it
        "lemons",  # demons: the first letter
        "luring",  # during
        "dener",  # diner, denier: it may be one of several
        "hor",
        "filn",
        "comixy",
        "c0medy com-dey x-comdey comdey's",
        "comdeyy",
        "",
    ],
)
def test_other_words_stay_as_they_are(text: str) -> None:
    assert speller().mended(text) == (text, {})


def test_what_is_clearly_more_common_is_meant() -> None:
    counts = {"planet": 99, "plants": 2}
    assert Speller(counts, lambda word: 0, lambda word: False).mended("plantet")[0] == "planet"


def test_what_stood_there_is_told_but_not_of_words_that_were_right_elsewhere() -> None:
    assert speller().mended("Horor or comdey")[1] == {"horror": "horor", "comedy": "comdey"}
    assert speller().mended("horor or Horror") == ("horror or Horror", {})


def test_a_word_of_one_items_text_is_not_meant() -> None:
    assert (
        Speller({}, lambda word: word == "bestrayel", lambda word: False).mended("bestrayal")[0]
        == "bestrayal"
    )


def test_a_text_of_unknown_words_alone_takes_few_looks() -> None:
    looks = 0

    def spread(word: str) -> int:
        nonlocal looks
        looks += 1
        return 0

    Speller({}, spread, lambda word: False).mended("qwzxvb " * 1_000 + "zxcvbn " * 1_000)
    assert looks < 2 * 250
