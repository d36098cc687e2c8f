"""Decides, message by message, what may run. Pure: the clock and what is known are passed in."""

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic_core import to_json

from reclane import names, wire
from reclane.contract import Failure, RecommendRequest, parse_chunk, parse_request
from reclane.errors import InvalidRequest, WireError
from reclane_worker.chunks import Chunk, Part
from reclane_worker.lane import Ending, Entry, part_of

ANSWERED: Final = "answered"
REVOKED: Final = "revoked"
SUPERSEDED: Final = "superseded"
EXPIRED: Final = "expired"
MAX_MESSAGE_BYTES: Final = 1_048_576
POISON: Final = frozenset({"pipeline_error", "non_finite", "out_of_memory", "poison"})
ALONE: Final = 2  # the first crash had company, and condemns nobody; from then on it runs alone


@dataclass(frozen=True, slots=True)
class Job:
    """One request that may run. `queued_ms` is its age when leased, 0 where unknown; `expires` is
    until when it is wanted, seconds since the epoch, None: for ever. `part` is its place where
    it is one of a chunk's: entry and message are the chunk's, which ends as a whole."""

    entry: Entry
    message: wire.Message
    request: RecommendRequest
    queued_ms: float
    expires: float | None = None
    part: Part | None = None

    @property
    def bulk(self) -> bool:
        return self.entry.bulk or self.part is not None

    @property
    def started(self) -> str:
        """How `Lane.start` is told that this request is to blame if the process dies."""
        return part_of(self.entry.field, self.part.place) if self.part else self.entry.field

    @property
    def crashes(self) -> int:
        """Of this request, as far as it is known which one of its chunk it was."""
        return self.entry.parts.get(self.part.place, 0) if self.part else self.entry.crashes

    @property
    def suspect(self) -> bool:
        return bool(self.crashes or self.entry.crashes)


Held = Job | Chunk
"""What ends with an answer or a failure of its own."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One message that ends without running: how, and why (a stable word, or a failure)."""

    entry: Entry
    message: wire.Message | None
    ending: Ending
    reason: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """One message that is due later, by Redis's clock."""

    entry: Entry
    message: wire.Message
    due_ms: int


@dataclass(slots=True)
class Triage:
    """What became of one lease: jobs, the chunks that some belong to, endings without a run, and
    messages due later."""

    jobs: list[Job] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)

    def arrived(self) -> Iterator[wire.Message]:
        """Messages that Celery would call received: neither repeated, revoked nor expired."""
        yield from (job.message for job in self.jobs if not job.part)
        yield from (chunk.message for chunk in self.chunks)
        yield from (one.message for one in self.ended if one.failure and one.message)
        yield from (one.message for one in self.parked)


def decode(
    entries: Sequence[Entry], now_ms: int, max_attempts: int
) -> tuple[list[tuple[Entry, wire.Message]], list[Ended]]:
    """Read every message; those that cannot be read end as dead letters.

    One that is too large, or that went on killing workers after it was condemned, is not even
    parsed: its id is taken from the raw bytes.
    """
    read: list[tuple[Entry, wire.Message]] = []
    bad: list[Ended] = []
    for entry in entries:
        unreadable = _refuse_unparsed(entry, max_attempts)
        if unreadable:
            task_id = wire.find_id(entry.raw)
            bad.append(_failed(entry, None, unreadable, now_ms, task_id, dead=True))
            continue
        try:
            read.append((entry, wire.decode_message(entry.raw)))
        except WireError as error:
            failure = Failure(code=error.code, message=str(error))
            bad.append(_failed(entry, None, failure, now_ms, error.task_id or "", dead=True))
        except Exception as error:
            # Nothing that one message holds may end the thread: the next worker would follow.
            failure = Failure(code=WireError.code, message=f"unreadable ({type(error).__name__})")
            bad.append(_failed(entry, None, failure, now_ms, "", dead=True))
    return read, bad


