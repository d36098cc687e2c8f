"""What doctor has to say: one finding each, with its fix in one sentence."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a finding is; `unknown` is what this user may not look at."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. `fix` is empty where there is nothing to do."""

    area: str
    name: str
    level: Level
    text: str
    fix: str = ""


def ok(area: str, name: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(area, name, Level.OK, text)


def warning(area: str, name: str, text: str, fix: str) -> Finding:
    """It works, and may not for long."""
    return Finding(area, name, Level.WARNING, text, fix)


def problem(area: str, name: str, text: str, fix: str) -> Finding:
    """Requests are lost, wait for ever or are refused."""
    return Finding(area, name, Level.PROBLEM, text, fix)


def unknown(area: str, name: str, command: str) -> Finding:
    """Redis does not let this user run `command`."""
    return Finding(
        area,
        name,
        Level.UNKNOWN,
        f"{command} is refused",
        f"allow {command} to this user, or ask somebody who may run it",
    )


def has_problems(findings: Iterable[Finding]) -> bool:
    """Whether doctor ends with exit code 1."""
    return any(finding.level is Level.PROBLEM for finding in findings)


def size(number: Any) -> str:
    """Bytes in the unit that fits."""
    value = float(number)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1_000:
            return f"{value:.0f} {unit}"
        value /= 1_000
    return f"{value:.1f} TB"
