"""What is encoded and indexed of an item, read from its catalog."""

from pydantic_core import from_json

from reclane_worker.building import indexed_text, item_of
from reclane_worker.catalog import Catalog
from reclane_worker.index.lexical import LexicalBuilder, LexicalIndex
from reclane_worker.text import terms


class ItemTexts:
    """What is encoded of an item, by its position; made when asked for, so that a large catalog
    is not held twice."""

    def __init__(self, catalog: Catalog) -> None:
        self._lines = catalog.lines
        self._fields = catalog.encoded

    def __getitem__(self, position: int) -> str:
        item = item_of(from_json(self._lines[position]))
        return indexed_text(item, self._fields) or " "

    def __len__(self) -> int:
        return len(self._lines)


def plain_index(catalog: Catalog) -> LexicalIndex:
    """BM25 by the book over what is indexed of the items, on the host: whole words."""
    builder, texts = LexicalBuilder(terms), ItemTexts(catalog)
    for position in range(len(texts)):
        builder.add(texts[position])
    return builder.build().index(terms, plain=True)
