"""What a recommender is measured beside: BM25 by the book."""

from collections.abc import Iterator, Sequence
from typing import Final

from reclane.contract import RecommendRequest
from reclane_worker.catalog import Catalog
from reclane_worker.index.lexical import LexicalBuilder
from reclane_worker.item_texts import ItemTexts
from reclane_worker.metrics import rank_ids
from reclane_worker.text import normalise, terms

_CHUNK: Final = 64


def bm25_rankings(
    catalog: Catalog, requests: Sequence[RecommendRequest], depth: int
) -> Iterator[list[str]]:
    """The `depth` best ids of each request, by the words of its query and of what is indexed of
    the items.

    Robertson's BM25 (k1 1.2, b 0.75) over whole words and character bigrams, without stems.
    """
    builder = LexicalBuilder(terms)
    texts = ItemTexts(catalog)
    for position in range(len(texts)):
        builder.add(texts[position])
    index = builder.build().index(terms, plain=True)
    for start in range(0, len(requests), _CHUNK):
        part = requests[start : start + _CHUNK]
        for scores in index.scores([normalise(one.query or "") for one in part]):
            yield rank_ids(scores.numpy(), catalog.ids, depth)
