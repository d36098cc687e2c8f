"""Asks Redis before any work is taken whether it admits this worker and all that it will do.

Otherwise a right that is missing shows only when it is needed, with messages in hand.
"""

from collections.abc import Iterator
from typing import Any, Final

import redis

from reclane import _scripts, names
from reclane._connection import connect
from reclane._refusal import RIGHTS, refusal
from reclane.settings import Settings

# What is used of each key and channel: by the lane's scripts, bulk runs, what is published,
# `reclane probe`, Celery's consumer and its backend.
_ANY: Final = "PING MULTI EXEC UNSUBSCRIBE PUNSUBSCRIBE TIME"
# Never shorter than the command allows: a server may read past the end of what it is asked about.
_WHOLE: Final = (
    *("CLIENT\nTRACKING\nON", "SCRIPT\nLOAD\n1", "SCRIPT\nEXISTS\n1"),
    "EVAL\nreturn 1\n0",
)
# Others get two arguments.
_ONLY_KEYS: Final = frozenset(["DEL", "EXISTS", "MGET", "PERSIST", "SUBSCRIBE", "UNLINK", "WATCH"])
_LEASES: Final = "ZADD ZRANGE ZRANGEBYSCORE ZREM ZSCORE"
_INFLIGHT: Final = "DEL HDEL HEXISTS HGET HGETALL HKEYS HLEN HSET"
_WORKER: Final = "DEL HGET HSET"
_SCHEDULED: Final = "ZADD ZRANGE ZRANGEBYSCORE ZREM"
_ATTEMPTS: Final = "EXISTS EXPIRE HDEL HGET HSET"
_PACE: Final = "HDEL HSET"
_DEAD_LETTERS: Final = "LPUSH LTRIM"
_LISTS: Final = "EXISTS LPUSH RPOP RPUSH"
_RESULT: Final = "DEL EXPIRE GET MGET PUBLISH RPUSH SADD SET SETEX SISMEMBER SUBSCRIBE ZADD"
_CHORD: Final = "ZCOUNT ZRANGE LLEN"
_BULK_RUN: Final = "EXISTS EXPIRE HDEL HEXISTS HGET HGETALL HINCRBY HSET"
_BULK_DUE: Final = "ZADD ZCOUNT ZRANGE ZRANGEBYSCORE ZREM"
_UNACKED: Final = {
    "unacked": "HDEL HGET HSET WATCH",
    "unacked_index": "ZADD ZRANGE ZREM",
    "unacked_mutex": "DEL GET SET",
    "_kombu.binding.": "SADD SMEMBERS SREM",
}


def refused(settings: Settings) -> str | None:
    """Why Redis will not serve this worker, and what to do; None if it will, or is away now."""
    with connect(settings) as client:
        try:
            script: Any = client.register_script(
                _scripts.load("reclane_worker/rights", allow_oom=True)
            )
            missing = script(args=list(_calls(settings)))
        except redis.RedisError as error:
            return refusal(error)
    if not missing:
        return None
    calls = ", ".join(
        b" ".join(call.split(b"\n")[:2]).decode("utf-8", "replace") for call in missing
    )
    return f"Redis forbids its user what a worker needs ({calls}): {RIGHTS}"


def _calls(settings: Settings) -> Iterator[str]:
    """One call of each command on each kind of key, its words parted by line feeds."""
    keys, prefix = settings.keys, settings.key_prefix
    result = keys.result("")
    table = {
        keys.leases: _LEASES,
        keys.inflight(""): _INFLIGHT,
        keys.worker(""): _WORKER,
        keys.incarnations: "INCR",
        keys.scheduled: _SCHEDULED,
        keys.attempts: _ATTEMPTS,
        keys.pace: _PACE,
        keys.dead_letters: _DEAD_LETTERS,
        **{keys.list(queue): _LISTS for queue in names.LANE_QUEUES},
        keys.channel(names.notify_channel("")): "PUBLISH",
        keys.catalogs: "HGETALL",
        keys.catalogs_changed: "SUBSCRIBE",
        result: f"{_RESULT} {_CHORD} GETRANGE UNLINK",
        keys.bulk_runs: "ZADD ZREMRANGEBYRANK",
        keys.bulk_due: _BULK_DUE,
        keys.bulk_run(""): _BULK_RUN,
        keys.bulk_chunks(""): "EXPIRE HDEL HGETALL HSET UNLINK",
        keys.bulk_parts(""): "EXPIRE LRANGE RPUSH",
        keys.bulk_bad(""): "EXPIRE LTRIM RPUSH",
        keys.bulk_output(""): "EXPIRE HDEL HKEYS HSET PERSIST",
        **{prefix + name: commands for name, commands in _UNACKED.items()},
    }
    yield from _ANY.split()
    yield from _WHOLE
    for key, commands in table.items():
        for command in commands.split():
            yield f"{command}\n{key}" if command in _ONLY_KEYS else f"{command}\n{key}\n1\n1"
    yield f"BRPOP\n{keys.list(names.TASKS_QUEUE)}\n1"
    database = settings.redis_options().get("db", 0)
    for exchange in ("celery.pidbox", "celeryev/worker.*"):  # Celery's remote control and gossip
        yield f"PSUBSCRIBE\n{prefix}/{database}.{exchange}"
    if database:
        yield f"SELECT\n{database}"
