"""Submits requests, so that workers are never without; an id is written down before it goes."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, Protocol
from uuid import UUID

from celery import Celery

from chaos.crew import Crew, patiently
from chaos.ledger import Ledger
from reclane import BrokerUnavailable, Client, RecommendRequest, names, wire
from reclane._connection import connect
from reclane._outgoing import outgoing
from reclane.settings import Settings

BACKLOG: Final = 300
CHUNK: Final = 50
ATTEMPTS: Final = 4
LOOK_S: Final = 0.01
DELAYED: Final = 0.02  # the share of requests with an eta
LATEST_S: Final = 5.0


class Sender(Protocol):
    """One way to submit."""

    def send(self, first: int, ledger: Ledger) -> None:
        """Write down, send and mark as accepted `CHUNK` requests, numbered from `first`."""


class ByClient:
    """reclane's own client, with idempotency keys, from which the ids follow."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._client = Client(settings=settings)
        self._seed = seed

    def send(self, first: int, ledger: Ledger) -> None:
        requests = [
            RecommendRequest(query=f"film {n}", k=3, idempotency_key=f"{self._seed}-{n}")
            for n in range(first, first + CHUNK)
        ]
        ledger.write_down([outgoing(request, "", 0.0).id for request in requests])
        for attempt in range(1, ATTEMPTS + 1):
            try:
                ledger.accept(self._client.enqueue(requests))
                return
            except BrokerUnavailable:  # the keys are the same: nothing is enqueued twice
                if attempt == ATTEMPTS:
                    raise


class ByPush:
    """LPUSH to any queue and priority; after an error the same again, as MESSAGES.md says."""

    def __init__(self, settings: Settings, random: Random) -> None:
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._keys = settings.keys
        self._random = random

    def send(self, first: int, ledger: Ledger) -> None:
        messages = {self._id(): n for n in range(first, first + CHUNK)}
        raws = [self._message(task_id, n) for task_id, n in messages.items()]
        queue = self._random.choice(names.LANE_QUEUES)
        target = self._keys.list(queue, self._random.choice(names.PRIORITY_STEPS))
        ledger.write_down(messages)
        patiently(lambda: self._redis.lpush(target, *raws))
        ledger.accept(messages)

    def _id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def _message(self, task_id: str, number: int) -> bytes:
        now = time.time()
        request = RecommendRequest(query=f"film {number}", k=3)
        queue = names.INTERACTIVE_QUEUE
        raw = wire.encode_request(request, task_id=task_id, queue=queue, reply_to="", now=now)
        if self._random.random() >= DELAYED:
            return raw
        envelope = json.loads(raw)
        due = now + self._random.uniform(0, LATEST_S)
        envelope["headers"]["eta"] = datetime.fromtimestamp(due, UTC).isoformat()
        return json.dumps(envelope).encode()


class ByCelery:
    """A stock Celery client, which knows of no other worker than Celery's own."""

    def __init__(self, settings: Settings, random: Random) -> None:
        url = settings.redis_url.get_secret_value()
        self._app = Celery("chaos", broker=url, set_as_current=False)
        self._random = random

    def send(self, first: int, ledger: Ledger) -> None:
        for number in range(first, first + CHUNK):
            task_id = str(UUID(int=self._random.getrandbits(128), version=4))
            ledger.write_down([task_id])
            request = {"query": f"film {number}", "k": 3}
            queue = names.INTERACTIVE_QUEUE
            self._app.send_task(names.RECOMMEND, args=[request], queue=queue, task_id=task_id)
            ledger.accept([task_id])


class Load:
    """Keeps the backlog near its bound, by each sender in turn, until there is `enough`."""

    def __init__(
        self, settings: Settings, senders: Sequence[Sender], ledger: Ledger, crew: Crew
    ) -> None:
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._lists = settings.keys.lane_lists()
        self._senders = senders
        self._ledger = ledger
        self._crew = crew
        self.sent = 0
        self.enough = False

    def feed(self) -> None:
        while not self.enough and not self._crew.stopping.is_set():
            if patiently(self._waiting) >= BACKLOG:
                self._crew.stopping.wait(LOOK_S)
                continue
            sender = self._senders[self.sent // CHUNK % len(self._senders)]
            sender.send(self.sent, self._ledger)
            self.sent += CHUNK

    def _waiting(self) -> int:
        with self._redis.pipeline(transaction=False) as pipe:
            for one in self._lists:
                pipe.llen(one)
            return sum(pipe.execute())
