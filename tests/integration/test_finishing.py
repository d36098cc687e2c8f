"""Events tell only what truly became of a message: the lane's ends against a real server."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from pydantic_core import to_json

from reclane import names, wire
from reclane.embedded import EmbeddedServer
from reclane_worker.app import recommend
from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.celery_side.finisher import CeleryFinisher
from reclane_worker.device import Stopwatch
from reclane_worker.finishing import Finishing
from reclane_worker.lane import Lane
from reclane_worker.settings import WorkerSettings
from reclane_worker.triage import Triage, decode, triage
from support import KEYS

ANSWER = {"items": []}


class Events(TaskEvents):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[str] = []

    def _wanted(self) -> bool:
        return True

    def _put(self, events: list[dict[str, Any]]) -> None:
        self.told += [f"{event['uuid']} {event['type']}" for event in events]


class Bench:
    """One worker's lane and what ends its messages; Celery's own backend is away."""

    def __init__(self, url: str, raw: "redis.Redis") -> None:
        app = Celery("away", broker=url, backend="redis://127.0.0.1:1/0", set_as_current=False)
        app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}
        app.task(name=names.RECOMMEND)(recommend.run)
        worker = SimpleNamespace(app=app, hostname="w@here")
        self.events = Events()
        self.raw = raw
        self.lane = Lane(WorkerSettings.load(redis_url=url), "one")
        self.finishing = Finishing(self.lane, CeleryFinisher(worker), self.events, Stopwatch())

    def lease(self, *messages: bytes) -> Triage:
        """What triage makes of these, in this order."""
        for one in messages:
            self.raw.lpush(names.INTERACTIVE_QUEUE, one)
        leased = self.lane.lease(0, len(messages))
        read, _ = decode(leased.entries, leased.now_ms, 3)
        return triage(read, now_ms=leased.now_ms, stored={}, revoked=(), max_attempts=3)


@pytest.fixture
def bench(server: EmbeddedServer, raw: "redis.Redis") -> Iterator[Bench]:
    made = Bench(server.url, raw)
    yield made
    made.lane.close()


def message(task_id: str, digest: str = "", expires: str = "") -> bytes:
    """With `expires` it has passed, and a chord waits for it."""
    headers = {"id": task_id, "task": names.RECOMMEND, "reclane_digest": digest}
    chord = {"task": "body", "kwargs": {}}
    body: list[Any] = [[{"query": "film"}], {}, {"chord": chord} if expires else {}]
    return to_json(
        {
            "body": to_json(body).decode(),
            "content-type": wire.JSON_TYPE,
            "headers": {**headers, "expires": expires or None, "group": "g" if expires else None},
            "properties": {},
        }
    )


def test_of_a_batch_that_ran_only_what_became_visible_is_told(
    bench: Bench, raw: "redis.Redis"
) -> None:
    ids = ("plain", "revoked", "answered", "superseded", "lost")
    jobs = bench.lease(*(message(one, "a" * 40 if one == "superseded" else "") for one in ids)).jobs
    now = time.time()
    raw.set(KEYS.result("revoked"), wire.encode_revoked("revoked", "cancelled", now))
    raw.set(KEYS.result("answered"), wire.encode_success("answered", ANSWER, now))
    another = b'{"status": "PENDING", "result": null, "reclane": {"digest": "%s"}}' % (b"b" * 40)
    raw.set(KEYS.result("superseded"), another)
    raw.hdel(KEYS.inflight("one"), jobs[-1].entry.field)
    bench.finishing.commit(jobs, [ANSWER] * len(jobs))
    assert bench.events.told == ["plain task-succeeded", "revoked task-revoked"]
    assert raw.hlen(KEYS.inflight("one")) == 0


def test_what_celerys_side_could_not_take_yet_is_parked_and_not_told(
    bench: Bench, raw: "redis.Redis"
) -> None:
    bench.finishing.end(bench.lease(message("late", expires="2001-01-01T00:00:00")).ended)
    assert bench.events.told == []
    assert raw.zcard(KEYS.scheduled) == 1
