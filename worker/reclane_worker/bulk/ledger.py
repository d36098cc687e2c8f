"""All of Redis for a bulk run that this worker takes on: claim it, save its steps, read results.

A claim lasts one lease, and each save renews it. It carries a fence: once another worker has
claimed the run, nothing of ours can be saved any more. Every save is one script, all or nothing,
so that the run in Redis always stands between two steps.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from reclane import _scripts, names, wire
from reclane._connection import connect
from reclane._outgoing import WAITING_TTL_S
from reclane.bulk import runs
from reclane.bulk.runs import FAILED_WITH, KEPT_S, read_spec
from reclane.bulk.spec import RunSpec
from reclane.errors import BulkError, ReclaneError
from reclane.probe import read_statistics
from reclane_worker.bulk.errors import OtherRelease
from reclane_worker.bulk.sent import Sent, models_of
from reclane_worker.bulk.sinks import Part
from reclane_worker.ears import Ears
from reclane_worker.settings import WorkerSettings

AGAIN_S: Final = 5.0  # before a sink or source that was away is tried again
MAX_BAD_KEPT: Final = 100
KEPT_RESULT_S: Final = 86_400  # how long a sink may be away before answers are computed again

Command: TypeAlias = tuple[str | bytes | int, ...]


class LostRun(Exception):
    """Another worker has taken the run on: this one had not renewed its claim."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that is ours for now, and what Redis knew of it then."""

    id: str
    fence: int
    fields: dict[str, str]

    @property
    def spec(self) -> RunSpec:
        """Raises:
        OtherRelease: this one cannot read it.
        """
        try:
            return read_spec(self.fields["spec"])
        except BulkError:
            raise _other_release() from None


def _other_release() -> OtherRelease:
    return OtherRelease(
        "another release of reclane has this run; update this worker, or set "
        "RECLANE_BULK_RUNS=false on it"
    )


@dataclass(frozen=True, slots=True)
class Versions:
    """What answers now, as a worker says: its models (see `models_of`), and catalog name ->
    name@version."""

    models: str
    catalogs: dict[str, str]

    def catalog(self, name: str | None) -> str | None:
        """Of the catalog that a request names, or the first; None where there is no such."""
        if name is None:
            return next(iter(self.catalogs.values()), None)
        return self.catalogs.get(name)


