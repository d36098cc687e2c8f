"""The lane: lease, start, commit, give back, renew, recover. All of Redis on the hot path.

A message is always either in a list, in the schedule, or in exactly one worker's in-flight
hash; every move between them is one Lua script. Every call may be repeated after a lost reply:
lease by its batch id, commit because an entry ends only once, the rest by nature. No call
retries by itself; callers decide (see `loop.py` and `keeper.py`).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_
from hashlib import sha1
from itertools import count
from typing import Any, Final, TypeVar

import redis

from reclane import _scripts, names
from reclane._connection import connect
from reclane._refusal import refusal
from reclane_worker.settings import MAX_LEASE_MESSAGES, WorkerSettings

_SHARED: Final = ("reclane/terminal", "reclane_worker/entry")
_SCRIPTS: Final = (*("lease", "start", "commit", "mark", "give_back", "renew", "recover", "leave"),)
MAX_DEAD_LETTERS: Final = 10_000
CRASH_MEMORY_S: Final = 86_400
LOG_EVERY: Final = 10

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One leased message: its in-flight field, the list it came from, its bytes.

    `crashes` counts how often a process died after it had started on it; `parts` those of a
    chunk's requests, by their places, where it is known which ran.
    """

    field: str
    origin: str
    raw: bytes
    crashes: int
    parts: Mapping[int, int] = field_(default_factory=dict)

    @property
    def suspect(self) -> bool:
        return bool(self.crashes or self.parts)

    @property
    def bulk(self) -> bool:
        return names.is_bulk(self.origin)


@dataclass(frozen=True, slots=True)
class Leased:
    """What one lease call returned; times are milliseconds of Redis's clock, and `at` is when the
    reply came, monotonic seconds."""

    incarnation: int
    now_ms: int
    next_due_ms: int | None
    entries: tuple[Entry, ...]
    at: float

    def now_s(self) -> float:
        """Redis's clock, seconds since the epoch: this machine's own may be an hour off."""
        return self.now_ms / 1e3 + time.monotonic() - self.at


@dataclass(frozen=True, slots=True)
class Ending:
    """How an entry ends: a stored result or none, whom to tell, a dead letter or none.

    `channel` is as the message spells it, `others` as the placeholder does, under the prefix. Dead
    letters are one a line. With `revoked` a revocation that is stored already need not be kept for
    this message any longer.
    """

    field: str
    task_id: str = ""
    meta: bytes = b""
    channel: str = ""
    dead_letters: bytes = b""
    others: tuple[str, ...] = ()
    revoked: bool = False

    def arguments(self, keys: names.Keys) -> tuple[str | bytes, ...]:
        """One entry's part of commit.lua's arguments."""
        key = keys.result(self.task_id) if self.meta or self.revoked else ""
        ours = [keys.channel(self.channel)] if self.channel else []
        channels = "\n".join([*ours, *self.others])
        return self.field, key, self.meta, channels, self.task_id, self.dead_letters


@dataclass(frozen=True, slots=True)
class Committed:
    """Fields that were not ours any more, and those that ended without the result they came with,
    because another one stands or the key waits for another request."""

    lost: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()


