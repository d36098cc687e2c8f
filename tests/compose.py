"""Reads the files under deploy/ as Compose and Docker would: what does each service run, and how.

Only what those files use is understood; anything else fails.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
EXAMPLE = DEPLOY / ".env.example"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")
_SECONDS = {"s": 1, "m": 60}


@dataclass
class Image:
    """What one target of the Dockerfile fixes for a container."""

    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] | None = None
    health: list[str] | None = None
    user: str = "root"
    stop_signal: str = ""
    copies: list[tuple[str, list[str]]] = field(default_factory=list)  # (--from or "", sources)


@dataclass
class Service:
    """What Compose would run; the environment holds the image's, too."""

    name: str
    command: list[str]
    environment: dict[str, str]
    health: list[str] | None
    mounts: dict[str, str]  # path in the container -> source
    stop_grace_s: float


def example() -> dict[str, str]:
    """The values of .env.example."""
    return {k: v for k, v in dotenv_values(EXAMPLE).items() if v is not None}


def variables(text: str) -> dict[str, bool]:
    """Every variable that is interpolated -> whether it must be given."""
    found: dict[str, bool] = {}
    for name, mark, _ in _VARIABLE.findall(text):
        found[name] = found.get(name, False) or mark == ":?"
    return found


def interpolate(text: str, given: Mapping[str, str]) -> str:
    """As Compose does it: ${NAME}, ${NAME:-default}, ${NAME:?message}."""

    def value(match: re.Match[str]) -> str:
        name, mark, rest = match.groups()
        found = given.get(name, "")
        if not found and mark != ":-":
            raise AssertionError(f"{name} is not given: {rest}")
        return found or rest

    return _VARIABLE.sub(value, text)


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """A compose file as it stands, anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text("utf-8"))
    return loaded


def services(given: Mapping[str, str]) -> dict[str, Service]:
    """Every service of compose.yaml with variables from `given`."""
    return {name: _service(name, raw, given) for name, raw in compose()["services"].items()}


def _service(name: str, raw: dict[str, Any], given: Mapping[str, str]) -> Service:
    image = images()[raw["build"]["target"]] if "build" in raw else Image()
    environment = dict(image.environment)
    for key, value in (raw.get("environment") or {}).items():
        if value is not None:
            environment[key] = interpolate(str(value), given)
        elif key in given:  # passed on where it is set
            environment[key] = given[key]
    command = raw.get("command") or image.command
    assert isinstance(command, list), f"{name}: write its command as a list"
    mounts = {}
    for volume in raw.get("volumes", []):
        source, target, *_ = interpolate(volume, given).split(":")
        mounts[target] = source
    health = image.health
    if "healthcheck" in raw:
        kind, *health = raw["healthcheck"]["test"]
        assert kind == "CMD"
    return Service(
        name,
        [interpolate(part, given) for part in command],
        environment,
        health,
        mounts,
        seconds(raw["stop_grace_period"]),
    )


def seconds(text: str) -> float:
    """A duration such as 30s or 2m, in seconds."""
    return float(text[:-1]) * _SECONDS[text[-1]]


def images() -> dict[str, Image]:
    """Every stage of the Dockerfile, with what it has from the stages it is built on."""
    stages: dict[str, Image] = {}
    image = Image()
    for instruction, rest in _instructions():
        if instruction == "FROM":
            parent, _, name = rest.split()
            below = stages.get(parent, Image())
            image = stages[name] = Image(
                dict(below.environment), below.command, below.health, below.user, below.stop_signal
            )
        elif instruction == "ENV":
            image.environment.update(part.split("=", 1) for part in shlex.split(rest))
        elif instruction == "CMD":
            image.command = json.loads(rest)  # the exec form, or it fails here
        elif instruction == "HEALTHCHECK":
            image.health = json.loads(rest.split("CMD", 1)[1])
        elif instruction == "USER":
            image.user = rest
        elif instruction == "STOPSIGNAL":
            image.stop_signal = rest
        elif instruction == "COPY":
            *sources, _ = rest.split()
            origin = sources.pop(0) if sources[0].startswith("--from=") else ""
            image.copies.append((origin.removeprefix("--from="), sources))
        else:
            assert instruction in ("ARG", "RUN", "WORKDIR"), instruction
    return stages


def _instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.split(None, 1) for line in joined.splitlines()]
    return [(instruction, rest.strip()) for instruction, rest in pairs]
