"""A server and a worker on it, for measurements."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import redis
from pydantic_core import from_json

from reclane import Client, RecommendRequest, names, wire
from reclane.embedded import EmbeddedServer
from reclane.errors import ReclaneError
from reclane_worker import demo
from reclane_worker.building import build_catalog
from reclane_worker.encoder import load_encoder
from reclane_worker.local import WorkerProcess
from reclane_worker.reading import BadRow, Columns, read_items
from reclane_worker.settings import WorkerSettings

KEYS: Final = names.Keys()
LEASE: Final = 256
LIMIT_S: Final = 600.0  # no part may take longer
BESIDE_MS: Final = 50.0  # bulk may cost an interactive request so much: a slice on CPU


@dataclass
class Side:
    """A server and a worker on it."""

    server: EmbeddedServer
    worker: WorkerProcess
    raw: Any
    texts: Iterator[str] = field(default_factory=lambda: cycle(demo.burst(2_000)))

    def push(self, queue: str, count: int, deadline_s: float | None = None) -> dict[str, float]:
        """As a stock client does, past the door: id -> when it expires."""
        now = time.time()
        ids = {str(uuid4()): now + (deadline_s or 0.0) for _ in range(count)}
        self.raw.lpush(
            KEYS.list(queue),
            *(
                wire.encode_request(
                    RecommendRequest(query=next(self.texts), deadline_s=deadline_s),
                    task_id=one,
                    queue=queue,
                    reply_to="",
                    now=now,
                )
                for one in ids
            ),
        )
        return ids

    def left(self, queue: str | None = None) -> int:
        """Messages that wait or run; of one queue, those that wait."""
        pipe = self.raw.pipeline(transaction=False)
        for key in KEYS.lists(queue) if queue else KEYS.lane_lists():
            pipe.llen(key)
        if queue is None:
            for key in self.raw.scan_iter(KEYS.inflight("*")):
                pipe.hlen(key)
        return int(sum(pipe.execute()))

    def drain(self) -> float:
        """Seconds until nothing is left."""
        started = time.perf_counter()
        while self.left():
            if time.perf_counter() - started > LIMIT_S:
                raise ReclaneError("the worker does not get done")
            time.sleep(0.01)
        return time.perf_counter() - started

    def latencies_ms(
        self, client: Client, pause_s: float, *, window_s: float = math.inf, count: float = math.inf
    ) -> list[float]:
        """One interactive request at a time, for a window or so many."""
        found: list[float] = []
        give_up = time.perf_counter() + window_s
        while len(found) < count and time.perf_counter() < give_up:
            started = time.perf_counter()
            client.recommend(next(self.texts), timeout=LIMIT_S)
            found.append((time.perf_counter() - started) * 1e3)
            time.sleep(pause_s)
        return found

    def told(self, counter: str) -> int:
        """One of the worker's counters, a third of a second old at most."""
        (key,) = self.raw.scan_iter(KEYS.worker("*"))
        return int(from_json(self.raw.hget(key, "stats") or "{}").get(counter, 0))

    def cpu_s(self) -> float:
        """Seconds of CPU that worker and server have taken."""
        return sum(map(_cpu_s, (self.worker.pid, self.server.pid)))

    def rss_mb(self) -> float:
        return rss_mb(self.worker.pid)


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Sides:
    """Makes sides, and ends them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._catalogs: dict[str, Path] = {}

    def make(self, model: str = demo.MODEL, **settings: str) -> Side:
        server = self._stack.enter_context(EmbeddedServer())
        environment = {
            "RECLANE_MODEL": model,
            "RECLANE_CATALOG": f"demo={self.catalog(model)}",
            "RECLANE_LEASE_MS": "1000",
            "RECLANE_LEASE_MESSAGES": str(LEASE),
        }
        log = self._folder / f"{uuid4()}.log"
        worker = WorkerProcess(server.url, environment | settings, log)
        self._stack.enter_context(worker)
        return Side(server, worker, self._stack.enter_context(redis.Redis.from_url(server.url)))

    def catalog(self, model: str) -> Path:
        if model not in self._catalogs:
            folder = self._folder / model.replace(":", "-")
            encoder = load_encoder(WorkerSettings.load(model=model))
            build_catalog(
                read_items(demo.ITEMS, Columns(), _refuse), folder, encoder, fields=demo.FIELDS
            )
            self._catalogs[model] = folder
        return self._catalogs[model]


def _refuse(row: BadRow) -> None:
    raise AssertionError(f"the catalog that ships has a bad row: {row}")
