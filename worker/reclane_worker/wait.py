"""Waits for work without polling: Redis tells when any lane list changes.

`CLIENT TRACKING ON BCAST` on a RESP3 connection announces every change of a key under the
queues' prefixes, priority lists included, so one socket read wakes an idle worker.
"""

import os
import select
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis

from reclane import names
from reclane._connection import connect
from reclane.settings import Settings


class QueueWatch:
    """One connection that becomes readable when a lane queue changes, and a pipe to wake it.

    Only the waiting thread touches the connection; any thread may `wake` it.
    """

    def __init__(self, settings: Settings) -> None:
        pool = connect(settings, protocol=3).connection_pool
        self._keys = settings.keys
        # Made here, not by the pool: the pool would count every one that was replaced.
        self._make: Callable[[], Any] = partial(pool.connection_class, **pool.connection_kwargs)
        self._connection: Any = None
        self._queues: tuple[str, ...] = ()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)

    def wait(self, timeout_s: float, queues: Sequence[str] = names.LANE_QUEUES) -> None:
        """Return when one of `queues` changed since the last call, on `wake`, or after `timeout_s`.

        Raises:
            redis.RedisError: the connection broke; the next call makes a new one.
        """
        if self._connection is None or self._queues != tuple(queues):
            self._disconnect()
            self._connection = self._subscribe(queues)
            self._queues = tuple(queues)
            return  # changes before the subscription were not announced: look once
        self._look(timeout_s)

    def woken(self) -> bool:
        """Whether `wait` would return at once now. It will not for the same reason again.

        Raises:
            redis.RedisError: as `wait`.
        """
        return self._connection is None or self._look(0.0)

    def _look(self, timeout_s: float) -> bool:
        """Whether something happened, until now or within a time."""
        try:
            if self._drain():
                return True
            socket = self._connection._sock
            poll = select.poll()
            poll.register(socket, select.POLLIN)
            poll.register(self._woken, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(timeout_s * 1e3)}
            if self._woken in ready:
                os.read(self._woken, 4096)
            if ready - {self._woken}:
                self._drain()
            return bool(ready)
        except (redis.RedisError, OSError, ValueError, TypeError) as error:
            self._disconnect()
            raise redis.ConnectionError("the queue watch was interrupted") from error

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        try:
            os.write(self._wake, b"w")
        except BlockingIOError:
            return  # the pipe is full of wake-ups

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _subscribe(self, queues: Sequence[str]) -> Any:
        connection: Any = self._make()
        lists = [self._keys.list(queue) for queue in queues]
        prefixes = [part for name in lists for part in ("PREFIX", name)]
        try:
            connection.connect()
            if prefixes:  # without one, every key of the server would be announced
                connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
                connection.read_response()
        except Exception:
            connection.disconnect()
            raise
        return connection

    def _drain(self) -> bool:
        """Read what has been announced; whether there was anything."""
        found = False
        while self._connection.can_read(timeout=0):
            self._connection.read_response(push_request=True)
            found = True
        return found
