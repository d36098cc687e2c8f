"""The device threads: they run batches while the host commits finished ones and prepares others."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from reclane_worker.settings import WorkerSettings

_T = TypeVar("_T")

MAX_CPU_THREADS: Final = 4
NICE: Final = 5
LATE_S: Final = 2.0  # past its predicted end, work is worth a word


def bound_s(predicted_s: float) -> float:
    """How long work may take before it counts as stuck, in seconds."""
    return 5.0 + 4.0 * predicted_s


@dataclass(frozen=True, slots=True)
class Running:
    """A stretch of work that must end: what it is, and how long it should take, in seconds."""

    what: str
    predicted_s: float
    serial: int


class Stopwatch:
    """Knows what is under way, so that the keeper can tell slow from stuck."""

    def __init__(self) -> None:
        self._running: dict[int, Running] = {}
        self._serial = 0
        self._lock = threading.Lock()

    @contextmanager
    def watch(self, what: str, predicted_s: float) -> Iterator[None]:
        """Work in the body is stuck once it takes 5 s + 4 x what was predicted."""
        with self._lock:
            self._serial += 1
            serial = self._serial
        self._running[serial] = Running(what, predicted_s, serial)
        try:
            yield
        finally:
            del self._running[serial]

    def running(self) -> list[Running]:
        return list(self._running.values())


class Overdue:
    """Adds up how long work was seen running, tick by tick.

    A tick counts for at most twice its nominal length: a process that was suspended, or a
    machine that slept, does not look stuck when it wakes.
    """

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._last: float | None = None
        self._spent_s: dict[int, float] = {}

    def check(self, running: list[Running], now: float) -> str | None:
        """The reason to end the process, if any work is past its bound. `now` is monotonic."""
        step_s = 0.0 if self._last is None else min(now - self._last, 2 * self._tick_s)
        self._last = now
        self._spent_s = {r.serial: self._spent_s.get(r.serial, -step_s) + step_s for r in running}
        for work in running:
            bound = bound_s(work.predicted_s)
            if self._spent_s[work.serial] > bound:
                return f"{work.what} is stuck: over its bound of {bound:.1f} s"
        return None

    def late(self, running: list[Running]) -> str | None:
        """What is LATE_S past its predicted end, and may be stuck: not yet a reason to end the
        process, but one to say so. As of the last check."""
        for work in running:
            if self._spent_s.get(work.serial, 0.0) > work.predicted_s + LATE_S:
                return (
                    f"{work.what} should have ended after {work.predicted_s:.1f} s; it may be "
                    f"stuck, and ends the process after {bound_s(work.predicted_s):.1f} s"
                )
        return None


def device_threads(settings: WorkerSettings, kind: str) -> int:
    """How many batches run side by side: one on CUDA, up to four on CPU.

    On CPU, batches side by side with few cores each beat one batch over all cores: no operator
    waits at a barrier for a core that the host or Redis took (2 cores: 0.69 -> 0.83 of offline).
    """
    if settings.device_threads is not None:
        return settings.device_threads
    return 1 if kind == "cuda" else min(MAX_CPU_THREADS, os.cpu_count() or 1)


def yielding() -> None:
    """Let the other threads of this process have a core as soon as they have something to do: to
    commit what is done, or to run what passes bulk (2 cores: interactive p99 beside a bulk run
    84 -> 67 ms). Only on Linux is niceness each thread's own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Device:
    """The threads in front of the model, and one more for what passes bulk."""

    def __init__(self, stopwatch: Stopwatch, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(
            max_workers=threads, thread_name_prefix="reclane-device", initializer=yielding
        )
        self._express = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reclane-express")
        self._stopwatch = stopwatch

    def submit(
        self, work: Callable[[], _T], predicted_s: float, express: bool = False
    ) -> "Future[tuple[_T, float]]":
        """Run `work` after what was submitted before, or beside it where `express`; gives its
        result and its seconds."""
        pool = self._express if express else self._pool
        return pool.submit(self._timed, work, predicted_s)

    def _timed(self, work: Callable[[], _T], predicted_s: float) -> tuple[_T, float]:
        with self._stopwatch.watch("the batch on the device", predicted_s):
            started = time.perf_counter()
            return work(), time.perf_counter() - started

    def close(self) -> None:
        for pool in (self._pool, self._express):
            pool.shutdown(wait=False, cancel_futures=True)
