"""Waits for work without polling: Redis tells when any lane list changes.

`CLIENT TRACKING ON BCAST` on a RESP3 connection announces every change of a key under the
queues' prefixes, priority lists included, so one socket read wakes an idle worker.
"""

from typing import Any

import redis

from reclane import names
from reclane.client import connect
from reclane.settings import Settings


class QueueWatch:
    """One connection that becomes readable when a lane queue changes."""

    def __init__(self, settings: Settings) -> None:
        self._pool = connect(settings, protocol=3).connection_pool
        self._connection: Any = None

    def wait(self, timeout_s: float) -> None:
        """Return when a queue changed since the last call, or after `timeout_s`.

        Raises:
            redis.ConnectionError: the connection broke; the next call makes a new one.
        """
        connection = self._connection
        if connection is None:
            self._connection = self._subscribe()
            return  # changes before the subscription were not announced: look once
        try:
            if connection.can_read(timeout=timeout_s):
                _drain(connection)
        except (redis.RedisError, OSError, ValueError) as error:  # ValueError: closed while read
            self.wake()
            raise redis.ConnectionError("the queue watch was interrupted") from error

    def wake(self) -> None:
        """End a wait that is under way in another thread, by closing its socket."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _subscribe(self) -> Any:
        connection: Any = self._pool.make_connection()
        connection.connect()
        prefixes = [part for queue in names.LANE_QUEUES for part in ("PREFIX", queue)]
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
        connection.read_response()
        return connection


def _drain(connection: Any) -> None:
    while connection.can_read(timeout=0):
        connection.read_response(push_request=True)
