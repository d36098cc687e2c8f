"""A real server, simulated workers and producers, and a network between them that loses replies.

Every script that anybody sends is run on the server and in `lane_spec.Spec`, and both must reply
and publish alike. A worker here is the lane's own code (`Lane`, `triage`) without its threads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha1
from typing import Any

import redis

from lane_spec import FAR, Crashes, Pending, Record, Spec, blame, crashes, digest
from reclane import _outgoing, names, wire
from reclane._outbox import ENQUEUE
from reclane.contract import Failure
from reclane.operations import letters, purging
from reclane_worker.lane import Ending, Entry, Lane, part_of
from reclane_worker.settings import WorkerSettings
from reclane_worker.triage import Job, celery_failed, decode, end_with, triage

KEYS = names.Keys()
Blamed = tuple[str, str]  # a message's digest, and its part or ''
NOW = 1_700_000_000.0  # s; what simulated workers take for the time
MAX_ATTEMPTS = 2
KEPT_COPIES = 12
LAPSED = 1  # ms: a lease that ended long ago


class Fate(Enum):
    """What the network does to a call."""

    HEARD = "executed, and its reply arrives"
    LOST = "executed, and its reply is lost"
    DELAYED = "its sender gives up waiting; it is executed later, or never"


@dataclass(frozen=True)
class State:
    """What Redis holds, and what was published since the state before."""

    lists: dict[str, list[bytes]]
    scheduled: dict[bytes, float]
    inflight: dict[str, dict[bytes, bytes]]
    leases: dict[str, float]
    records: dict[str, Record]
    results: dict[str, bytes]
    ttl_s: dict[str, int]
    attempts: dict[str, Crashes]
    paces: set[str]
    letters: list[bytes]
    published: list[tuple[str, bytes]]
    ran: list[str]  # scripts, since the state before
    blamed: list[Blamed]  # what a recovery found started, since the state before

    def messages(self) -> list[bytes]:
        """Every message that is anywhere, once for each place."""
        entries = [entry for held in self.inflight.values() for entry in held.values()]
        entries += self.scheduled
        waiting = [message for messages in self.lists.values() for message in messages]
        return waiting + [entry.split(b"\n", 1)[1] for entry in entries]


class Network:
    """Runs commands on the server, the scripts among them in the specification too."""

    def __init__(self, url: str, settings: WorkerSettings, broken: Mapping[str, str]) -> None:
        self.raw = redis.Redis.from_url(url)
        self.raw.flushdb()
        self.spec = Spec()
        self.fate = Fate.HEARD
        self.copies: list[tuple[Any, ...]] = []
        self.workers: set[str] = set()
        self._ran: list[str] = []
        self._blamed: list[Blamed] = []
        self._published: list[tuple[str, bytes]] = []
        self._pubsub = self.raw.pubsub()
        self._pubsub.psubscribe("*")
        self._pubsub.get_message(timeout=5)
        texts = self.texts(settings)
        self._names = {_sha(text): name for name, text in texts.items()}
        texts |= broken
        self._shas = {name: self.raw.script_load(text) for name, text in texts.items()}

    @staticmethod
    def texts(settings: WorkerSettings) -> dict[str, str]:
        """Every script by its name."""
        lane = Lane(settings, "")
        lane.close()
        return {name: script.script for name, script in lane._scripts.items()} | {
            "enqueue": ENQUEUE.text,
            "cancel": _outgoing.CANCEL,
            "purge": purging.PURGE,
            "requeue": letters.REQUEUE,
        }

    def close(self) -> None:
        self._pubsub.close()
        self.raw.close()

    def connect(self, client: Any) -> Any:
        """Have a client's scripts pass through this network; it reads past it."""
        direct = client.execute_command

        def execute(*command: Any, **options: Any) -> Any:
            if command[0] in ("EVALSHA", "EVAL"):
                return self.send(command)
            if command[0] == "HDEL":  # `Lane.absolve`
                for one in command[2:]:
                    self.spec.attempts.pop(one, None)
            return direct(*command, **options)

        client.execute_command = execute
        return client

    def send(self, command: tuple[Any, ...]) -> Any:
        fate, self.fate = self.fate, Fate.HEARD
        self.copies = [*self.copies, command][-KEPT_COPIES:]
        if fate is Fate.DELAYED:
            raise redis.TimeoutError(fate.value)
        reply = self.execute(command)
        if fate is Fate.LOST:
            raise redis.ConnectionError(fate.value)
        return reply

    def execute(self, command: tuple[Any, ...]) -> Any:
        """Run a script on both; they must agree."""
        verb, script, count, *rest = command
        name = self._names[script if verb == "EVALSHA" else _sha(script)]
        keys = [key.decode() if isinstance(key, bytes) else key for key in rest[:count]]
        arguments = [a if isinstance(a, bytes) else str(a).encode() for a in rest[count:]]
        self.workers |= {arguments[0].decode()} if name == "lease" else set()
        self._ran.append(name)
        if name == "recover":
            self._blamed += self._recoverable(arguments[0].decode())
        got = self.raw.execute_command("EVALSHA", self._shas[name], count, *keys, *arguments)
        want = self.spec.run(name, keys, arguments)
        agree(f"the reply of {name}", _comparable(name, got), _comparable(name, want))
        sent = self._hear()
        agree(f"what {name} published", sorted(sent), sorted(self.spec.published))
        self._published += sent
        return got

    def _recoverable(self, caller: str) -> list[Blamed]:
        """What a recovery may count a crash for now: started, by a worker that has lapsed."""
        found = []
        for worker, score in self.raw.zrange(KEYS.leases, 0, -1, withscores=True):
            held = self.raw.hgetall(KEYS.inflight(worker.decode()))
            started = (self.raw.hget(KEYS.worker(worker.decode()), "started") or b"").split(b"\n")
            if worker.decode() != caller and score <= LAPSED:
                for name, part in set(blame(started, held)):
                    found.append((digest(held[name].split(b"\n", 1)[1]), part))
        return found

    def _hear(self) -> list[tuple[str, bytes]]:
        """Everything published so far: what comes before the answer to a ping."""
        self._pubsub.ping()
        found = []
        while True:
            message = self._pubsub.get_message(timeout=5)
            assert message is not None
            if message["type"] == "pong":
                return found
            found.append((message["channel"].decode(), message["data"]))

    # ---- time, which passes only when it is told to

    def lapse(self, worker: str) -> None:
        self.raw.zadd(KEYS.leases, {worker: LAPSED}, xx=True)
        self.spec.lapsed[worker] = True

    def fall_due(self, count: int) -> None:
        """The next scheduled messages become due."""
        parked = [entry for entry in self.spec.scheduled.items() if entry[1] >= FAR]
        for entry, due in sorted(parked, key=lambda one: one[1])[:count]:
            self.spec.scheduled[entry] = due - FAR
            self.raw.zadd(KEYS.scheduled, {entry: due - FAR})

    def forget(self, task_id: str) -> None:
        """A result was read, or outlived its time."""
        self.raw.delete(KEYS.result(task_id))
        self.spec.results.pop(KEYS.result(task_id), None)

    def state(self, ids: Sequence[str]) -> State:
        """What the server holds now; it must be what the specification holds."""
        workers, results = sorted(self.workers), [KEYS.result(i) for i in ids]
        lists = KEYS.lane_lists()
        with self.raw.pipeline(transaction=False) as pipe:
            pipe.zrange(KEYS.scheduled, 0, -1, withscores=True)
            pipe.zrange(KEYS.leases, 0, -1, withscores=True)
            pipe.hgetall(KEYS.attempts)
            pipe.hkeys(KEYS.pace)
            pipe.lrange(KEYS.dead_letters, 0, -1)
            pipe.mget([KEYS.leases, *results])
            for key in lists:
                pipe.lrange(key, 0, -1)
            for worker in workers:
                pipe.hgetall(KEYS.inflight(worker))
                pipe.hgetall(KEYS.worker(worker))
            for key in results:
                pipe.ttl(key)
            found = pipe.execute()
        scheduled, leases, attempts, paces, dead, (_, *stored), *found = found
        waiting, found = found[: len(lists)], found[len(lists) :]
        hashes, ttls = found[: 2 * len(workers)], found[2 * len(workers) :]
        state = State(
            lists=dict(zip(lists, waiting, strict=True)),
            scheduled=dict(scheduled),
            inflight={w: held for w, held in zip(workers, hashes[::2], strict=True) if held},
            leases={worker.decode(): score for worker, score in leases},
            records={w: _record(h) for w, h in zip(workers, hashes[1::2], strict=True) if h},
            results={i: one for i, one in zip(ids, stored, strict=True) if one is not None},
            ttl_s=dict(zip(ids, ttls, strict=True)),
            attempts={one.decode(): crashes(counted) for one, counted in attempts.items()},
            paces={worker.decode() for worker in paces},
            letters=dead,
            published=self._published,
            ran=self._ran,
            blamed=self._blamed,
        )
        self._published, self._ran, self._blamed = [], [], []
        self._compare(state)
        return state

    def _compare(self, state: State) -> None:
        spec = self.spec
        agree("lists", state.lists, spec.lists)
        agree("scheduled", state.scheduled, spec.scheduled)
        agree("in flight", state.inflight, {w: held for w, held in spec.inflight.items() if held})
        agree("leases", set(state.leases), set(spec.lapsed))
        agree("workers", state.records, spec.records)
        agree("attempts", state.attempts, spec.attempts)
        agree("paces", state.paces, spec.paces)
        agree("letters", state.letters, spec.letters)
        results = {KEYS.result(i): _result(meta) for i, meta in state.results.items()}
        agree("results", results, {key: _expected(one) for key, one in spec.results.items()})


