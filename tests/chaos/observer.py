"""Sees every result become visible, from outside, and reads it again later."""

import time
from collections.abc import Sequence
from typing import Any

import redis

from chaos.crew import PAUSE_S, Crew, patiently
from chaos.ledger import READ_AGAIN_S, Ledger
from reclane._connection import connect
from reclane._exchange import READ_CHUNK, chunks
from reclane.settings import Settings


class Observer:
    """One thread that subscribes to all results, on a connection that faults strike, too.

    What was published while the connection was broken cannot be counted; whatever became visible
    then is read from its key as soon as the subscription stands again.
    """

    def __init__(self, settings: Settings, ledger: Ledger, crew: Crew) -> None:
        self._ledger = ledger
        self._crew = crew
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._key = settings.keys.result
        self.subscribed = 0

    def watch(self) -> None:
        while not self._crew.stopping.is_set():
            try:
                with self._redis.pubsub() as pubsub:
                    pubsub.psubscribe(self._key("*"))
                    self._listen(pubsub)
            except (redis.ConnectionError, redis.TimeoutError):
                self._crew.stopping.wait(PAUSE_S)

    def _listen(self, pubsub: Any) -> None:
        prefix = len(self._key(""))
        while not self._crew.stopping.is_set():
            message = pubsub.get_message(timeout=PAUSE_S)
            if message and message["type"] == "pmessage":
                task_id = message["channel"].decode()[prefix:]
                self._ledger.published(task_id, message["data"], time.monotonic())
            elif message:  # subscribed, or again after a break
                self.subscribed += 1
                self._read(self._ledger.unseen())
            self._read_again(time.monotonic() - READ_AGAIN_S)

    def finish(self) -> None:
        """Read what is left to read, after the thread has ended."""
        patiently(lambda: self._read(self._ledger.unseen()))
        while patiently(lambda: self._read_again(time.monotonic())):
            pass
        self._redis.close()

    def _read_again(self, before: float) -> bool:
        ids = self._ledger.to_read_again(before, READ_CHUNK)
        self._read(ids)
        self._ledger.read_again(ids)
        return bool(ids)

    def _read(self, ids: Sequence[str]) -> None:
        for part in chunks(ids, READ_CHUNK):
            found = self._redis.mget([self._key(one) for one in part])
            for one, stored in zip(part, found, strict=True):
                self._ledger.read(one, stored, time.monotonic())
