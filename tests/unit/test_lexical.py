"""BM25 scores: against the package bm25s, in batches, and at the edges."""

import random

import bm25s
import numpy as np
import pytest
import torch

from reclane_worker.index.lexical import (
    K1,
    LONG,
    SHORT,
    B,
    LexicalBuilder,
    LexicalIndex,
    Postings,
    arrays_of,
    joined,
    restore,
)
from reclane_worker.text import terms

WORDS = [f"w{number}" for number in range(60)]


def count(documents: list[str]) -> Postings:
    builder = LexicalBuilder()
    for document in documents:
        builder.add(document)
    return builder.build()


def build(documents: list[str]) -> LexicalIndex:
    return count(documents).index()


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """200 documents of 1 to 40 words, frequent and rare ones."""
    dice = random.Random(1)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    return [" ".join(dice.choices(WORDS, weights, k=dice.randint(1, 40))) for _ in range(200)]


@pytest.fixture(scope="module")
def index(documents: list[str]) -> LexicalIndex:
    return build(documents)


@pytest.fixture(scope="module")
def queries() -> list[str]:
    dice = random.Random(2)
    return [" ".join(dice.sample(WORDS, dice.randint(1, 8))) for _ in range(50)]


def test_scores_by_the_book_equal_those_of_bm25s(documents: list[str], queries: list[str]) -> None:
    index = count(documents).index(plain=True)
    reference = bm25s.BM25(method="lucene", k1=K1, b=B)
    reference.index([document.split() for document in documents], show_progress=False)
    ours = index.scores(queries)
    assert ours.dtype == torch.float32
    for query, row in zip(queries, ours.numpy(), strict=True):
        # bm25s leaves out the constant factor k1 + 1, as Lucene does since version 8.
        theirs = reference.get_scores(query.split()) * (K1 + 1)
        assert theirs.max() > 0
        np.testing.assert_allclose(row, theirs, atol=1e-4)


def test_a_score_worked_out_by_hand() -> None:
    scores = build(["red fox", "red red dog dog", "blue cat"]).scores(["fox"])[0]
    idf = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    norm = 1.2 * (1 - 0.75 + 0.75 * 2 / (8 / 3))
    assert scores.tolist() == pytest.approx([idf * 2.2 / (1 + norm), 0.0, 0.0])


def told(words: int) -> tuple[list[str], str]:
    """Documents that share common words, one of rare ones; a query of all the common words and one
    of those."""
    common = [f"word{n}" for n in range(words - 1)]
    rare = " ".join(["dragon", *(f"rare{n}" for n in range(30))])
    return [*[" ".join(common)] * 9, rare], " ".join([*common, "dragon"])


def test_in_a_story_one_rare_word_outweighs_many_common_ones() -> None:
    documents, story = told(LONG)
    assert build(documents).scores([story])[0].argmax() == 9
    assert count(documents).index(plain=True).scores([story])[0].argmax() != 9


def test_a_short_query_is_scored_by_the_book() -> None:
    documents, query = told(SHORT)
    plain = count(documents).index(plain=True)
    assert torch.equal(build(documents).scores([query]), plain.scores([query]))


@pytest.mark.parametrize("said", ["红狐", "1984"])
def test_bigrams_and_numbers_count_once_by_their_rarity(said: str) -> None:
    documents, story = told(LONG)
    documents[-1] += " " + said
    alone, of_story = (build(documents).scores([q])[0, -1] for q in (said, f"{story} {said}"))
    without = build(documents).scores([story])[0, -1]
    assert of_story - without == pytest.approx(float(alone), abs=1e-5)


def test_words_are_found_by_their_stems() -> None:
    scores = build(["running shoes", "a runner", "cats"]).scores(["shoe to run in"])[0]
    assert scores[0] > 0
    assert scores[2] == 0


def test_words_by_the_book_are_whole() -> None:
    builder = LexicalBuilder(terms)
    builder.add("running shoes")
    index = builder.build().index(terms, plain=True)
    assert index.scores(["shoes"]).count_nonzero() == 1
    assert index.scores(["shoe"]).count_nonzero() == 0


def test_a_batch_scores_as_each_query_alone(index: LexicalIndex, queries: list[str]) -> None:
    alone = torch.cat([index.scores([query]) for query in queries])
    torch.testing.assert_close(index.scores(queries), alone, rtol=0, atol=1e-6)


def test_a_term_counts_once_however_often_the_query_has_it(index: LexicalIndex) -> None:
    assert torch.equal(index.scores(["w3 w3 W3"]), index.scores(["w3"]))


def test_unknown_terms_score_nothing_and_change_nothing(index: LexicalIndex) -> None:
    assert index.scores(["unheard of"]).count_nonzero() == 0
    assert torch.equal(index.scores(["w3 unheard"]), index.scores(["w3"]))


@pytest.mark.parametrize("queries", [[""], ["?!"], ["", "w3", ""]])
def test_a_query_without_terms_scores_nothing(index: LexicalIndex, queries: list[str]) -> None:
    scores = index.scores(queries)
    assert scores.shape == (len(queries), 200)
    assert scores[0].count_nonzero() == 0


def test_no_queries_give_no_rows(index: LexicalIndex) -> None:
    assert index.scores([]).shape == (0, 200)


def test_an_empty_index_has_no_scores() -> None:
    assert build([]).scores(["a", "b"]).shape == (2, 0)


def test_documents_without_terms_score_nothing() -> None:
    scores = build(["", "?!", "fox"]).scores(["fox"])[0]
    assert scores[:2].count_nonzero() == 0
    assert scores[2] > 0


def test_an_index_of_documents_without_any_term_scores_nothing() -> None:
    assert build(["", "?"]).scores(["fox"]).tolist() == [[0.0, 0.0]]


def test_chinese_is_found_by_its_bigrams() -> None:
    scores = build(["科幻电影", "跑步鞋", "电影音乐"]).scores(["想看一部好看的科幻电影"])[0]
    assert scores[0] > scores[2] > 0
    assert scores[1] == 0


def test_an_index_survives_being_stored(
    documents: list[str], index: LexicalIndex, queries: list[str]
) -> None:
    postings = count(documents)
    again = restore(postings.vocabulary, arrays_of(postings)).index()
    assert torch.equal(again.scores(queries), index.scores(queries))


def test_parts_that_are_joined_score_as_if_they_had_been_counted_at_once(
    documents: list[str], queries: list[str]
) -> None:
    """Bit for bit, with documents left out and others in another order."""
    places = np.random.default_rng(3).permutation(200).astype(np.int32)
    places[places >= 150] = -1
    kept = [documents[row] for row in np.argsort(places)[50:]]
    parts = [count(documents[:120]), count(documents[120:121]), count(documents[121:])]
    index = joined(parts, np.split(places, [120, 121]), 150).index()
    assert torch.equal(index.scores(queries), build(kept).scores(queries))
    assert [index.spread(word) for word in WORDS] == [build(kept).spread(word) for word in WORDS]
