"""The harness's own threads, and its patience while Redis is away."""

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import redis

from reclane_worker.lane import is_passing

PATIENCE_S: Final = 60.0
PAUSE_S: Final = 0.05

_T = TypeVar("_T")


class Crew:
    """Threads that run until they are told to stop; one that raises fails the run."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.failed: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread; it returns by itself, or soon after `stopping` is set."""
        thread = threading.Thread(target=self._run, args=(name, work), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.failed.append(f"{name}: {type(error).__name__}: {error}")
            self.stopping.set()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            if thread.is_alive():
                self.failed.append(f"{thread.name} does not stop")


def patiently(call: Callable[[], _T]) -> _T:
    """Repeat an idempotent call while Redis is away, for `PATIENCE_S` at most."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except redis.RedisError as error:
            if not is_passing(error) or time.monotonic() > give_up:
                raise
            time.sleep(PAUSE_S)
