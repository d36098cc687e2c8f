"""A sink in Redis: one key for each row, its value switched at once by one SET.

The value is the record as JSON. A failure never replaces an earlier answer: it is stored only
where there is nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis
from pydantic_core import to_json
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, TryAgainError
from redis.retry import Retry

from reclane.bulk.spec import KEY_PLACE, RedisSink
from reclane_worker.bulk.errors import SinkFull, SinkUnusable, StepFailed, StoreUnavailable
from reclane_worker.bulk.sinks.results import Manifest, Part, Result, record

_SENT_AT_ONCE: Final = 500
_TIMEOUT_S: Final = 10


class Keys:
    """A `Sink`. Rows that a run no longer has keep their value until its time to live ends."""

    def __init__(self, spec: RedisSink) -> None:
        """Connects only when it is used.

        Raises:
            SinkUnusable: the URL cannot be read.
        """
        self._spec = spec
        try:
            self._redis = redis.Redis.from_url(
                spec.url.get_secret_value(),
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError):
            raise SinkUnusable(
                "the Redis URL cannot be read; write redis://user:password@host:port/0"
            ) from None

    def check(self) -> None:
        """Sets a key of this form, for a second, where there is none."""
        with _redis_errors():
            self._redis.set(self._key("reclane-check"), b"{}", px=1_000, nx=True)

    def write(self, part: int, results: Sequence[Result]) -> Part:
        size = 0
        for first in range(0, len(results), _SENT_AT_ONCE):
            pipeline: Any = self._redis.pipeline(transaction=False)
            for result in results[first : first + _SENT_AT_ONCE]:
                value = to_json(record(result, self._spec.fields))
                size += len(value)
                key, is_failure = self._key(result.key), result.answer is None
                pipeline.set(key, value, ex=self._spec.ttl_s, nx=is_failure)
            with _redis_errors():
                # A raised error would quote the command.
                for reply in pipeline.execute(raise_on_error=False):
                    if isinstance(reply, Exception):
                        raise reply
        return Part(number=part, rows=len(results), bytes=size)

    def complete(self, manifest: Manifest) -> None:
        pass  # each value was shown as it was written

    def clear(self) -> None:
        pass

    def close(self) -> None:
        self._redis.close()

    def _key(self, key: str) -> str:
        return self._spec.key.replace(KEY_PLACE, key)


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise _translated(error) from None


def _translated(error: redis.RedisError) -> StepFailed:
    if isinstance(error, OutOfMemoryError):
        return SinkFull("Redis has no room (maxmemory); raise it, or lower ttl_s, and write again")
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return SinkUnusable(f"Redis refuses this user: {error}")
    again = (redis.ConnectionError, redis.TimeoutError, BusyLoadingError)
    if isinstance(error, (*again, ReadOnlyError, TryAgainError)):
        return StoreUnavailable(f"Redis did not answer: {error}")
    return SinkUnusable(f"Redis refused: {error}")