def agree(what: str, got: object, want: object) -> None:
    """The server against the specification."""
    assert got == want, f"{what}: {got} on the server, specified as {want}"


def _result(meta: bytes) -> wire.Wanted | bytes:
    return wire.decode_pending(meta) if wire.is_pending(meta) else meta


def _expected(stored: Pending | bytes) -> wire.Wanted | bytes:
    return stored.wanted() if isinstance(stored, Pending) else stored


def _sha(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _comparable(name: str, reply: Any) -> Any:
    if name == "lease":
        counted = [crashes(one) if isinstance(one, bytes) else one for one in reply[6::4]]
        taken = [one for at, one in enumerate(reply[3:]) if at % 4 < 3]
        return [reply[0], reply[2], *taken, *counted]
    return [*map(sorted, reply)] if name == "commit" else reply


def _record(stored: Mapping[bytes, bytes]) -> Record:
    """A worker's hash; its statistics are nobody's business here."""
    return Record(
        int(stored[b"incarnation"]),
        int(stored.get(b"batch", -1)),
        int(stored.get(b"taken", 0)),
        tuple(filter(None, stored.get(b"started", b"").split(b"\n"))),
    )


@dataclass
class Worker:
    """One worker's lane, and what it believes to hold."""

    network: Network
    name: str
    lane: Lane
    batch: int = 0
    known: dict[str, Entry] = field(default_factory=dict)
    decided: dict[str, Job | Ending] = field(default_factory=dict)
    again: Callable[[], None] | None = None  # what it repeats until it hears a reply
    gone: bool = False

    def call(self, action: Callable[[], None], fate: Fate) -> None:
        """Do something; where the reply stays away, it is repeated before anything else."""
        self.network.fate = fate
        self.again = action
        try:
            action()
        except (redis.ConnectionError, redis.TimeoutError):
            return
        finally:
            self.network.fate = Fate.HEARD
        self.again = None

    def undecided(self) -> list[Entry]:
        return [entry for name, entry in self.known.items() if name not in self.decided]

    def lease(self, limit: int, kept: int) -> None:
        leased = self.lane.lease(self.batch, limit, bulk_kept=kept, bulk_most=2)
        self.batch += 1
        self.known |= {entry.field: entry for entry in leased.entries}

    def begin(self, entries: Sequence[Entry], now: float, parts: int) -> None:
        """Start messages, or some parts of them, and check them; what is decided here is carried
        out later."""
        fields = [entry.field for entry in entries]
        started = [part_of(name, n) for name in fields for n in range(parts)] or fields
        if not self.lane.start([*self.decided, *started]):
            self.drop(fields)
            return
        now_ms = int(now * 1e3)
        readable, bad = decode(entries, now_ms, MAX_ATTEMPTS)
        stored = self.lane.stored([message.id for _, message in readable])
        found = triage(
            readable, now_ms=now_ms, stored=stored, revoked=(), max_attempts=MAX_ATTEMPTS
        )
        for ended in [*bad, *found.ended]:
            self.decided[ended.entry.field] = ended.ending
        for job in found.jobs:
            self.decided[job.entry.field] = job

    def commit(self, endings: Sequence[Ending]) -> None:
        lost = self.lane.commit(endings).lost
        if lost:
            self.lane.absolve([self.known[name].raw for name in lost])
        self.drop([ending.field for ending in endings])

    def give_back(self, fields: Sequence[str], due_ms: int) -> None:
        self.lane.give_back(fields, due_ms)
        self.drop(fields)

    def give_all_back(self) -> None:
        self.give_back(self.lane.held(), -1)

    def leave(self) -> None:
        self.gone = self.lane.leave()

    def drop(self, fields: Sequence[str]) -> None:
        for name in fields:
            self.known.pop(name, None)
            self.decided.pop(name, None)


def ending(job: Job | Ending, outcome: int) -> Ending:
    """How a decision is carried out: as it is, or a job's answer, failure or dead letter."""
    if isinstance(job, Ending):
        return job
    message, now_ms = job.message, int(NOW * 1e3)
    if outcome == 0:
        meta = wire.encode_success(message.id, {}, NOW, message.digest)
        return end_with(job, meta, None, now_ms)
    if outcome == 1:
        failure = Failure(code="test", message="-", retry=True)
        meta = wire.encode_failure(message.id, failure, NOW, message.digest)
        return end_with(job, meta, failure, now_ms)
    return celery_failed(job.entry, message, RuntimeError(), now_ms).ending
