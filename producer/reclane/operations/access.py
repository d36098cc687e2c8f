"""What Redis's access control lists must allow, tried without doing it (ACL DRYRUN, Redis 7)."""

from dataclasses import dataclass
from typing import Any

from reclane import names


@dataclass(frozen=True, slots=True)
class Denied:
    """Who we are, and which commands are refused to us: those of a client, those of a worker."""

    user: str
    client: tuple[str, ...]
    worker: tuple[str, ...]


def client_needs(keys: names.Keys) -> list[tuple[str, ...]]:
    """Commands of a client and its scripts, on the keys and channels it uses."""
    result, queue = keys.result("doctor"), keys.list(names.INTERACTIVE_QUEUE)
    channel = keys.channel(names.notify_channel("doctor"))
    return [
        ("EVAL", "return 1", "1", queue),
        ("EVALSHA", "-", "1", queue),
        ("SCRIPT", "LOAD", "return 1"),
        ("LPUSH", queue, "-"),
        ("LLEN", queue),
        ("HVALS", keys.pace),
        ("GET", result),
        ("MGET", result),
        ("EXISTS", result),
        ("TTL", result),
        ("SET", result, "-"),
        ("UNLINK", result),
        ("PUBLISH", channel, "-"),
        ("PUBLISH", result, "-"),
        ("SUBSCRIBE", channel),
    ]


def worker_needs(keys: names.Keys) -> list[tuple[str, ...]]:
    """Commands of a worker and its scripts, beyond those of a client."""
    lane, celery = keys.list(names.BULK_QUEUE), keys.list(names.TASKS_QUEUE)
    held, worker = keys.inflight("-"), keys.worker("-")
    return [
        ("TIME",),
        ("RPOP", lane, "1"),
        ("RPUSH", lane, "-"),
        ("HSET", held, "-", "-"),
        ("HGET", held, "-"),
        ("HDEL", held, "-"),
        ("HEXISTS", held, "-"),
        ("HLEN", held),
        ("HKEYS", held),
        ("HGETALL", held),
        ("HSET", worker, "-", "-"),
        ("DEL", worker),
        ("HSET", keys.pace, "-", "-"),
        ("HDEL", keys.pace, "-"),
        ("ZADD", keys.leases, "0", "-"),
        ("ZSCORE", keys.leases, "-"),
        ("ZRANGEBYSCORE", keys.leases, "0", "0"),
        ("ZRANGE", keys.scheduled, "0", "0"),
        ("ZREM", keys.scheduled, "-"),
        ("INCR", keys.incarnations),
        ("HSET", keys.attempts, "-", "1"),
        ("EXPIRE", keys.attempts, "1"),
        ("LPUSH", keys.dead_letters, "-"),
        ("LTRIM", keys.dead_letters, "0", "1"),
        ("CLIENT", "TRACKING", "ON"),
        # Celery's own consumer, beside the lane.
        ("BRPOP", celery, "1"),
        ("SADD", celery, "-"),
        ("SREM", celery, "-"),
        ("SMEMBERS", celery),
        ("MULTI",),
        ("EXEC",),
    ]


def denied(client: Any, keys: names.Keys) -> Denied:
    """Ask Redis about each command that is needed.

    Raises:
        redis.ResponseError: asking itself is refused.
    """
    user = client.acl_whoami()
    user = user.decode() if isinstance(user, bytes) else str(user)

    def refused(needs: list[tuple[str, ...]]) -> tuple[str, ...]:
        with client.pipeline(transaction=False) as pipe:
            for command in needs:
                pipe.execute_command("ACL DRYRUN", user, *command)
            replies = pipe.execute()
        said = dict(zip(needs, replies, strict=True))
        return tuple(_shown(c) for c, reply in said.items() if reply not in (b"OK", "OK", True))

    return Denied(user, refused(client_needs(keys)), refused(worker_needs(keys)))


def _shown(command: tuple[str, ...]) -> str:
    return " ".join(command[:2])