class Ledger:
    """One worker's way to the runs. Threads may share it."""

    def __init__(self, settings: WorkerSettings, worker_id: str) -> None:
        self.keys = settings.keys
        self._id = worker_id
        self.lease_s = settings.lease_ms / 1e3
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        load = _scripts.load
        self._claim = self._redis.register_script(load("reclane_worker/bulk_claim", allow_oom=True))
        # What is written lets a full server drain; what is sent fails loudly there.
        self._drain = self._redis.register_script(load("reclane_worker/bulk_save", allow_oom=True))
        self._send = self._redis.register_script(load("reclane_worker/bulk_save"))

    # ---- whose run it is

    def claim(self) -> Claim | float | None:
        """A run that is due; else seconds until one is, None where none is known."""
        arguments = (self.keys.bulk_run(""), int(self.lease_s * 1e3), self._id)
        run_id, *rest = self._claim(keys=[self.keys.bulk_due], args=arguments)
        if not run_id:
            return None if rest[0] < 0 else rest[0] / 1e3
        fence, stored = rest
        texts = [text.decode() for text in stored]
        return Claim(run_id.decode(), fence, dict(zip(texts[::2], texts[1::2], strict=True)))

    def save(self, claim: Claim, *commands: Command, room: bool = False, unless: str = "") -> str:
        """Write a step and keep the run; returns the state that it is in now.

        `room`: these commands need room, and must fail on a full server. `unless` is a state in
        which they are left out.

        Raises:
            LostRun: it is another worker's.
        """
        return self._save(claim, commands, self.lease_s, room=room, unless=unless)

    def let_go(
        self, claim: Claim, *commands: Command, due_s: float | None, unless: str = ""
    ) -> None:
        """Write a step, as `save` does, and give the run up, to be taken on in `due_s` seconds;
        None: never, unless it runs or is to be cancelled.

        Raises:
            LostRun: it is another worker's.
        """
        self._save(claim, commands, due_s, let_go=True, unless=unless)

    def _save(
        self,
        claim: Claim,
        commands: Sequence[Command],
        due_s: float | None,
        *,
        let_go: bool = False,
        room: bool = False,
        unless: str = "",
    ) -> str:
        due_ms = -1 if due_s is None else int(due_s * 1e3)
        words = chain.from_iterable((len(command), *command) for command in commands)
        reply = (self._send if room else self._drain)(
            keys=[self.keys.bulk_run(claim.id), self.keys.bulk_due],
            args=[claim.id, claim.fence, due_ms, int(let_go), unless, *words],
        )
        if not reply[0]:
            raise LostRun
        state: str = reply[1].decode()
        return state

    def others_due(self) -> bool:
        """Whether another run waits for a worker."""
        seconds, micros = self._redis.time()
        now_ms = seconds * 1_000 + micros // 1_000
        return bool(self._redis.zcount(self.keys.bulk_due, "-inf", now_ms))

    # ---- what a step is made of

    def sends(self, claim: Claim, chunks: Sequence[Sent]) -> list[Command]:
        """Record chunks and put them on the bulk queue."""
        known, queue = self.keys.bulk_chunks(claim.id), self.keys.list(names.BULK_QUEUE)
        reply_to, now = names.notify_channel(f"bulk-{claim.id}"), time.time()
        commands: list[Command] = []
        for chunk in chunks:
            raw = wire.encode_chunk(chunk.bodies, task_id=chunk.id, reply_to=reply_to, now=now)
            commands += [
                ("HSET", known, chunk.number, chunk.to_json()),
                ("SET", self.keys.result(chunk.id), wire.PLACEHOLDER, "EX", WAITING_TTL_S),
                ("LPUSH", queue, raw),
            ]
        return commands

    def takes_back(self, claim: Claim, chunks: Sequence[Sent]) -> list[Command]:
        """Record chunks as still to be sent."""
        key = self.keys.bulk_chunks(claim.id)
        return [("HSET", key, chunk.number, chunk.to_json()) for chunk in chunks]

    def lands(self, claim: Claim, chunks: Sequence[Sent], part: Part) -> list[Command]:
        """Forget chunks whose rows are written, and keep what the sink says of them."""
        return [
            ("HDEL", self.keys.bulk_chunks(claim.id), *(chunk.number for chunk in chunks)),
            ("UNLINK", *(self.keys.result(chunk.id) for chunk in chunks)),
            *self.keeps(claim, part),
        ]

    def keeps(self, claim: Claim, part: Part) -> list[Command]:
        """Keep what the sink says of a part."""
        return [("RPUSH", self.keys.bulk_parts(claim.id), part.model_dump_json())]

    def notes_bad(self, claim: Claim, bad: Sequence[tuple[str, str]]) -> list[Command]:
        """Keep the first bad rows: places and reasons."""
        key = self.keys.bulk_bad(claim.id)
        rows = [json.dumps(one) for one in bad[:MAX_BAD_KEPT]]
        return [("RPUSH", key, *rows), ("LTRIM", key, 0, MAX_BAD_KEPT - 1)] if rows else []

    def sets(self, claim: Claim, **fields: object) -> list[Command]:
        """Set fields of the run; None removes one."""
        key = self.keys.bulk_run(claim.id)
        kept = [(k, str(v)) for k, v in fields.items() if v is not None]
        gone = [k for k, v in fields.items() if v is None]
        commands: list[Command] = [("HSET", key, *chain.from_iterable(kept))] if kept else []
        return [*commands, ("HDEL", key, *gone)] if gone else commands

    def tells(self, claim: Claim, code: str, message: str) -> list[Command]:
        """Say why the run does not go on, or not now."""
        return self.sets(claim, trouble=json.dumps([code, message]))

    def counts(self, claim: Claim, **more: int) -> list[Command]:
        """Add to counters of the run."""
        key = self.keys.bulk_run(claim.id)
        return [("HINCRBY", key, name, count) for name, count in more.items() if count]

    def failures(self, claim: Claim, codes: Mapping[str, int]) -> list[Command]:
        """Add to how many rows failed with each code."""
        return self.counts(claim, **{f"{FAILED_WITH}{code}": n for code, n in codes.items()})

    def revokes(self, chunks: Sequence[Sent]) -> list[Command]:
        """Have nobody compute these, where they wait still."""
        now = time.time()
        return [
            (
                *("SET", self.keys.result(chunk.id)),
                *(wire.encode_revoked(chunk.id, "cancelled", now), "XX", "EX", WAITING_TTL_S),
            )
            for chunk in chunks
        ]

    def forgets(self, claim: Claim) -> list[Command]:
        """Forget what was sent."""
        return [("UNLINK", self.keys.bulk_chunks(claim.id))]

    def ends(self, claim: Claim, state: str, now_ms: int) -> list[Command]:
        """End the run, and let others write to its output."""
        output = self.keys.bulk_output(claim.fields["output"])
        kept = (self.keys.bulk_run, self.keys.bulk_parts, self.keys.bulk_bad, self.keys.bulk_chunks)
        done = [("HSET", output, "finished", claim.fields["started"])] if state == "done" else []
        return [
            *self.sets(claim, state=state, ended=now_ms),
            ("HDEL", output, f"run:{claim.id}"),
            *done,
            *(("EXPIRE", key(claim.id), KEPT_S) for key in kept),
            ("EXPIRE", output, KEPT_S),
        ]

    def stop_for(self, claim: Claim, trouble: ReclaneError) -> None:
        """The run cannot go on: try again soon where that may help, else it has failed, unless
        somebody gave it up meanwhile.

        Raises:
            LostRun: it is another worker's.
        """
        told = self.tells(claim, trouble.code, str(trouble))
        if getattr(trouble, "retry", False):
            self.let_go(claim, *told, *self.sets(claim, tries=None), due_s=AGAIN_S)
            return
        failed = self.ends(claim, "failed", int(time.time() * 1e3))
        self.let_go(claim, *told, *failed, due_s=None, unless="cancelling")

    # ---- reading

    def run(self, claim: Claim) -> runs.Run:
        """The run as anyone sees it."""
        return runs.read(self._redis, self.keys, claim.id)

    def chunks(self, claim: Claim) -> dict[int, Sent]:
        """Those sent and not written yet, in order."""
        stored = self._redis.hgetall(self.keys.bulk_chunks(claim.id))
        numbered = {int(number): raw for number, raw in stored.items()}
        return {number: Sent.from_json(number, numbered[number]) for number in sorted(numbered)}

    def parts(self, claim: Claim) -> tuple[Part, ...]:
        """What the sink said of each part, in order.

        Raises:
            OtherRelease: this one cannot read it.
        """
        stored = self._redis.lrange(self.keys.bulk_parts(claim.id), 0, -1)
        try:
            return tuple(Part.model_validate_json(one) for one in stored)
        except ValidationError:
            raise _other_release() from None

    def states(self, chunks: Sequence[Sent]) -> list[str]:
        """Of each chunk's result; '' where Redis has none: forgotten, or lost."""
        with self._redis.pipeline(transaction=False) as pipe:
            for chunk in chunks:
                pipe.getrange(self.keys.result(chunk.id), 0, wire.HEAD_BYTES)
            return [wire.peek_status(head) for head in pipe.execute()]

    def results(self, chunks: Sequence[Sent]) -> list[bytes | None]:
        """Stored results."""
        found: list[bytes | None] = self._redis.mget([self.keys.result(one.id) for one in chunks])
        return found

    def keep_results(self, chunks: Sequence[Sent]) -> None:
        """Let these results live until their rows are written, however long the sink takes."""
        with self._redis.pipeline(transaction=False) as pipe:
            for chunk in chunks:
                pipe.expire(self.keys.result(chunk.id), KEPT_RESULT_S)
            pipe.execute()

    def versions(self) -> Versions | None:
        """What a worker that lives says that it answers with; None where there is none."""
        for worker in self._redis.zrange(self.keys.leases, 0, 9):
            told = read_statistics(self._redis.hget(self.keys.worker(worker.decode()), "stats"))
            catalogs = told.get("catalogs")
            if isinstance(catalogs, list) and isinstance(told.get("model"), str):
                return Versions(models_of(told), {c.rpartition("@")[0]: c for c in catalogs})
        return None

    def listen(self, claim: Claim | None) -> Ears:
        """Hears of runs that are due and, with a claim, of its chunks that have ended."""
        own = [names.notify_channel(f"bulk-{claim.id}")] if claim else []
        return Ears(self._redis, [self.keys.bulk_woken, *map(self.keys.channel, own)])

    def close(self) -> None:
        self._redis.close()
