"""Settings of a producer: environment (prefix RECLANE_), then .env, then defaults."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.connection import parse_url

from reclane import names
from reclane.contract import explain_validation
from reclane.errors import InvalidSettings

_PREFIX = re.compile(r"([\w.:-]{0,63}[:_.-])?", re.ASCII)
_SCHEMES = ("redis://", "rediss://", "unix://")


class Settings(BaseSettings):
    """What a client needs. Built once and passed in; never read at import."""

    model_config = SettingsConfigDict(
        env_prefix="RECLANE_", env_file=".env", frozen=True, extra="ignore"
    )

    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    key_prefix: str = ""
    """Put before every key, queue and channel, so that systems can share one database."""
    socket_timeout_s: float = Field(default=5.0, gt=0)
    """Time for one reply from Redis before the call is repeated on a new connection."""
    enqueue_timeout_s: float = Field(default=15.0, gt=0, le=50)
    """How long submitting is retried, under one call id, while Redis is away."""
    queue_limit: int = Field(default=100_000, ge=1)
    """Most requests that may wait in a queue; a client that would pass it raises QueueFull."""
    reread_interval_s: float = Field(default=2.0, gt=0)
    """How often outstanding ids are read again, in case a notification was lost."""
    result_ttl_s: int = Field(default=300, ge=1, le=86_400 * 7)
    """How long results are kept: 60,000 answers/s of 1.7 KB fill 30 GB in 300 s."""
    id_file: Path | None = None
    """Where a worker writes its id and `reclane probe` reads it; one file for each worker."""

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text.startswith(_SCHEMES):
            raise ValueError("must start with redis://, rediss:// or unix://")
        try:
            port = parse_url(text).get("port", 0)  # type: ignore[no-untyped-call]
        except Exception:
            port = -1
        if not 0 <= port < 65_536:  # the parser's own message would quote the password
            raise ValueError("cannot be read; write redis://[user:password@]host:port/database")
        return value

    @field_validator("key_prefix")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value):  # Celery's result backend adds _ to any other ending
            raise ValueError("write up to 64 letters, digits or : _ . - that end in : _ . or -")
        return value

    @cached_property
    def keys(self) -> names.Keys:
        """Keys and channels on the server, under `key_prefix`."""
        return names.Keys(self.key_prefix)

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Read the environment; overrides win.

        Raises:
            InvalidSettings: naming the setting, never its value.
        """
        given: dict[str, Any] = {k: v for k, v in overrides.items() if v is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            raise InvalidSettings(f"settings: {explain_validation(error)}") from None
