"""How every connection to Redis is made: timeouts set, and no retries of its own.

reclane repeats only calls that are idempotent, and decides itself when (see `_outbox.py`).
"""

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from reclane.settings import Settings


def connect(settings: Settings, protocol: int = 2) -> "redis.Redis":
    """A synchronous client over a pool of connections."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        **_options(settings),
        protocol=protocol,
        retry=Retry(NoBackoff(), 0),
    )


def connect_async(settings: Settings) -> "redis.asyncio.Redis":
    """As `connect`, for asyncio."""
    return redis.asyncio.Redis.from_url(
        settings.redis_url.get_secret_value(),
        **_options(settings),
        protocol=2,
        retry=AsyncRetry(NoBackoff(), 0),
    )


def _options(settings: Settings) -> dict[str, Any]:
    keepalive = {} if "path" in settings.redis_options() else {"socket_keepalive": True}
    return {
        "socket_timeout": settings.socket_timeout_s,
        "socket_connect_timeout": settings.socket_timeout_s,
        **keepalive,
    }
