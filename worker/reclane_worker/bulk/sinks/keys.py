"""A sink in Redis: one key for each row, its value switched at once by one SET.

The value is the record as JSON. A failure never replaces an earlier answer: it is stored only
where there is nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis
from pydantic_core import from_json, to_json
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, TryAgainError
from redis.retry import Retry

from reclane.bulk.spec import KEY_PLACE, RedisSink
from reclane_worker.bulk.errors import SinkFull, SinkUnusable, StepFailed, StoreUnavailable
from reclane_worker.bulk.sinks.results import Carried, Manifest, Part, Result, record

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
            _replies(pipeline)
        return Part(number=part, rows=len(results), bytes=size)

    def unchanged(self, wanted: Mapping[str, str]) -> set[str]:
        asked = list(wanted)
        found: set[str] = set()
        for first in range(0, len(asked), _SENT_AT_ONCE):
            keys = asked[first : first + _SENT_AT_ONCE]
            with _redis_errors():
                values: Any = self._redis.mget([self._key(key) for key in keys])
            pairs = zip(keys, values, strict=True)
            found |= self._kept([key for key, value in pairs if _digest(value) == wanted[key]])
        return found

    def _kept(self, keys: Sequence[str]) -> set[str]:
        """Those that are still there, with their time to live begun anew."""
        pipeline: Any = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.expire(self._key(key), self._spec.ttl_s)
        kept = zip(keys, _replies(pipeline), strict=True)
        return {key for key, is_there in kept if is_there}

    def carry(self, number: int, at: int, parts: Sequence[Part]) -> Carried | None:
        return None  # a key stays until its time to live ends

    def complete(self, manifest: Manifest) -> None:
        pass  # each value was shown as it was written

    def clear(self) -> None:
        pass

    def close(self) -> None:
        self._redis.close()

    def _key(self, key: str) -> str:
        return self._spec.key.replace(KEY_PLACE, key)


def _replies(pipeline: Any) -> list[Any]:
    with _redis_errors():
        # An error that the pipeline raises would quote the command.
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    return replies


def _digest(value: bytes | None) -> str | None:
    """Of a stored record; None where there is none, or something else."""
    try:
        stored = from_json(value or b"null")
    except ValueError:
        return None
    return stored.get("digest") if isinstance(stored, dict) else None


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
