"""What the sync and the async client share: every conversation with Redis, without the I/O.

A conversation is a generator: it yields pipelines of commands and gets their replies. `Client`
runs them on a thread's socket, `AsyncClient` on an event loop; neither decides anything.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

import redis

from reclane import _outgoing, names, wire
from reclane._outbox import Command, Commands, Outbox, is_away
from reclane._outgoing import Outgoing
from reclane._outstanding import Outstanding, SettableFuture, unknown
from reclane.contract import RecommendRequest
from reclane.errors import DeadlineUnreachable, InvalidRequest, QueueFull, ReclaneError
from reclane.settings import Settings

READ_CHUNK: Final = 500
TICK_S: Final = 0.2  # an idle client looks for overdue requests so often
INTERRUPTED: Final = "notifications interrupted (%s); reconnecting until Redis is back"
CALLS_AT_ONCE: Final = 8  # of up to 1 MB each, in one pipeline

_T = TypeVar("_T")
FutureT = TypeVar("FutureT", bound=SettableFuture)
Conversation = Generator[Commands, list[Any], _T]


@dataclass(frozen=True, slots=True)
class Submitted(Generic[FutureT]):
    """One request that awaits its answer."""

    id: str
    future: FutureT


class Exchange:
    """One client's state: what it awaits, what it has to send, which channel it hears."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = settings.keys
        self._reply_to = names.notify_channel(uuid4().hex)
        self._reread_at = 0.0
        self.channel = self._keys.channel(self._reply_to)
        self.outstanding = Outstanding()
        self.outbox = Outbox(settings.enqueue_timeout_s, time.monotonic)

    # ---- submitting

    def submit(
        self, requests: Iterable[RecommendRequest | str], future: Callable[[], FutureT]
    ) -> Conversation[list[Submitted[FutureT]]]:
        """Enqueue requests; all are validated before the first is enqueued.

        Raises:
            InvalidRequest: one breaks the contract; nothing was enqueued.
            QueueFull: too many wait already; nothing was enqueued.
            DeadlineUnreachable: one cannot be answered in time; nothing was enqueued.
        """
        now, started = time.time(), time.monotonic()
        messages = self._messages(requests, self._reply_to, now)
        submitted = [Submitted(message.id, future()) for message in messages]
        waiters = list(zip(messages, submitted, strict=True))
        for message, one in waiters:
            if not message.digest:  # else others may have sent it: once it is confirmed
                self.outstanding.add(one.id, one.future, _deadline(message, now, started))
        try:
            states = yield from self._push(messages, self._reply_to, now)
            for (message, one), state in zip(waiters, states, strict=True):
                if state == _outgoing.CONFLICT:
                    _fail(one.future, _conflict(message))
                elif message.digest:
                    self.outstanding.add(one.id, one.future, _deadline(message, now, started))
            self.outstanding.sent(message.id for message in messages)
            keyed = {message.id for message in messages if message.digest}
            yield from self.read(self.outstanding.wanted(keyed))
        except BaseException:
            for one in submitted:
                self.outstanding.drop(one.id, one.future)
            raise
        return submitted

    def enqueue(self, requests: Iterable[RecommendRequest | str]) -> Conversation[list[str]]:
        """Enqueue requests that somebody else awaits; raises as `submit`.

        Raises:
            InvalidRequest: also when a key belongs to another request; the others are enqueued.
        """
        now = time.time()
        messages = self._messages(requests, "", now)
        states = yield from self._push(messages, "", now)
        for message, state in zip(messages, states, strict=True):
            if state == _outgoing.CONFLICT:
                raise _conflict(message)
        return [message.id for message in messages]

    def _messages(
        self, requests: Iterable[RecommendRequest | str], reply_to: str, now: float
    ) -> list[Outgoing]:
        if isinstance(requests, str | bytes | RecommendRequest | Mapping):
            raise InvalidRequest("give a list of requests; `submit` takes a single one")
        return [_outgoing.outgoing(_outgoing.merge(r, {}), reply_to, now) for r in requests]

    def _push(
        self, messages: Sequence[Outgoing], reply_to: str, now: float
    ) -> Conversation[list[str]]:
        """Send messages; what became of each: queued, attached, ready or in conflict."""
        calls = list(_outgoing.enqueue_calls(messages, reply_to, self._settings, now))
        found: dict[int, str] = {}
        for part in chunks(calls, CALLS_AT_ONCE):
            replies = yield [call.command for call in part]
            for call, (admitted, *said) in zip(part, replies, strict=True):
                if admitted == _outgoing.FULL:
                    raise QueueFull(said[0], self._settings.queue_limit)
                if admitted == _outgoing.TOO_LATE:
                    raise DeadlineUnreachable(said[0] / 1e3, said[1] / 1e3)
                found.update(zip(map(id, call.messages), said[0].decode(), strict=True))
        return [found[id(message)] for message in messages]

    def attach(self, task_id: str, future: FutureT) -> Conversation[Submitted[FutureT]]:
        """Await a request that was submitted elsewhere, by its id.

        Raises:
            UnknownRequest: no such request waits and no answer to it is kept.
        """
        if not task_id.isascii():
            raise unknown("of that id")  # ours are; others would not even encode
        replies = yield [_outgoing.attach_command(task_id, self._reply_to, self._settings)]
        if replies[0] is None:
            raise unknown(task_id)
        self.outstanding.add(task_id, future)
        self.outstanding.sent([task_id])
        stored = replies[0] or None
        if stored is not None:
            watched = self.outstanding.watched([task_id])
            self.outstanding.settle(watched, {task_id: stored})
        yield from self.read(self.outstanding.wanted([task_id]))
        return Submitted(task_id, future)

    def cancel(self, task_id: str) -> Conversation[bool]:
        """Store REVOKED; False when the request does not wait any more."""
        watched = self.outstanding.watched([task_id])
        meta = wire.encode_revoked(task_id, "cancelled", time.time())
        replies = yield [self._cancel(task_id, meta)]
        if replies[0]:  # told here: its key may be asked again before this is read
            self.outstanding.settle(watched, {task_id: meta})
        return bool(replies[0])

    def _cancel(self, task_id: str, meta: bytes) -> Command:
        return _outgoing.cancel_command(task_id, meta, self._reply_to, self._settings)

    # ---- reading answers

    def subscribed(self) -> None:
        """The channel is heard (again): read everything at the next tick."""
        self._reread_at = 0.0

    def heard(self, data: bytes) -> Conversation[None]:
        """Read what a notification names: ids, one a line."""
        ids = data.decode("utf-8", "replace").split("\n")
        yield from self.read(self.outstanding.wanted(ids))

    def tick(self) -> Conversation[None]:
        """Now and then: read all in case word was lost, and end overdue requests."""
        now = time.monotonic()
        if now >= self._reread_at:
            yield from self.read(self.outstanding.ids())
            self._reread_at = time.monotonic() + self._settings.reread_interval_s
        overdue = self.outstanding.overdue(now, READ_CHUNK)
        if overdue:
            yield from self._expire(overdue)

    def _expire(self, ids: Sequence[str]) -> Conversation[None]:
        try:
            now = time.time()
            yield [self._cancel(i, wire.encode_revoked(i, "expired", now)) for i in ids]
        except redis.RedisError as error:
            self.outstanding.remind(ids, time.monotonic() + self._settings.reread_interval_s)
            if is_away(error):
                raise
            # Redis refuses writes for now; answers can still be read.

    def read(self, ids: Sequence[str]) -> Conversation[None]:
        """Settle those of `ids` that have an answer, and forget what was read before."""
        for part in chunks(ids, READ_CHUNK):
            watched = self.outstanding.watched(part)
            replies = yield from self._forgetting(("MGET", *map(self._keys.result, part)))
            self.outstanding.settle(watched, dict(zip(part, replies[-1], strict=True)))

    def forget(self) -> Conversation[None]:
        """Delete answers that have been read, those of idempotency keys excepted."""
        yield from self._forgetting()

    def _forgetting(self, *others: Command) -> Conversation[list[Any]]:
        """Delete answers in the same pipeline as other commands."""
        ids = self.outstanding.take_forgettable()
        commands = [("UNLINK", *map(self._keys.result, part)) for part in chunks(ids, READ_CHUNK)]
        if not commands and not others:
            return []
        try:
            return (yield [*commands, *others])
        except BaseException:
            self.outstanding.keep_forgettable(ids)
            raise


def _deadline(message: Outgoing, now: float, started: float) -> float | None:
    return None if message.expires is None else started + message.expires - now


def _fail(future: SettableFuture, error: ReclaneError) -> None:
    if not future.done():
        future.set_exception(error)


def _conflict(message: Outgoing) -> InvalidRequest:
    return InvalidRequest(
        f"the idempotency_key of {message.id} belongs to a request that asks something else; "
        "use one key for one request"
    )


def reading_failed(error: Exception) -> ReclaneError:
    """What waiters get when answers cannot be read for a reason of this client's own."""
    return ReclaneError(f"this client failed to read answers: {type(error).__name__}")


def chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Slices of at most `size` values, in order."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
