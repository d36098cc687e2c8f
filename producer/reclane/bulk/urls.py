"""URLs of stores in a spec: checked without quoting them, and which store each one means."""

import os
from typing import Annotated, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, PlainSerializer, SecretStr

SQLITE: Final = "sqlite:///"
DATABASES: Final = (SQLITE, "postgresql://", "postgres://")
REDIS: Final = ("redis://", "rediss://", "unix://")

_PORTS: Final = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "rediss": 6379}


def _starts_with(*schemes: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(schemes):
            raise ValueError(f"must start with {' or '.join(schemes)}")
        try:
            store(url)
        except ValueError:  # its words quote the password
            raise ValueError(
                "cannot be read; write special characters of a password as %40"
            ) from None
        return url

    return AfterValidator(check)


_Revealed = PlainSerializer(SecretStr.get_secret_value, when_used="json")
DatabaseUrl = Annotated[SecretStr, _starts_with(*DATABASES), _Revealed]
"""`sqlite:////absolute/path.db` or `postgresql://user:password@host:port/database`."""
RedisUrl = Annotated[SecretStr, _starts_with(*REDIS), _Revealed]


def store(url: SecretStr) -> tuple[object, ...]:
    """Which store a URL means, however it is written: what it leaves out is what it would say.

    Raises:
        ValueError: it cannot be read.
    """
    text = url.get_secret_value()
    if text.startswith((SQLITE, "unix://")):
        return _file(urlsplit(text, allow_fragments=False))
    found = urlsplit(text)
    if found.fragment or "@" in found.path + found.query:  # of a password that ends too early
        raise ValueError("a special character")
    named = dict(parse_qsl(found.query))
    host = named.get("host") or found.hostname or "localhost"
    port = int(named.get("port") or found.port or _PORTS[found.scheme])
    database = named.get("db") or named.get("dbname") or found.path.strip("/")
    return (host, port, database or "0")


def _file(found: SplitResult) -> tuple[object, ...]:
    if found.scheme == "sqlite":
        return ("sqlite", os.path.abspath(found.path))  # noqa: PTH100  a link is not followed
    return ("unix", found.path, dict(parse_qsl(found.query)).get("db", "0"))