def triage(
    read: Sequence[tuple[Entry, wire.Message]],
    *,
    now_ms: int,
    stored: Mapping[str, bytes],
    revoked: Collection[str],
    max_attempts: int,
) -> Triage:
    """Sort readable messages. `stored` is what is kept for their ids, `revoked` were revoked."""
    result = Triage()
    for entry, message in read:
        now_s = now_ms / 1000
        kept = stored.get(message.id)
        stands = standing(message, kept)
        expires = wanted_until(message, kept)
        if stands:
            result.ended.append(_standing(entry, message, stands))
        elif message.id in revoked:
            result.ended.append(_revoked(entry, message, REVOKED, now_ms))
        elif expires is not None and expires <= now_s:
            result.ended.append(_revoked(entry, message, EXPIRED, now_ms))
        elif message.eta is not None and message.eta > now_s:
            result.parked.append(Parked(entry, message, int(message.eta * 1000)))
        else:
            _admit(entry, message, expires, now_ms, max_attempts, result)
    return result


def _wanted(message: wire.Message, kept: bytes | None) -> wire.Wanted | None:
    """What the placeholder of an idempotency key says: its request may have changed meanwhile."""
    if not message.digest or kept is None or not wire.is_pending(kept):
        return None
    wanted = wire.decode_pending(kept)
    return wanted if wanted.digest else None


def wanted_until(message: wire.Message, kept: bytes | None) -> float | None:
    """When nobody waits any more, seconds since the epoch; with a key its placeholder says so."""
    wanted = _wanted(message, kept)
    return wanted.expires if wanted else message.expires


def standing(message: wire.Message, kept: bytes | None) -> str:
    """Why nothing that a worker finds may be stored for a message, by what is kept for its id.

    ANSWERED and REVOKED: that is stored. SUPERSEDED: its idempotency key waits for another
    request by now. '': nothing stands against it. `store` in terminal.lua decides alike in the
    instant of a commit.
    """
    if kept is not None and wire.is_terminal(kept):
        return REVOKED if wire.is_revoked(kept) else ANSWERED
    wanted = _wanted(message, kept)
    return SUPERSEDED if wanted and wanted.digest != message.digest else ""


def _standing(entry: Entry, message: wire.Message, stands: str) -> Ended:
    """A repeat, of which Celery's side may yet have something to do; one that was revoked by
    storing that, of which a chord and whoever listens have yet to hear; or one nobody waits for."""
    channel = "" if stands == SUPERSEDED else notify_channel(message)
    ending = Ending(entry.field, message.id, channel=channel, revoked=stands == REVOKED)
    return Ended(entry, message, ending, stands)


def _refuse_unparsed(entry: Entry, max_attempts: int) -> Failure | None:
    if len(entry.raw) > MAX_MESSAGE_BYTES:
        text = f"the message takes {len(entry.raw)} bytes, limit {MAX_MESSAGE_BYTES}"
        return Failure(code="too_large", message=text)
    if entry.crashes > max_attempts:
        return _poison(entry.crashes)
    return None


def _poison(crashes: int) -> Failure:
    text = f"workers died {crashes} times while they worked on this request"
    return Failure(code="poison", message=text)


def _admit(
    entry: Entry,
    message: wire.Message,
    expires: float | None,
    now_ms: int,
    max_attempts: int,
    result: Triage,
) -> None:
    if message.task not in names.LANE_TASKS:
        text = f"this queue takes {names.RECOMMEND}; route other tasks to {names.TASKS_QUEUE}"
        failure = Failure(code="unknown_task", message=text)
        result.ended.append(_failed(entry, message, failure, now_ms, message.id, dead=True))
    elif entry.crashes >= max(max_attempts, ALONE):
        failure = _poison(entry.crashes)
        result.ended.append(_failed(entry, message, failure, now_ms, message.id, dead=True))
    else:
        try:
            jobs = list(_jobs(entry, message, expires, now_ms, max_attempts, result.chunks))
        except (InvalidRequest, WireError) as error:
            failure = Failure(code=error.code, message=str(error))
            result.ended.append(_failed(entry, message, failure, now_ms, message.id))
        except Exception as error:
            failure = Failure(code="invalid_request", message=f"unusable ({type(error).__name__})")
            result.ended.append(_failed(entry, message, failure, now_ms, message.id, dead=True))
        else:
            result.jobs += jobs


