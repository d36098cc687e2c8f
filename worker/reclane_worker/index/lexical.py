"""BM25 over word stems and character bigrams, scored for a whole batch on the device.

The words of a long query count by their idf once more, as in the cosine of two tf-idf vectors
(Salton & Buckley 1988): of the many words of somebody who tells a story, the rare ones decide.
Bigrams and numbers do not: a rare bigram often is where two words meet, a rare number what nobody
meant by its digits.

A catalog stores how often each document has each term. What a term is worth there depends on all
other documents, and is worked out when the catalog is loaded: then parts that were counted at
different times make the index that counting them at once would have made.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from reclane_worker.text import is_unspaced, stems

K1: Final = 1.2
B: Final = 0.75
SHORT: Final = 4  # terms of a query: up to so many, all count as plain BM25 has it
LONG: Final = 20  # from so many on, words count by their rarity once more; between, in part

Ints = npt.NDArray[np.int32]
Read = Callable[[str], list[str]]
"""Normalised text -> its terms."""


@dataclass(frozen=True)
class LexicalIndex:
    """Postings by term, weights computed beforehand (as BM25S, Lu 2024).

    Term t has documents[starts[t]:starts[t + 1]] (int32) and the same slice of weights (float32).
    `rarity` is its idf, 1 where it counts once. `read` gives the terms of a query as it gave those
    of the documents.
    """

    vocabulary: dict[str, int]
    starts: torch.Tensor  # (terms + 1,), int64
    documents: torch.Tensor  # (postings,), int32
    weights: torch.Tensor  # (postings,), float32
    rarity: torch.Tensor  # (terms,), float32
    size: int
    read: Read = stems

    def scores(self, queries: Sequence[str]) -> torch.Tensor:
        """Scores (queries, items), float32; each distinct query term counts once."""
        rows: list[int] = []
        found: list[int] = []
        telling: list[float] = []  # how much of a story each term's query is
        for row, query in enumerate(queries):
            # In the order of the words, not of their numbers: rounding must not depend on these.
            known = sorted({term for term in self.read(query) if term in self.vocabulary})
            rows.extend([row] * len(known))
            found.extend(self.vocabulary[term] for term in known)
            telling.extend([min(1.0, max(0.0, (len(known) - SHORT) / (LONG - SHORT)))] * len(known))
        device = self.weights.device
        scores = torch.zeros(len(queries) * self.size, device=device)
        if not found:
            return scores.view(len(queries), self.size)
        # index_select: on CPU indexing with brackets takes three times as long.
        term = torch.tensor(found, device=device)
        starts = self.starts.index_select(0, term)
        lengths = self.starts.index_select(0, term + 1) - starts
        owner = torch.repeat_interleave(torch.arange(len(found), device=device), lengths)
        shift = starts - (torch.cumsum(lengths, 0) - lengths)  # from places here to postings
        posting = torch.arange(len(owner), device=device) + shift.index_select(0, owner)
        first_cell = torch.tensor(rows, device=device) * self.size
        cell = first_cell.index_select(0, owner) + self.documents.index_select(0, posting)
        weights = self.weights.index_select(0, posting)
        if any(telling):
            telling_of = torch.tensor(telling, device=device)
            worth = self.rarity.index_select(0, term) ** telling_of
            weights *= worth.index_select(0, owner)
        scores.index_add_(0, cell, weights)
        return scores.view(len(queries), self.size)

    def spread(self, term: str) -> int:
        """How many documents have a term; 0 for what is none, or more than one."""
        found = self.read(term)
        number = self.vocabulary.get(found[0]) if len(found) == 1 else None
        return 0 if number is None else int(self.starts[number + 1] - self.starts[number])

    def to(self, device: torch.device) -> "LexicalIndex":
        """The same index with its postings on `device`."""
        starts, documents = self.starts.to(device), self.documents.to(device)
        weights, rarity = self.weights.to(device), self.rarity.to(device)
        return replace(self, starts=starts, documents=documents, weights=weights, rarity=rarity)


@dataclass(frozen=True)
class Postings:
    """How often terms are in documents: what a catalog stores.

    Term t is in documents[starts[t]:starts[t + 1]], so often as the same slice of counts says.
    """

    vocabulary: Sequence[str]
    starts: npt.NDArray[np.int64]  # (terms + 1,)
    documents: Ints  # (postings,)
    counts: Ints  # (postings,)
    lengths: Ints  # (documents,), in terms

    def is_sound(self) -> bool:
        """Whether every posting can be scored: what was stored may not be what was built."""
        ends, postings, size = self.starts, len(self.documents), len(self.lengths)
        kinds = [one.dtype.name for one in arrays_of(self).values()]
        return bool(
            kinds == ["int64", "int32", "int32", "int32"]
            and ends.shape == (len(self.vocabulary) + 1,)
            and self.documents.shape == self.counts.shape == (postings,)
            and self.lengths.shape == (size,)
            and ends[0] == 0
            and ends[-1] == postings
            and (np.diff(ends) >= 0).all()
            and (self.lengths >= 0).all()
            and (self.counts > 0).all()
            and (postings == 0 or (self.documents.min() >= 0 and self.documents.max() < size))
        )

    def index(self, read: Read = stems, *, plain: bool = False) -> LexicalIndex:
        """BM25 (Robertson, k1 1.2, b 0.75) with Lucene's non-negative idf; where it is `plain`, a
        term's rarity counts once in any query. `read` is what the terms were counted with."""
        size = len(self.lengths)
        frequency = np.diff(self.starts)
        count, length = self.counts.astype(np.float32), self.lengths.astype(np.float32)
        idf = np.log1p((size - frequency + 0.5) / (frequency + 0.5))
        mean = max(float(length.mean()), 1.0) if size else 1.0
        norm = K1 * (1 - B + B * length[self.documents] / mean)
        words = np.fromiter(map(_is_word, self.vocabulary), bool)
        rarity = np.where(words & (not plain), idf, 1.0)
        weight = np.repeat(idf, frequency) * count * (K1 + 1) / (count + norm)
        return LexicalIndex(
            {term: number for number, term in enumerate(self.vocabulary)},
            torch.from_numpy(self.starts),
            torch.from_numpy(self.documents),
            torch.from_numpy(weight.astype(np.float32)),
            torch.from_numpy(rarity.astype(np.float32)),
            size,
            read,
        )


