"""What any recommender must beat: words alone, and what is popular whatever was asked."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from reclane_worker.cases import DEPTH, Case
from reclane_worker.catalog import Catalog
from reclane_worker.item_texts import plain_index
from reclane_worker.metrics import rank_ids
from reclane_worker.taste.interactions import Interactions
from reclane_worker.text import normalise

LIKES: Final = "likes in the interactions"
ANSWERS: Final = "how often an item answers the other requests"

Counts = npt.NDArray[np.float64]


def by_words(catalog: Catalog, cases: Sequence[Case]) -> Iterator[list[str]]:
    """Robertson's BM25 (k1 1.2, b 0.75) over the whole query, unread: whole words and character
    bigrams, without stems, of what is indexed of the items."""
    index = plain_index(catalog)
    for case in cases:
        scores = index.scores([normalise(case.request.query or "")])[0]
        yield rank_ids(scores.numpy(), catalog.ids, DEPTH)


def by_likes(
    catalog: Catalog, cases: Sequence[Case], interactions: Interactions
) -> Iterator[list[str]]:
    """The most liked items, the same for each request."""
    liked = interactions.items[interactions.liked]
    counts = np.bincount(liked, minlength=len(catalog)).astype(np.float64)
    ranking = rank_ids(counts, catalog.ids, DEPTH)
    for _ in cases:
        yield ranking


def by_answers(catalog: Catalog, cases: Sequence[Case]) -> Iterator[list[str]]:
    """The items that answer most of the other requests: a request's own answers tell nothing of
    it. Without interactions no more is known of what people want."""
    counts = np.zeros(len(catalog))
    for case in cases:
        _add(counts, catalog, case.relevant, 1)
    for case in cases:
        _add(counts, catalog, case.relevant, -1)
        yield rank_ids(counts, catalog.ids, DEPTH)
        _add(counts, catalog, case.relevant, 1)


def _add(counts: Counts, catalog: Catalog, items: Collection[str], much: int) -> None:
    counts[catalog.known(items)] += much
