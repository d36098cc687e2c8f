"""The worker's app with a model that takes its time without the CPU, as a GPU does.

So a few requests a second keep workers busy, and most moments strike a batch on the device:
`celery -A chaos.paced_worker`.
"""

import time
from collections.abc import Sequence
from typing import Final

import torch

import reclane_worker.hashing
from reclane_worker import app
from reclane_worker.encoder import Role, Tokens
from reclane_worker.hashing import HashEncoder

__all__ = ["app"]

BATCH_S: Final = 0.05


class PacedEncoder(HashEncoder):
    """`hash:N`, slower."""

    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        time.sleep(BATCH_S)
        return super().encode(tokens, role)


reclane_worker.hashing.HashEncoder = PacedEncoder  # type: ignore[misc]