def _is_word(term: str) -> bool:
    return not is_unspaced(term[0]) and any(map(str.isalpha, term))


class LexicalBuilder:
    """Collects term counts document by document in flat arrays; `read` gives a document's terms."""

    def __init__(self, read: Read = stems) -> None:
        self._read = read
        self._vocabulary: dict[str, int] = {}
        self._terms = array("i")
        self._documents = array("i")
        self._counts = array("i")
        self._lengths = array("i")

    def add(self, text: str) -> None:
        """Add the next document, normalised."""
        counts = Counter(self._read(text))
        document = len(self._lengths)
        for term, count in counts.items():
            self._terms.append(self._vocabulary.setdefault(term, len(self._vocabulary)))
            self._documents.append(document)
            self._counts.append(count)
        self._lengths.append(counts.total())

    def build(self) -> Postings:
        found = (self._terms, self._documents, self._counts, self._lengths)
        return _arranged(list(self._vocabulary), *(np.asarray(one, np.int32) for one in found))


def joined(parts: Sequence[Postings], places: Sequence[Ints], size: int) -> Postings:
    """The postings of `size` documents from parts; `places` says of each document of a part where
    it comes, or -1 where it is left out."""
    numbers: dict[str, int] = {}
    found: list[tuple[Ints, Ints, Ints]] = []
    lengths = np.zeros(size, dtype=np.int32)
    for part, place in zip(parts, places, strict=True):
        theirs = [numbers.setdefault(term, len(numbers)) for term in part.vocabulary]
        term = np.repeat(np.asarray(theirs, dtype=np.int32), np.diff(part.starts))
        document = place[part.documents]
        kept = document >= 0
        found.append((term[kept], document[kept], part.counts[kept]))
        lengths[place[place >= 0]] = part.lengths[place >= 0]
    term, document, count = (np.concatenate(column) for column in zip(*found, strict=True))
    return _arranged(list(numbers), term, document, count, lengths)


def _arranged(vocabulary: Sequence[str], term: Ints, *rest: Ints) -> Postings:
    """From one row for each posting, in any order."""
    document, count, lengths = rest
    order = np.argsort(term, kind="stable")
    frequency = np.bincount(term, minlength=len(vocabulary))
    starts = np.concatenate(([0], np.cumsum(frequency))).astype(np.int64)
    return Postings(vocabulary, starts, document[order], count[order], lengths)


def restore(vocabulary: Sequence[str], arrays: Mapping[str, npt.NDArray[Any]]) -> Postings:
    """Postings from their stored parts; see `arrays_of`."""
    return Postings(vocabulary, *(arrays[name] for name in _STORED))


def arrays_of(postings: Postings) -> dict[str, npt.NDArray[Any]]:
    """What a catalog stores of postings, beside their vocabulary in order."""
    return {name: getattr(postings, name) for name in _STORED}


_STORED: Final = ("starts", "documents", "counts", "lengths")
