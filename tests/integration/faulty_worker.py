"""The worker's app with an encoder that misbehaves on marked requests: `celery -A faulty_worker`.

The faults are real: the process raises, exits, sleeps or hangs inside the batch on the device.
With FAULTY_GATE its model finishes loading only once that file exists; with FAULTY_LAND the
lane's own thread meets an exception that nobody foresaw; with FAULTY_STORE it is killed in the
instant after Celery's backend has stored its first result. With FAULTY_TOKEN_BYTES a batch needs
that much memory for each padded token; `memoryfault` in a request bounds the process's address
space to FAULTY_ROOM_BYTES more than it has by then, `memoryback` takes the bound away.
"""

import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from celery.backends.redis import RedisBackend

import reclane_worker.hashing
from reclane_worker import app
from reclane_worker.encoder import Role, Tokens
from reclane_worker.flights import Flights
from reclane_worker.hashing import HashEncoder, hash_term

__all__ = ["app"]

RAISE = hash_term("raisefault")
EXIT = hash_term("exitfault")
SLOW = hash_term("slowfault")
HANG = hash_term("hangfault")
NAN = hash_term("nanfault")
MEMORY = hash_term("memoryfault")
MEMORY_BACK = hash_term("memoryback")
BREAK = hash_term("breakfault")
TOKENISE_EXIT = "tokenisefault"


class FaultyEncoder(HashEncoder):
    """`hash:N` with faults triggered by single words of a request."""

    broken = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gate = os.environ.get("FAULTY_GATE")
        while gate and not Path(gate).exists():
            time.sleep(0.02)

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        if any(TOKENISE_EXIT in text for text in texts):
            os._exit(9)
        return super().tokenise(texts, role)

    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        seen = {token for sequence in tokens for token in sequence}
        self.broken = self.broken or BREAK in seen
        if RAISE in seen or self.broken:
            raise RuntimeError("a fault in the model")
        if EXIT in seen:
            os._exit(9)
        if SLOW in seen:
            print("slowfault is on the device", flush=True)
            time.sleep(1.5)
        if HANG in seen:
            time.sleep(3_600)
        _bound_memory(seen)
        per_token = int(os.environ.get("FAULTY_TOKEN_BYTES", "0"))
        needed = torch.empty(per_token * max(map(len, tokens)) * len(tokens), dtype=torch.uint8)
        vectors = super().encode(tokens, role)
        del needed
        for row, sequence in enumerate(tokens):
            if NAN in sequence:
                vectors[row] = torch.nan
        return vectors


def store_and_die(*args: Any, **kwargs: Any) -> None:
    """Die between storing a result and doing what follows from it."""
    store_result(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)


store_result = RedisBackend.store_result
if os.environ.get("FAULTY_STORE"):
    RedisBackend.store_result = store_and_die


def _bound_memory(seen: set[int]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if MEMORY_BACK in seen:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if MEMORY in seen:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + int(os.environ["FAULTY_ROOM_BYTES"])
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


reclane_worker.hashing.HashEncoder = FaultyEncoder  # type: ignore[misc]


def _land(self: Flights) -> None:
    if self._flights:
        raise ZeroDivisionError


if os.environ.get("FAULTY_LAND"):
    Flights.land_done = _land  # type: ignore[method-assign]
