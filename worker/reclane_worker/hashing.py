"""`hash:N`: a deterministic stand-in for a model, for tests and for measuring the queue alone."""

import hashlib
from collections.abc import Sequence

import torch

from reclane_worker.encoder import Role, Tokens
from reclane_worker.text import normalise, terms


class HashEncoder:
    """Signed feature hashing of lexical terms (Weinberger et al. 2009), L2-normalised."""

    max_tokens: int | None = None

    def __init__(self, dim: int, device: torch.device) -> None:
        self.name = f"hash:{dim}"
        self.revision = "1"
        self.pooling = "sum"
        self.dim = dim
        self.device = device

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        return [[hash_term(term) for term in terms(normalise(text))] or [0] for text in texts]

    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        cells = [r * self.dim + t % self.dim for r, sequence in enumerate(tokens) for t in sequence]
        signs = [1.0 if t & 1 << 40 else -1.0 for sequence in tokens for t in sequence]
        flat = torch.zeros(len(tokens) * self.dim)
        flat.index_add_(0, torch.tensor(cells), torch.tensor(signs))
        vectors = flat.view(len(tokens), self.dim)  # (batch, dim)
        return torch.nn.functional.normalize(vectors, dim=1).to(self.device)

    def trust(self, text: str, tokens: Tokens) -> float:
        return 1.0

    def knows(self, word: str) -> bool:
        return False


def hash_term(term: str) -> int:
    """The token of one term: 48 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=6).digest(), "little")
