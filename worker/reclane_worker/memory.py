"""Running out of memory: recognising it, freeing what can be freed, remembering what fitted."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Generic, TypeVar

import torch

from reclane.contract import Failure

_log = logging.getLogger(__name__)
_In = TypeVar("_In")
_Out = TypeVar("_Out")

OUT_OF_MEMORY: Final = Failure(
    code="out_of_memory",
    message="this request alone does not fit into the worker's memory; shorten it, ask for fewer "
    "items, or give the worker more memory",
    retry=True,  # another worker may have more, and this one later
)
GROW_AFTER: Final = 16  # batches that filled the cap and fitted
_SIGNS: Final = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class BatchCap:
    """How many padded tokens one batch may have at present. For several threads.

    It starts at `most`, halves where memory runs out, and grows back by a quarter after
    `GROW_AFTER` batches that filled it: what took the memory may be gone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._fitted = 0
        self._lock = threading.Lock()
        self.tokens = most
        self.exceeded = 0

    def ran_out(self, padded: int) -> None:
        """A batch of so many padded tokens did not fit."""
        with self._lock:
            self.exceeded += 1
            # Not half of the cap: the batch may have been planned before the cap last fell.
            self.tokens = max(1, min(self.tokens, padded // 2))
            self._fitted = 0

    def fitted(self, padded: int) -> None:
        """A batch of so many padded tokens was run."""
        if self.tokens == self._most:
            return
        with self._lock:
            self._fitted += padded > self.tokens // 2  # a full batch always passes its half
            if self._fitted >= GROW_AFTER:
                self.tokens = min(self._most, self.tokens + max(1, self.tokens // 4))
                self._fitted = 0


class Turns:
    """Batches run beside one another, except one that asks for a turn alone."""

    def __init__(self) -> None:
        self._running = 0
        self._changed = threading.Condition()

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits for those that run; holding the lock keeps others from starting."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)
            yield


class InMemory(Generic[_In]):
    """Runs batches so that memory suffices: whole, else in halves. For several threads.

    `padded_tokens` says how large a batch is; a batch has at most `most` of them.
    """

    def __init__(self, most: int, padded_tokens: Callable[[Sequence[_In]], int]) -> None:
        self.cap = BatchCap(most)
        self._turns = Turns()
        self._padded_tokens = padded_tokens

    def run(
        self, work: Callable[[Sequence[_In]], list[_Out]], batch: Sequence[_In]
    ) -> list[_Out | Failure]:
        """`work` on all of a batch; one that does not fit even alone fails."""
        single = len(batch) == 1
        size = max(self._padded_tokens(batch), len(batch))  # a history alone has no tokens
        if single or size <= self.cap.tokens:
            done = self._attempt(work, batch, size, self._turns.beside_others)
            if done is not None:
                return [*done]
        if single:  # what ran beside it may have had the memory
            done = self._attempt(work, batch, size, self._turns.alone)
            return [OUT_OF_MEMORY] if done is None else [*done]
        middle = len(batch) // 2
        return self.run(work, batch[:middle]) + self.run(work, batch[middle:])

    def _attempt(
        self,
        work: Callable[[Sequence[_In]], list[_Out]],
        batch: Sequence[_In],
        size: int,
        turn: Callable[[], AbstractContextManager[None]],
    ) -> list[_Out] | None:
        """What `work` gives, or None where memory ran out."""
        try:
            with turn():
                done = work(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            self.cap.fitted(size)
            return done
        free_memory()
        self.cap.ran_out(size)
        _log.warning(
            "out of memory with %s requests of %s padded tokens; batches now have at most %s",
            *(len(batch), size, self.cap.tokens),
        )
        return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on CUDA or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch has no class of its own for the host's allocator, nor for CUDA's libraries.
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def free_memory() -> None:
    """Give back what nothing holds any more. Call it outside the `except`: there the error still
    holds the frames, and those the tensors."""
    gc.collect()
    torch.cuda.empty_cache()
