"""The vectors of items and of their further passages: made by the model, written, read."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

from reclane.errors import CatalogError
from reclane_worker import manifest as layout
from reclane_worker.batching import Limits, plan
from reclane_worker.encoder import Encoder, Tokens
from reclane_worker.passages import cut

CHUNK: Final = 2_048  # texts encoded together, sorted by length; bounds memory
LIMITS: Final = Limits(max_tokens=4_096, max_requests=CHUNK, overhead_tokens=256)

Progress = Callable[[int], None]
Text = tuple[str, str]
"""What an item's further passages begin with, and all that is encoded of it."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Vectors (passages, dim) float32 of what long items say beyond their own vector, and whose
    each is: positions of items (passages,) int64, in ascending order."""

    vectors: torch.Tensor
    owners: torch.Tensor

    def __len__(self) -> int:
        return len(self.owners)

    def to(self, device: torch.device) -> "Passages":
        return Passages(self.vectors.to(device), self.owners.to(device))

    def between(self, first: int, end: int) -> "Passages":
        """Those of the items from `first` to before `end`, which is where their positions begin."""
        start, stop = torch.searchsorted(self.owners, torch.tensor([first, end])).tolist()
        return Passages(self.vectors[start:stop], self.owners[start:stop] - first)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Of some items in a row their vectors, (items, dim) float32, and their passages."""

    vectors: torch.Tensor
    passages: Passages


def encode_items(items: Sequence[Text], encoder: Encoder, progress: Progress) -> Encoded:
    """Vectors of the items of a chunk, on the CPU. `progress` hears how many items' worth is done.

    Raises:
        CatalogError: the model gives vectors that are not numbers.
    """
    tokens = encoder.tokenise([text or " " for _, text in items], "document")
    further, owners = _further(items, tokens, encoder)
    whole, done = len(items) + len(further), 0

    def encode(some: Sequence[Tokens]) -> torch.Tensor:
        """Vectors (texts, dim), float32, in the order of their texts."""
        nonlocal done
        vectors = torch.empty(len(some), encoder.dim)
        for group in plan([len(ids) for ids in some], LIMITS):
            vectors[group] = _finite(encoder.encode([some[i] for i in group], "document"), encoder)
            done += len(group)
            progress(done * len(items) // whole)
        return vectors

    own, parts = encode(tokens), [torch.empty(0, encoder.dim)]
    for start in range(0, len(further), CHUNK):  # as many tokens at once as of items, no more
        parts.append(encode(encoder.tokenise(further[start : start + CHUNK], "document")))
    return Encoded(own, Passages(torch.cat(parts), owners))


def _further(
    items: Sequence[Text], tokens: Sequence[Tokens], encoder: Encoder
) -> tuple[list[str], torch.Tensor]:
    """The further passages of those whose tokens are as many as the model takes, and whose each
    is, (passages,) int64."""
    limit = encoder.max_tokens
    texts: list[str] = []
    owners: list[int] = []
    for row, (heading, text) in enumerate(items):
        if limit is not None and len(tokens[row]) >= limit:
            found = cut(text, heading, encoder)
            texts += found
            owners += [row] * len(found)
    return texts, torch.tensor(owners, dtype=torch.int64)


def _finite(vectors: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    if not bool(torch.isfinite(vectors).all()):
        raise CatalogError(f"{encoder.name} gave vectors that are not numbers; use another model")
    return vectors.cpu()


class VectorsFile:
    """The vectors of a layer on their way into its folder, a chunk at a time; memory holds none."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self._dim = dim
        self._items = 0
        self._owners = array("i")
        with ExitStack() as stack:
            self._raw: list[IO[bytes]] = [
                stack.enter_context((folder / name).open("wb"))
                for name in ("vectors.raw", "passages.raw")
            ]
            self._opened = stack.pop_all()

    def __enter__(self) -> "VectorsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def add(self, encoded: Encoded) -> None:
        vectors, further = self._raw
        vectors.write(encoded.vectors.numpy().tobytes())
        further.write(encoded.passages.vectors.numpy().tobytes())
        self._owners.extend((encoded.passages.owners + self._items).tolist())
        self._items += len(encoded.vectors)

    def store(self) -> None:
        """Write the layer's file; a layer without long items has only the items' vectors in it."""
        self._opened.close()
        vectors, further = (Path(raw.name) for raw in self._raw)
        tensors: dict[str, npt.NDArray[Any]] = {}
        tensors["vectors"] = _mapped(vectors, self._items, self._dim)
        if self._owners:
            tensors[layout.PASSAGES] = _mapped(further, len(self._owners), self._dim)
            tensors[layout.OWNERS] = np.array(self._owners, dtype=np.int32)
        save_file(tensors, self._folder / layout.VECTORS)
        vectors.unlink()
        further.unlink()


def _mapped(raw: Path, count: int, dim: int) -> npt.NDArray[np.float32]:
    shape = (count, dim)
    if not count:
        return np.zeros(shape, dtype=np.float32)
    return np.memmap(raw, dtype=np.float32, mode="r", shape=shape)


def restore(tensors: Mapping[str, torch.Tensor], items: int, dim: int) -> Encoded | None:
    """What a layer's file holds; None where that does not fit so many items."""
    vectors = tensors["vectors"]
    passages = Passages(vectors.new_empty(0, dim), torch.empty(0, dtype=torch.int64))
    if layout.PASSAGES in tensors or layout.OWNERS in tensors:
        owners = tensors[layout.OWNERS]
        if owners.dtype != torch.int32 or owners.dim() != 1:
            return None
        passages = Passages(tensors[layout.PASSAGES], owners.long())
    fits = (
        _sound(vectors, items, dim)
        and _sound(passages.vectors, len(passages), dim)
        and bool(((passages.owners >= 0) & (passages.owners < items)).all())
        and bool((passages.owners.diff() >= 0).all())
    )
    return Encoded(vectors, passages) if fits else None


def _sound(vectors: torch.Tensor, count: int, dim: int) -> bool:
    fits = vectors.shape == (count, dim) and vectors.dtype == torch.float32
    return fits and bool(vectors.isfinite().all())


def in_a_row(parts: Sequence[Encoded], dim: int) -> Encoded:
    """Chunks one after the other."""
    starts = accumulate((len(part.vectors) for part in parts), initial=0)
    owners = [part.passages.owners + start for part, start in zip(parts, starts, strict=False)]
    return Encoded(
        torch.cat([torch.empty(0, dim), *(part.vectors for part in parts)]),
        Passages(
            torch.cat([torch.empty(0, dim), *(part.passages.vectors for part in parts)]),
            torch.cat([torch.empty(0, dtype=torch.int64), *owners]),
        ),
    )


def joined(parts: Sequence[Passages], places: Sequence[torch.Tensor]) -> Passages:
    """The passages of layers together, whose items went to these places, or nowhere (-1)."""
    moved = [place[part.owners] for part, place in zip(parts, places, strict=True)]
    owners = torch.cat(moved)
    kept = torch.argsort(owners, stable=True)
    kept = kept[int((owners < 0).sum()) :]  # those of items that are gone come first
    return Passages(torch.cat([part.vectors for part in parts])[kept], owners[kept])
