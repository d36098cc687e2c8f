"""Where each setting comes from, secrets hidden."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from reclane.settings import Settings

_CREDENTIALS: Final = re.compile(r"(?<=//).*@")


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting: its name in the environment, its value as it may be shown, its source."""

    name: str
    value: str
    source: str


def origins(settings: Settings) -> Iterator[Origin]:
    """Every setting of a client, in the order of the README."""
    kind = type(settings)
    environment, file = EnvSettingsSource(kind)(), DotEnvSettingsSource(kind)()
    for name in kind.model_fields:
        source = "environment" if name in environment else ".env" if name in file else "default"
        yield Origin(f"RECLANE_{name.upper()}", _shown(getattr(settings, name)), source)


def _shown(value: object) -> str:
    """A URL without its user, password and query, which may hold either."""
    if isinstance(value, SecretStr):
        return _CREDENTIALS.sub("***@", value.get_secret_value().partition("?")[0])
    return str(value)
