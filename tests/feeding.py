"""Workers under a steady load: requests that keep a queue from running empty, until they stop."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import redis

from reclane import Client, names
from reclane.client import Handle
from reclane_worker.local import WorkerProcess
from support import DEADLINE_S

BACKLOG = 300
MOST_REQUESTS = 40_000
CHUNK = 100


def start_all(*workers: WorkerProcess) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(WorkerProcess.start, workers))


class Feeder(threading.Thread):
    """Keeps the queue from running empty until it is stopped; collects the handles."""

    def __init__(self, client: Client, raw: "redis.Redis", at_least: int) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._raw = raw
        self._at_least = at_least
        self._stopping = threading.Event()
        self.handles: list[Handle] = []

    def run(self) -> None:
        while not self._stopping.is_set() or len(self.handles) < self._at_least:
            assert len(self.handles) < MOST_REQUESTS, "the test takes too long"
            if self._raw.llen(names.INTERACTIVE_QUEUE) < BACKLOG:
                first = len(self.handles)
                texts = [f"film {n}" for n in range(first, first + CHUNK)]
                self.handles += self._client.submit_many(texts)
            else:
                time.sleep(0.005)

    def finish(self) -> None:
        self._stopping.set()
        self.join(DEADLINE_S)
        assert not self.is_alive()


@contextmanager
def load(client: Client, url: str, at_least: int = 0) -> Iterator[Feeder]:
    with redis.Redis.from_url(url) as raw:
        feeder = Feeder(client, raw, at_least)
        feeder.start()
        try:
            yield feeder
        finally:
            feeder.finish()
