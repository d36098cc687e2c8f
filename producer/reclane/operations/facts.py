"""Collects what doctor judges. A command that Redis refuses leaves None, never an error."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import redis

from reclane import names
from reclane.operations import access
from reclane.operations.queues import Overview, overview
from reclane.probe import read_statistics

PINGS: Final = 20
MAX_SCANNED_STEPS: Final = 1_000
SCAN_COUNT: Final = 1_000
CONFIG: Final = (
    "maxmemory-policy",
    "appendonly",
    "appendfsync",
    "client-output-buffer-limit",
    "notify-keyspace-events",
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The Redis server. `info` is INFO, `config` the parameters in CONFIG; `skew_s` is the
    server's clock minus ours; `pubsub_lag` is the most bytes any subscriber has yet to read."""

    info: Mapping[str, Any] | None = None
    config: Mapping[str, str] | None = None
    latency_ms: float | None = None
    skew_s: float | None = None
    pubsub_lag: int | None = None
    scripts: str | None = None
    """What Redis said to a script with flags: '' is success."""
    denied: access.Denied | None = None


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """Queues, workers and what was left behind. `orphans` is in-flight hashes without a lease,
    worker id -> messages; None where scanning was refused or the database is too large."""

    overview: Overview | None = None
    statistics: Mapping[str, Mapping[str, Any]] | None = None
    orphans: Mapping[str, int] | None = None
    crashed: int | None = None
    listeners: int | None = None


def server_facts(client: Any, keys: names.Keys) -> ServerFacts:
    """Look at the server.

    Raises:
        redis.ConnectionError, redis.TimeoutError: it cannot be reached.
    """
    return ServerFacts(
        info=_allowed(client.info),
        config=_allowed(lambda: _config(client)),
        latency_ms=_allowed(lambda: _latency_ms(client)),
        skew_s=_allowed(lambda: _skew_s(client)),
        pubsub_lag=_allowed(lambda: _pubsub_lag(client)),
        scripts=_script_reply(client),
        denied=_allowed(lambda: access.denied(client, keys)),
    )


def lane_facts(client: Any, keys: names.Keys) -> LaneFacts:
    """Look at queues and workers; raises as `server_facts` does."""
    seen = _allowed(lambda: overview(client, keys))
    workers = [one.worker for one in seen.workers] if seen else []
    return LaneFacts(
        overview=seen,
        statistics=_allowed(lambda: _statistics(client, keys, workers)),
        orphans=_allowed(lambda: _orphans(client, keys)),
        crashed=_allowed(lambda: int(client.hlen(keys.attempts))),
        listeners=_allowed(lambda: _listeners(client, keys)),
    )


def _allowed(look: Callable[[], _T]) -> _T | None:
    """What was seen, or None where Redis refuses."""
    try:
        return look()
    except redis.ResponseError:
        return None


def _config(client: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in CONFIG:  # one by one: Redis 6 takes no more
        found |= client.config_get(name)
    return found


def _latency_ms(client: Any) -> float:
    """The median of PINGS round trips."""
    times_ms = []
    for _ in range(PINGS):
        started = time.perf_counter()
        client.ping()
        times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms)


def _skew_s(client: Any) -> float:
    before = time.time()
    seconds, micros = client.time()
    return float(seconds + micros / 1e6 - (before + time.time()) / 2)


def _pubsub_lag(client: Any) -> int:
    return max((int(c["omem"]) for c in client.client_list(_type="pubsub")), default=0)


def _script_reply(client: Any) -> str:
    try:
        client.eval("#!lua flags=allow-oom\nreturn 1", 0)
    except redis.ResponseError as error:
        return str(error)
    return ""


def _statistics(client: Any, keys: names.Keys, workers: list[str]) -> dict[str, dict[str, Any]]:
    """Each worker's last published counters and versions."""
    found = {}
    for worker in workers:
        found[worker] = read_statistics(client.hget(keys.worker(worker), "stats"))
    return found


def _orphans(client: Any, keys: names.Keys) -> dict[str, int] | None:
    """Scan first and read the leases after: a worker that comes meanwhile has its lease then."""
    ids: set[str] = set()
    cursor = 0
    for _ in range(MAX_SCANNED_STEPS):
        cursor, page = client.scan(cursor, match=keys.inflight("*"), count=SCAN_COUNT)
        ids |= {_text(key).removeprefix(keys.inflight("")) for key in page}
        if not cursor:
            break
    else:
        return None
    leased = {_text(worker) for worker in client.zrange(keys.leases, 0, -1)}
    held = {worker: int(client.hlen(keys.inflight(worker))) for worker in sorted(ids - leased)}
    return {worker: count for worker, count in held.items() if count}


def _listeners(client: Any, keys: names.Keys) -> int:
    return len(client.pubsub_channels(keys.channel(names.notify_channel("*"))))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
