"""What the lane holds and what waits for its time, as `celery inspect` shows a stock worker's.

Read from Redis when somebody asks, so that the hot path keeps no books. Arguments are hidden:
they are request text.
"""

import os
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from reclane import wire
from reclane._connection import connect
from reclane.errors import WireError
from reclane_worker.celery_side.finisher import delivery_info
from reclane_worker.settings import WorkerSettings

MAX_SCHEDULED: Final = 1_000  # messages read for one answer, soonest first
_ETA_PRIORITY: Final = 6  # celery.worker.strategy: call_at(..., priority=6)

Info = dict[str, Any]


class Holdings:
    """One worker's messages, over a connection of its own. For the thread of remote control.

    Every method raises redis.RedisError where Redis is away.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        worker_id: str,
        hostname: str,
        running: Callable[[], dict[str, float]],
    ) -> None:
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._inflight = settings.keys.inflight(worker_id)
        self._scheduled = settings.keys.scheduled
        self._hostname = hostname
        self._running = running

    def active(self) -> list[Info]:
        """Requests on the device."""
        return [info for state, info in self._leased() if state == "active"]

    def reserved(self) -> list[Info]:
        """Requests leased and not yet on the device."""
        return [info for state, info in self._leased() if state == "reserved"]

    def scheduled(self) -> list[Info]:
        """Parked messages, soonest first, at most MAX_SCHEDULED. All workers share them."""
        return list(self._parked())

    def find(self, ids: Collection[str]) -> dict[str, tuple[str, Info]]:
        """Task id -> its state and itself, for those ids that are here."""
        parked = (("scheduled", one["request"]) for one in self._parked())
        held = {info["id"]: (state, info) for state, info in [*parked, *self._leased()]}
        return {task_id: held[task_id] for task_id in ids if task_id in held}

    def close(self) -> None:
        self._redis.close()

    def _leased(self) -> Iterator[tuple[str, Info]]:
        running = self._running()
        for field, entry in self._redis.hgetall(self._inflight).items():
            started = running.get(field.decode())
            if message := _message(entry):
                state = "reserved" if started is None else "active"
                yield state, self._info(message, started)

    def _parked(self) -> Iterator[Info]:
        found = self._redis.zrange(self._scheduled, 0, MAX_SCHEDULED - 1, withscores=True)
        for entry, due_ms in found:
            if message := _message(entry):
                yield {
                    "eta": datetime.fromtimestamp(due_ms / 1e3, UTC).isoformat(),
                    "priority": _ETA_PRIORITY,
                    "request": self._info(message, None),
                }

    def _info(self, message: wire.Message, started: float | None) -> Info:
        """As celery.worker.request.Request.info; times are seconds since the epoch."""
        return {
            "id": message.id,
            "name": message.headers.get("shadow") or message.task,
            "args": "-",
            "kwargs": "-",
            "type": message.task,
            "hostname": self._hostname,
            "time_start": started,
            "acknowledged": False,  # the lane lets go of a message only with its result
            "delivery_info": delivery_info(message),
            "worker_pid": None if started is None else os.getpid(),
        }


def _message(entry: bytes) -> wire.Message | None:
    """The message behind its origin list; None where it cannot be read."""
    try:
        return wire.decode_message(entry.partition(b"\n")[2])
    except WireError:
        return None