def _jobs(
    entry: Entry,
    message: wire.Message,
    expires: float | None,
    now_ms: int,
    max_attempts: int,
    chunks: list[Chunk],
) -> Iterator[Job]:
    """A message's request, or those of a chunk that are not at fault."""
    queued_ms = max(0.0, now_ms - message.sent * 1000) if message.sent else 0.0
    if message.task == names.RECOMMEND:
        yield Job(entry, message, parse_request(message.request_fields()), queued_ms, expires)
        return
    chunk = Chunk(entry, message, parse_chunk(message.chunk_fields()))
    for place, crashes in entry.parts.items():
        if crashes >= max(max_attempts, ALONE):
            chunk.put(place, _poison(crashes))
    chunks.append(chunk)
    for place, request in chunk.waiting():  # what a chunk has begun it ends, so without expiry
        yield Job(entry, message, request, queued_ms, part=Part(chunk, place))


def expired(job: Job, now: float) -> Ended:
    """The ending of a job that cannot be done in time. `now` is seconds since the epoch."""
    return _revoked(job.entry, job.message, EXPIRED, int(now * 1e3))


def end_with(held: Held, meta: bytes, failure: Failure | None, now_ms: int) -> Ending:
    """The ending of what ran; `ignore_result` stores nothing. A request that the model could not
    take is kept as a dead letter, too: it may be answered once the model is mended."""
    message, entry = held.message, held.entry
    failed = [(entry, message.id, failure)] if failure and failure.code in POISON else []
    if isinstance(held, Chunk):
        failed = [*held.failures(POISON, now_ms / 1e3)]
    dead = [dead_letter(*one, now_ms) for one in failed]
    channel = notify_channel(message)
    return Ending(entry.field, message.id, _kept(message, meta), channel, b"\n".join(dead))


def _kept(message: wire.Message, meta: bytes) -> bytes:
    """A message that ignores its result stores nothing, failures included, as Celery does."""
    return b"" if message.ignore_result else meta


def celery_failed(entry: Entry, message: wire.Message, error: Exception, now_ms: int) -> Ended:
    """A message whose links, chord or signal receivers can never be served."""
    text = f"Celery's side of this message raised {type(error).__name__}"
    failure = Failure(code="celery_side", message=text)
    return _failed(entry, message, failure, now_ms, message.id, dead=True)


def notify_channel(message: wire.Message) -> str:
    """The reclane client's channel, or '' for a stock client."""
    return message.reply_to if names.is_notify_channel(message.reply_to) else ""


def _revoked(entry: Entry, message: wire.Message, reason: str, now_ms: int) -> Ended:
    now_s = now_ms / 1000
    meta = wire.encode_revoked(message.id, reason, now_s, message.parent_id, message.digest)
    ending = Ending(entry.field, message.id, _kept(message, meta), notify_channel(message))
    return Ended(entry, message, ending, reason)


def _failed(
    entry: Entry,
    message: wire.Message | None,
    failure: Failure,
    now_ms: int,
    task_id: str,
    dead: bool = False,
) -> Ended:
    digest, parent_id = (message.digest, message.parent_id) if message else ("", "")
    meta = b""
    if task_id:
        meta = wire.encode_failure(task_id, failure, now_ms / 1000, digest, parent_id)
    if message:
        meta = _kept(message, meta)
    channel = notify_channel(message) if message else ""
    letter = dead_letter(entry, task_id, failure, now_ms) if dead else b""
    ending = Ending(entry.field, task_id, meta, channel, letter)
    return Ended(entry, message, ending, failure.code, failure)


def dead_letter(entry: Entry, task_id: str, failure: Failure, now_ms: int) -> bytes:
    """A record from which the message can be read, repaired and sent again."""
    return to_json(
        {
            "id": task_id,
            "code": failure.code,
            "message": failure.message,
            "origin": entry.origin,
            "crashes": entry.crashes,
            "at_ms": now_ms,
            "bytes": len(entry.raw),
            "raw": base64.b64encode(entry.raw[:MAX_MESSAGE_BYTES]).decode(),
        }
    )
