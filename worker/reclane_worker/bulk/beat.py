"""Celery's beat for schedules of bulk runs: RedBeat's lock and due set, and our turns.

RedBeat would send a task, having written down that it did: who dies in between loses the slot, and
so does a message that a broker loses. A turn (`reclane.bulk.schedules`) begins the run itself, and
writes it down after that. RedBeat's own entries hold no time zone.
"""

from contextlib import suppress
from types import SimpleNamespace
from typing import Any, ClassVar, Final, NamedTuple, Self

import redis
from celery.utils.log import get_logger
from redbeat import RedBeatScheduler
from redbeat.schedulers import REDBEAT_REDIS_KEY, acquire_distributed_beat_lock
from redis.exceptions import LockError

from reclane._connection import connect
from reclane._outbox import unavailable
from reclane._refusal import refusal
from reclane.bulk import schedules
from reclane.errors import ReclaneError
from reclane.settings import Settings

_log = get_logger(__name__)

LEAST_WAIT_S: Final = 0.01


class Due(NamedTuple):
    """An entry of RedBeat's set: all that it must know of a schedule."""

    name: str

    @classmethod
    def from_key(cls, key: bytes, app: Any) -> Self:
        return cls(key.decode().removeprefix(app.conf.redbeat_key_prefix))


class BulkScheduler(RedBeatScheduler):  # type: ignore[misc]  # neither ships types
    """`celery beat -S reclane_worker.bulk.beat:BulkScheduler`; `reclane beat` starts it."""

    Entry = Due
    lock: Any = None
    _maybe_due_kwargs: ClassVar[dict[str, Any]] = {}  # a producer, for which it would connect

    def __init__(self, app: Any, **how: Any) -> None:
        settings = Settings.load()
        self._keys = settings.keys
        self._client = connect(settings)
        setattr(app, REDBEAT_REDIS_KEY, self._client)  # or it would connect by an URL of its own
        app.conf.update(
            redbeat_key_prefix=self._keys.beat_entry(""),
            redbeat_redis_url=str(settings.redis_url),  # stars, for its banner
            redbeat_redis_options={},
        )
        super().__init__(app, **how)

    def setup_schedule(self) -> None:
        """Nothing: what there is to do stands in Redis alone."""

    def tick(self, *args: Any, **how: Any) -> float:
        """Give what is due its turn; returns seconds until the next tick.

        Raises:
            BrokerUnavailable: Redis will refuse until somebody changes something.
        """
        try:
            if self.lock is None:
                acquire_distributed_beat_lock(SimpleNamespace(scheduler=self))
            return float(super().tick(*args, **how))
        except LockError:
            _log.warning("another beat took over; this one waits until it ends")
            self.lock = None
            return LEAST_WAIT_S
        except redis.RedisError as error:
            if refusal(error):
                raise unavailable(error) from error
            _log.warning("%s", unavailable(error))
            return float(self.max_interval)

    def maybe_due(self, entry: Due, **_: Any) -> float | None:
        """One turn. What is wrong with one schedule keeps no other from its own."""
        try:
            turn = schedules.turn(self._client, self._keys, entry.name)
        except ReclaneError as error:
            _log.error("%s", error)
            return None
        except redis.ResponseError as error:  # a full server, for one: the slot stays due
            if refusal(error):
                raise
            _log.error("schedule %s: %s", entry.name, unavailable(error))
            return None
        if turn.run is not None:
            _log.info("schedule %s: run %s", entry.name, turn.run)
        elif turn.skipped is not None:
            slot, reason = turn.skipped.slot, turn.skipped.reason
            _log.warning("schedule %s: skipped %s: %s", entry.name, schedules.moment(slot), reason)
        return max(turn.wait_s, LEAST_WAIT_S)

    def close(self) -> None:
        """Release the lock for the next beat; it lapses where Redis is away."""
        with suppress(redis.RedisError):
            super().close()
        self.lock = None
