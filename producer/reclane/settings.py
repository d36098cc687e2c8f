"""Settings of a producer: environment (prefix RECLANE_), then .env, then defaults."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.connection import parse_url

from reclane import names
from reclane.contract import explain_validation
from reclane.errors import InvalidSettings

_PREFIX = re.compile(r"([\w.:-]{0,63}[:_.-])?", re.ASCII)
_SCHEMES = ("redis://", "rediss://", "unix://")
_OPTIONS = {"db", "username", "password"}
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS = {
    *_TLS_FILES,
    *("ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname"),
    *("ssl_min_version", "ssl_ciphers"),
}


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
            options = _parse(text)
        except Exception:
            options = {"port": -1}
        if not 0 <= options.get("port", 0) < 65_536:
            # the parser's own message would quote the password
            raise ValueError(
                "cannot be read; write redis://[user:password@]host:port/0, "
                "special characters as %40"
            )
        _check_options(text, options)
        return value

    @field_validator("key_prefix")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value):  # Celery's result backend adds _ to any other ending
            raise ValueError("write up to 64 letters, digits or : _ . - that end in : _ . or -")
        return value

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.redis_url.get_secret_value().startswith("rediss://")

    def redis_options(self) -> dict[str, Any]:
        """The URL taken apart as redis-py does: host, port, path, db, password, ssl_..."""
        options = _parse(self.redis_url.get_secret_value())
        options.pop("connection_class", None)
        return options

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


def _parse(url: str) -> dict[str, Any]:
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    return options


def _check_options(url: str, options: dict[str, Any]) -> None:
    """Refuse what would reach only some of the connections, or fail late.

    Raises:
        ValueError: saying what is allowed; never what was given, which may be part of a password.
    """
    parts = urlsplit(url)
    tls = _TLS_OPTIONS if parts.scheme == "rediss" else set()
    if set(parse_qs(parts.query)) - _OPTIONS - tls:
        raise ValueError(
            "after ? only db, username, password and, with rediss://, ssl_ options are allowed"
        )
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError("after the port comes the number of a database, as in redis://host:6379/1")
    if options.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise ValueError("ssl_cert_reqs must be required, optional or none")
    for name in _TLS_FILES:
        if name in options and not Path(options[name]).is_file():
            raise ValueError(f"{name} names no file")
