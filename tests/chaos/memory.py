"""Memory of the server and of the workers over time."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

import redis

from chaos.crew import Crew
from reclane._connection import connect
from reclane.settings import Settings

EVERY_S: Final = 1.0
LEAST_SAMPLES: Final = 60  # else it is too short to tell


class Memory:
    """Samples in KB: each worker's by process id, the server's for each key.

    How many results it keeps follows from how fast this machine was in the last minutes. What is
    resident counts by the most keys there were: an allocator keeps what it once had.
    """

    def __init__(self, settings: Settings, pids: Callable[[], list[int]], crew: Crew) -> None:
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._pids = pids
        self._crew = crew
        self._most_keys = 1
        self.used: list[float] = []
        self.resident: list[float] = []
        self.workers: defaultdict[int, list[float]] = defaultdict(list)

    def sample(self) -> None:
        while not self._crew.stopping.wait(EVERY_S):
            for pid in self._pids():
                self.workers[pid].append(resident_kb(pid))
            try:
                info, keys = self._redis.info("memory"), self._redis.dbsize()
            except (redis.ConnectionError, redis.TimeoutError):
                continue
            self._most_keys = max(self._most_keys, keys)
            self.used.append(info["used_memory"] / 1e3 / max(keys, 1))
            self.resident.append(info["used_memory_rss"] / 1e3 / self._most_keys)

    def oldest_worker(self) -> list[float]:
        """Of the process that lived longest."""
        return max(self.workers.values(), key=len, default=[])


def resident_kb(pid: int) -> float:
    """VmRSS; 0 for a process that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = (line.split() for line in status.splitlines())
    return next((float(line[1]) for line in lines if line[0] == "VmRSS:"), 0.0)


def thirds(samples: Sequence[float], warm_up: int) -> tuple[float, float] | None:
    """Means of the first and the last third after the warm-up; None: too few samples to tell."""
    settled = samples[warm_up:]
    if len(settled) < LEAST_SAMPLES:
        return None
    third = len(settled) // 3
    return mean(settled[:third]), mean(settled[-third:])
