"""BM25 over word stems and character bigrams, scored for a whole batch on the device.

A query's word counts by its idf once more, as in the cosine of two tf-idf vectors (Salton & Buckley
1988): of the many words of somebody who tells a story, the rare ones decide. Bigrams and numbers do
not: a rare bigram often is where two words meet, a rare number what nobody meant by its digits.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from reclane_worker.text import is_unspaced, stems

K1: Final = 1.2
B: Final = 0.75

Read = Callable[[str], list[str]]
"""Normalised text -> its terms."""


@dataclass(frozen=True)
class LexicalIndex:
    """Postings by term, weights computed beforehand (as BM25S, Lu 2024).

    Term t has documents[starts[t]:starts[t + 1]] (int32) and the same slice of weights (float32).
    `read` gives the terms of a query as it gave those of the documents.
    """

    vocabulary: dict[str, int]
    starts: torch.Tensor  # (terms + 1,), int64
    documents: torch.Tensor  # (postings,), int32
    weights: torch.Tensor  # (postings,), float32
    size: int
    read: Read = stems

    def scores(self, queries: Sequence[str]) -> torch.Tensor:
        """Scores (queries, items), float32; each distinct query term counts once."""
        rows: list[int] = []
        found: list[int] = []
        for row, query in enumerate(queries):
            known = {t for t in map(self.vocabulary.get, self.read(query)) if t is not None}
            rows.extend([row] * len(known))
            found.extend(sorted(known))
        device = self.weights.device
        scores = torch.zeros(len(queries) * self.size, device=device)
        if not found:
            return scores.view(len(queries), self.size)
        term = torch.tensor(found, device=device)
        lengths = self.starts[term + 1] - self.starts[term]
        owner = torch.repeat_interleave(torch.arange(len(found), device=device), lengths)
        first = torch.cumsum(lengths, 0) - lengths
        posting = self.starts[term][owner] + torch.arange(len(owner), device=device) - first[owner]
        row_of = torch.tensor(rows, device=device)[owner]
        cell = row_of * self.size + self.documents[posting]
        scores.index_add_(0, cell, self.weights[posting])
        return scores.view(len(queries), self.size)

    def spread(self, term: str) -> int:
        """How many documents have a term; 0 for what is none, or more than one."""
        found = self.read(term)
        number = self.vocabulary.get(found[0]) if len(found) == 1 else None
        return 0 if number is None else int(self.starts[number + 1] - self.starts[number])

    def is_sound(self) -> bool:
        """Whether every posting can be scored: what was stored may not be what was built."""
        ends, postings = self.starts, len(self.documents)
        return bool(
            (ends.dtype, self.documents.dtype, self.weights.dtype)
            == (torch.int64, torch.int32, torch.float32)
            and ends.shape == (len(self.vocabulary) + 1,)
            and self.documents.shape == self.weights.shape == (postings,)
            and ends[0] == 0
            and ends[-1] == postings
            and (ends.diff() >= 0).all()
            and self.weights.isfinite().all()
            and (postings == 0 or (self.documents.min() >= 0 and self.documents.max() < self.size))
        )

    def to(self, device: torch.device) -> "LexicalIndex":
        """The same index with its postings on `device`."""
        moved = {name: tensor.to(device) for name, tensor in tensors_of(self).items()}
        return replace(self, **moved)


class LexicalBuilder:
    """Collects term counts document by document in flat arrays, then weighs them once.

    `read` gives a document's terms; `plain` is BM25 by the book, without the weight of a query's
    terms.
    """

    def __init__(self, read: Read = stems, *, plain: bool = False) -> None:
        self._read = read
        self._plain = plain
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

    def build(self) -> LexicalIndex:
        """BM25 (Robertson, k1 1.2, b 0.75) with Lucene's non-negative idf, that of the query's
        terms included unless `plain`."""
        term = np.asarray(self._terms, dtype=np.int32)
        document = np.asarray(self._documents, dtype=np.int32)
        count = np.asarray(self._counts, dtype=np.float32)
        length = np.asarray(self._lengths, dtype=np.float32)
        size, words = len(length), len(self._vocabulary)
        frequency = np.bincount(term, minlength=words)
        idf = np.log1p((size - frequency + 0.5) / (frequency + 0.5))
        mean = max(float(length.mean()), 1.0) if size else 1.0
        norm = K1 * (1 - B + B * length[document] / mean)
        worth = idf if self._plain else idf * np.where(self._are_words(), idf, 1.0)
        weight = (worth[term] * count * (K1 + 1) / (count + norm)).astype(np.float32)
        order = np.argsort(term, kind="stable")
        return LexicalIndex(
            self._vocabulary,
            torch.from_numpy(np.concatenate(([0], np.cumsum(frequency))).astype(np.int64)),
            torch.from_numpy(document[order]),
            torch.from_numpy(weight[order]),
            size,
            self._read,
        )

    def _are_words(self) -> NDArray[np.bool_]:
        return np.fromiter(map(_is_word, self._vocabulary), dtype=bool)


def _is_word(term: str) -> bool:
    return not is_unspaced(term[0]) and any(map(str.isalpha, term))


def restore(vocabulary: Iterable[str], tensors: dict[str, torch.Tensor], size: int) -> LexicalIndex:
    """An index from its stored parts; see `tensors_of`."""
    numbered = {term: number for number, term in enumerate(vocabulary)}
    return LexicalIndex(numbered, tensors["starts"], tensors["documents"], tensors["weights"], size)


def tensors_of(index: LexicalIndex) -> dict[str, torch.Tensor]:
    """What a catalog stores of an index, beside its vocabulary in order."""
    return {"starts": index.starts, "documents": index.documents, "weights": index.weights}
