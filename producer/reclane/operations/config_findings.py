"""Judges how the Redis server is configured. Pure: facts in, findings out."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reclane.operations.findings import Finding, ok, problem, size, unknown, warning

AREA: Final = "redis"
PUBSUB_BUFFER: Final = 33_554_432  # bytes, Redis's own default


def judge_config(config: Mapping[str, str] | None, info: Mapping[str, Any]) -> Iterator[Finding]:
    """All findings that need CONFIG GET; AOF alone is in INFO, too."""
    if config is None:
        for name in ("policy", "output buffers", "notifications"):
            yield unknown(AREA, name, "CONFIG GET")
        yield _persistence(None, info)
        return
    yield _policy(config, info)
    yield _persistence(config, info)
    yield _buffers(config)
    yield _notifications(config)


def _policy(config: Mapping[str, str], info: Mapping[str, Any]) -> Finding:
    policy = config.get("maxmemory-policy", "")
    if policy == "noeviction":
        return ok(AREA, "policy", "maxmemory-policy noeviction")
    fix = "CONFIG SET maxmemory-policy noeviction, and the same in the server's file"
    if int(info.get("maxmemory", 0)) or not info:
        return problem(AREA, "policy", f"{policy} may throw requests and results away", fix)
    return warning(AREA, "policy", f"{policy} would act as soon as maxmemory is set", fix)


def _persistence(config: Mapping[str, str] | None, info: Mapping[str, Any]) -> Finding:
    """AOF is known from INFO, too; how often it is synced from CONFIG alone."""
    enabled = None if config is None else config.get("appendonly") == "yes"
    if enabled is None and "aof_enabled" in info:
        enabled = bool(info["aof_enabled"])
    if enabled is None:
        return unknown(AREA, "persistence", "CONFIG GET")
    if not enabled:
        fix = "CONFIG SET appendonly yes and appendfsync always, and the same in the server's file"
        return problem(AREA, "persistence", "no AOF: a crash forgets accepted requests", fix)
    fsync = None if config is None else config.get("appendfsync")
    if fsync is None:
        return unknown(AREA, "persistence", "CONFIG GET")
    if fsync != "always":
        fix = "CONFIG SET appendfsync always where not one accepted request may be lost"
        lost = "a second" if fsync == "everysec" else "some seconds"
        return warning(AREA, "persistence", f"AOF, {fsync}: a crash may forget {lost}", fix)
    return ok(AREA, "persistence", "AOF, synced with every write")


def _buffers(config: Mapping[str, str]) -> Finding:
    words = config.get("client-output-buffer-limit", "").split()
    try:
        at = words.index("pubsub")
        hard = int(words[at + 1])
    except (ValueError, IndexError):
        return unknown(AREA, "output buffers", "CONFIG GET client-output-buffer-limit")
    if 0 < hard < PUBSUB_BUFFER:
        fix = "CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60'"
        text = f"a subscriber that lags by {size(hard)} is cut off"
        return warning(AREA, "output buffers", text, fix)
    text = f"cut off at {size(hard)}; answers are then read again" if hard else "without limit"
    return ok(AREA, "output buffers", f"subscribers: {text}")


def _notifications(config: Mapping[str, str]) -> Finding:
    events = config.get("notify-keyspace-events", "")
    if events:
        fix = "CONFIG SET notify-keyspace-events '' unless something else listens to them"
        text = f"keyspace events {events!r} cost time on every write; reclane needs none"
        return warning(AREA, "notifications", text, fix)
    return ok(AREA, "notifications", "no keyspace events")
