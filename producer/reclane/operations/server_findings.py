"""Judges the Redis server. Pure: facts in, findings out."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reclane.operations.config_findings import AREA, PUBSUB_BUFFER, judge_config
from reclane.operations.facts import ServerFacts
from reclane.operations.findings import Finding, ok, problem, size, unknown, warning

FULL: Final = 0.95
FILLING: Final = 0.80
SLOW_MS: Final = 10.0
SKEW_WARNING_S: Final = 1.0
SKEW_PROBLEM_S: Final = 10.0


def judge_server(facts: ServerFacts) -> Iterator[Finding]:
    """All findings about the server, in the order to read them."""
    yield from _from_info(facts.info)
    yield from judge_config(facts.config, facts.info or {})
    yield _clock(facts.skew_s)
    yield _latency(facts.latency_ms)
    yield _subscribers(facts.pubsub_lag)
    yield _scripts(facts.scripts)
    yield from _access(facts)


def _from_info(info: Mapping[str, Any] | None) -> Iterator[Finding]:
    if info is None:
        for name in ("version", "role", "memory", "evictions", "last writes", "connections"):
            yield unknown(AREA, name, "INFO")
        return
    yield _version(info)
    yield _role(info)
    yield _memory(info)
    yield _evictions(info)
    yield _last_writes(info)
    yield _connections(info)


def _version(info: Mapping[str, Any]) -> Finding:
    valkey = info.get("valkey_version")
    shown = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', '?')}"
    major = str(info.get("redis_version", "")).partition(".")[0]
    if not valkey and major.isdigit() and int(major) < 7:
        return problem(
            AREA, "version", f"{shown} knows no script flags", "use Redis 7 or later, or Valkey"
        )
    return ok(AREA, "version", shown)


def _role(info: Mapping[str, Any]) -> Finding:
    if info.get("loading"):
        return problem(AREA, "role", "the server is loading its data", "wait, and try again")
    if info.get("cluster_enabled"):
        return problem(AREA, "role", "this is a Redis Cluster node", "use a single primary")
    if info.get("role") != "master":
        fix = "point RECLANE_REDIS_URL at the primary"
        return problem(AREA, "role", "this is a replica: it refuses writes", fix)
    return ok(AREA, "role", f"primary, {info.get('connected_slaves', 0)} replicas")


def _memory(info: Mapping[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        machine = int(info.get("total_system_memory", 0))
        fix = "set maxmemory below what the machine has, so that Redis refuses before it is killed"
        of = f" of the machine's {size(machine)}" if machine else ""
        return warning(AREA, "memory", f"{size(used)} used{of}, no maxmemory", fix)
    text = f"{size(used)} of maxmemory {size(limit)} used ({used / limit:.0%})"
    fix = "raise maxmemory, shorten RECLANE_RESULT_TTL_S or add workers; see `reclane queue ls`"
    if used >= FULL * limit:
        return problem(AREA, "memory", text, fix)
    return (
        warning(AREA, "memory", text, fix) if used >= FILLING * limit else ok(AREA, "memory", text)
    )


def _evictions(info: Mapping[str, Any]) -> Finding:
    evicted = int(info.get("evicted_keys", 0))
    if evicted:
        fix = "set maxmemory-policy noeviction: an evicted queue or result is a lost request"
        return problem(AREA, "evictions", f"{evicted} keys were evicted since the start", fix)
    return ok(AREA, "evictions", "none since the start")


def _last_writes(info: Mapping[str, Any]) -> Finding:
    names = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    failed = [name for name in names if info.get(name, "ok") != "ok"]
    if failed:
        fix = "look into the server's log and its disk; Redis may refuse writes meanwhile"
        return problem(AREA, "last writes", f"failed: {', '.join(failed)}", fix)
    return ok(AREA, "last writes", "the last writes to disk went well")


def _connections(info: Mapping[str, Any]) -> Finding:
    now, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    text = f"{now} clients" + (f" of {most}" if most else "")
    if most and now >= FILLING * most:
        return warning(AREA, "connections", text, "raise maxclients, or close idle clients")
    return ok(AREA, "connections", text)


def _clock(skew_s: float | None) -> Finding:
    if skew_s is None:
        return unknown(AREA, "clock", "TIME")
    text = f"the server's clock is {abs(skew_s):.2f} s {'ahead' if skew_s > 0 else 'behind'}"
    fix = "synchronise clocks (NTP): deadlines and schedules of this machine are off by as much"
    if abs(skew_s) >= SKEW_PROBLEM_S:
        return problem(AREA, "clock", text, fix)
    return (
        warning(AREA, "clock", text, fix)
        if abs(skew_s) >= SKEW_WARNING_S
        else ok(AREA, "clock", text)
    )


def _latency(latency_ms: float | None) -> Finding:
    if latency_ms is None:
        return unknown(AREA, "latency", "PING")
    text = f"a round trip takes {latency_ms:.2f} ms"
    if latency_ms >= SLOW_MS:
        fix = "move closer to the server, or look for what keeps it busy (SLOWLOG GET)"
        return warning(AREA, "latency", text, fix)
    return ok(AREA, "latency", text)


def _subscribers(lag: int | None) -> Finding:
    if lag is None:
        return unknown(AREA, "subscribers", "CLIENT LIST")
    if lag >= PUBSUB_BUFFER / 4:
        fix = "end the client that does not read (CLIENT LIST TYPE pubsub, the largest omem)"
        return warning(AREA, "subscribers", f"one has {size(lag)} yet to read", fix)
    return ok(AREA, "subscribers", "all keep up")


def _scripts(reply: str | None) -> Finding:
    if reply is None:
        return unknown(AREA, "scripts", "EVAL")
    if reply:
        fix = "use Redis 7 or later, or Valkey, and allow EVAL and EVALSHA to this user"
        return problem(AREA, "scripts", f"a script is refused: {reply[:200]}", fix)
    return ok(AREA, "scripts", "scripts with flags run")


def _access(facts: ServerFacts) -> Iterator[Finding]:
    denied = facts.denied
    if denied is None:
        yield unknown(AREA, "access", "ACL DRYRUN")
        return
    if denied.client:
        fix = f"ACL SETUSER {denied.user} with the commands, keys and channels named"
        yield problem(AREA, "access", f"a client needs {', '.join(denied.client)}", fix)
    if denied.worker:
        fix = f"ACL SETUSER {denied.user} with these, if workers use this user"
        yield warning(AREA, "worker access", f"a worker needs {', '.join(denied.worker)}", fix)
    if not denied.client and not denied.worker:
        yield ok(AREA, "access", f"user {denied.user} may do all that clients and workers need")