class Lane:
    """One worker's lane over one connection. Not for several threads: make one each."""

    def __init__(self, settings: WorkerSettings, worker_id: str) -> None:
        self._settings = settings
        self._id = worker_id
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._keys = settings.keys
        self._inflight = self._keys.inflight(worker_id)
        self._worker = self._keys.worker(worker_id)
        self._incarnation = 0
        self._scripts: dict[str, Any] = {
            name: self._redis.register_script(
                _scripts.load(*_SHARED, f"reclane_worker/{name}", allow_oom=True)
            )
            for name in _SCRIPTS
        }

    def lease(
        self,
        batch_id: int,
        limit: int,
        queues: Sequence[str] = names.LANE_QUEUES,
        *,
        bulk_kept: int = 0,
        bulk_most: int = MAX_LEASE_MESSAGES,
    ) -> Leased:
        """Take up to `limit` messages of `queues` under `batch_id`, and renew the lease.

        Interactive ones first, but `bulk_kept` places are bulk's while any waits; `bulk_most` is
        how many of the messages may be bulk.

        Batch ids only grow. Where the lease was lost, the first call hears of the new incarnation
        and takes nothing: one that arrives late can then never take what nobody works on.
        """
        while True:
            leased = self._lease(batch_id, limit, queues, (bulk_kept, bulk_most))
            if leased.incarnation == self._incarnation:
                return leased
            self._incarnation = leased.incarnation

    def _lease(
        self, batch_id: int, limit: int, queues: Sequence[str], bulk: tuple[int, int]
    ) -> Leased:
        interactive = self._keys.lane_lists([q for q in queues if not names.is_bulk(q)])
        keys = [
            self._keys.leases,
            self._inflight,
            self._worker,
            self._keys.incarnations,
            self._keys.scheduled,
            self._keys.attempts,
            *interactive,
            *self._keys.lane_lists([q for q in queues if names.is_bulk(q)]),
        ]
        bounds = self._settings.lease_ms, batch_id, limit, self._settings.lease_bytes
        reply = self._run("lease", keys, *bounds, len(interactive), *bulk, self._incarnation)
        entries = tuple(
            Entry(
                reply[i].decode(),
                reply[i + 1].decode().removeprefix(self._keys.prefix),
                reply[i + 2],
                *_crashes(reply[i + 3]),
            )
            for i in range(3, len(reply), 4)
        )
        next_due_ms = reply[2] if reply[2] >= 0 else None
        return Leased(reply[0], reply[1], next_due_ms, entries, time.monotonic())

    def stored(self, task_ids: Sequence[str]) -> dict[str, bytes]:
        """Placeholders and results of those ids that have any; one read."""
        if not task_ids:
            return {}
        found = self._redis.mget([self._keys.result(i) for i in task_ids])
        return {i: raw for i, raw in zip(task_ids, found, strict=True) if raw is not None}

    def mark(self, task_id: str, digest: str) -> None:
        """Note the digest of a keyed request in a result that Celery has stored."""
        self._scripts["mark"](keys=[self._keys.result(task_id)], args=[digest])

    def start(self, started: Sequence[str]) -> bool:
        """Record what may be to blame if the process dies: fields, or parts of a chunk as
        `part_of` names them. False when the lease was lost."""
        return bool(self._run("start", [self._keys.leases, self._worker], "\n".join(started)))

    def commit(self, endings: Sequence[Ending]) -> Committed:
        """End entries and make their results visible, or say why they did not become so."""
        keys = [self._inflight, self._keys.attempts, self._keys.dead_letters]
        arguments: list[Any] = [self._settings.result_ttl_s, MAX_DEAD_LETTERS]
        for ending in endings:
            arguments.extend(ending.arguments(self._keys))
        reply = self._scripts["commit"](keys=keys, args=arguments)
        return Committed(*(frozenset(field.decode() for field in fields) for fields in reply))

    def give_back(self, fields: Sequence[str], due_ms: int = -1) -> int:
        """Return entries to their lists, or park them until `due_ms`; how many were ours."""
        keys = [self._inflight, self._keys.scheduled]
        return int(self._scripts["give_back"](keys=keys, args=[due_ms, *fields]))

    def owns(self, field: str) -> bool:
        """Whether an entry is still in this worker's in-flight hash."""
        return bool(self._redis.hexists(self._inflight, field))

    def absolve(self, raws: Sequence[bytes]) -> None:
        """Forget crashes blamed on messages that were computed after all."""
        # SHA-1 because Redis's scripts offer no other digest; nothing rests on its strength.
        digests = [sha1(raw, usedforsecurity=False).hexdigest() for raw in raws]
        self._redis.hdel(self._keys.attempts, *digests)

    def renew(self, statistics: str, pace: float | None = None) -> bool:
        """Renew the lease; False when somebody recovered this worker's messages. `pace` is in
        requests per second."""
        keys = [self._keys.leases, self._worker, self._keys.pace]
        told = f"{pace:.3f}" if pace else ""
        return bool(self._run("renew", keys, self._settings.lease_ms, statistics, told))

    def recover(self) -> list[tuple[str, int, int]]:
        """Return lapsed workers' messages: (worker, entries returned, entries started)."""
        prefixes = self._keys.inflight(""), self._keys.worker("")
        keys = [self._keys.leases, self._keys.attempts, self._keys.pace]
        reply = self._run("recover", keys, *prefixes, CRASH_MEMORY_S)
        return [(reply[i].decode(), reply[i + 1], reply[i + 2]) for i in range(0, len(reply), 3)]

    def is_full(self) -> bool:
        """Whether Redis has no room: then it takes only the lane's own writes."""
        try:
            self._redis.eval(_scripts.load("reclane_worker/writable"), 0)
        except redis.OutOfMemoryError:
            return True
        return False

    def leave(self) -> bool:
        """Give up the lease; False while anything is in flight."""
        keys = [self._keys.leases, self._inflight, self._worker, self._keys.pace]
        return bool(self._run("leave", keys))

    def held(self) -> list[str]:
        """Fields still in flight, oldest first."""
        fields = [field.decode() for field in self._redis.hkeys(self._inflight)]
        return sorted(fields, key=lambda field: tuple(map(int, field.split(":"))))

    def close(self) -> None:
        self._redis.close()

    def _run(self, script: str, keys: list[str], *arguments: object) -> Any:
        return self._scripts[script](keys=keys, args=[self._id, *arguments])


def part_of(field: str, place: int) -> str:
    """Names one request of a chunk in `start`."""
    return f"{field}#{place}"


def _crashes(counted: bytes) -> tuple[int, dict[int, int]]:
    """Those of a message and of its parts, as recover.lua writes them: `1 3:2 7:1`."""
    whole, *parts = counted.split()
    return int(whole), {int(place): int(n) for place, _, n in (p.partition(b":") for p in parts)}


_PASSING_CODES: Final = (
    *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY"),
    "TRYAGAIN",
)


def is_passing(error: redis.RedisError) -> bool:
    """Whether Redis is away or refuses for now, so that the same call may be repeated."""
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | redis.ReadOnlyError):
        return True
    return isinstance(error, redis.ResponseError) and str(error).startswith(_PASSING_CODES)


def patiently(call: Callable[[], _T]) -> _T:
    """Repeat an idempotent call until Redis answers; a drain has its own bound."""
    pause_s = 0.05
    for attempt in count():
        try:
            return call()
        except redis.RedisError as error:
            if not is_passing(error):
                raise
            if attempt % LOG_EVERY == 0:
                why = refusal(error) or type(error).__name__
                _log.warning("Redis is away (%s); trying again", why)
            time.sleep(pause_s)
            pause_s = min(1.0, pause_s * 2)
    raise AssertionError("count() does not end")
