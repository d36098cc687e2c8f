"""What the sync and the async client share: every conversation with Redis, without the I/O.

A conversation is a generator: it yields pipelines of commands and gets their replies. `Client`
runs them on a thread's socket, `AsyncClient` on an event loop; neither decides anything.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

from reclane import _outgoing, names
from reclane._outbox import Command, Commands, Outbox
from reclane._outgoing import EnqueueCall, Outgoing
from reclane._outstanding import Outstanding, SettableFuture, unknown
from reclane.contract import RecommendRequest
from reclane.errors import InvalidRequest, QueueFull, ReclaneError
from reclane.settings import Settings

READ_CHUNK: Final = 500
TICK_S: Final = 0.2  # an idle client looks for overdue requests so often
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
        """
        now, started = time.time(), time.monotonic()
        messages = [
            _outgoing.outgoing(_outgoing.merge(r, {}), self._reply_to, now) for r in requests
        ]
        submitted = [Submitted(message.id, future()) for message in messages]
        for message, one in zip(messages, submitted, strict=True):
            seconds = message.deadline_s
            deadline = None if seconds is None else started + seconds
            self.outstanding.add(one.id, one.future, deadline)
        by_message = {id(m): one.future for m, one in zip(messages, submitted, strict=True)}
        calls = list(_outgoing.enqueue_calls(messages, self._reply_to, self._settings))
        try:
            for part in chunks(calls, CALLS_AT_ONCE):
                replies = yield [call.command for call in part]
                ready = self._admitted(part, replies, by_message)
                yield from self.read(ready)
        except BaseException:
            for one in submitted:
                self.outstanding.drop(one.id, one.future)
            raise
        return submitted

    def _admitted(
        self,
        calls: Sequence[EnqueueCall],
        replies: Sequence[Any],
        futures: Mapping[int, SettableFuture],
    ) -> list[str]:
        """Take note of what became of each message; returns ids that have an answer already."""
        ready: list[str] = []
        for call, (admitted, states) in zip(calls, replies, strict=True):
            if not admitted:
                raise QueueFull(states, self._settings.queue_limit)
            self.outstanding.sent(message.id for message in call.messages)
            for message, state in zip(call.messages, states.decode(), strict=True):
                if state == _outgoing.READY:
                    ready.append(message.id)
                elif state == _outgoing.CONFLICT:
                    future = futures[id(message)]
                    self.outstanding.drop(message.id, future)
                    future.set_exception(_conflict(message))
        return ready

    def attach(self, task_id: str, future: FutureT) -> Conversation[Submitted[FutureT]]:
        """Await a request that was submitted elsewhere, by its id.

        Raises:
            UnknownRequest: no such request waits and no answer to it is kept.
        """
        self.outstanding.add(task_id, future)
        try:
            replies = yield [_outgoing.attach_command(task_id, self._reply_to, self._settings)]
            stored: bytes | None = replies[0]
            if stored is None and not future.done():  # done: read meanwhile by another waiter
                raise unknown(task_id)
        except BaseException:
            self.outstanding.drop(task_id, future)
            raise
        self.outstanding.sent([task_id])
        if stored:
            self.outstanding.settle([task_id], [stored])
        return Submitted(task_id, future)

    def cancel(self, task_id: str) -> Conversation[bool]:
        """Store REVOKED; False when the request does not wait any more."""
        replies = yield [self._revocation(task_id, "cancelled")]
        return bool(replies[0])

    def _revocation(self, task_id: str, reason: str) -> Command:
        now = time.time()
        return _outgoing.cancel_command(task_id, reason, self._reply_to, self._settings, now)

    # ---- reading answers

    def subscribed(self) -> None:
        """The channel is heard (again): read everything at the next tick."""
        self._reread_at = 0.0

    def heard(self, data: bytes) -> Conversation[None]:
        """Read what a notification names: ids, one a line."""
        ids = data.decode("utf-8", "replace").split("\n")
        yield from self.read(self.outstanding.wanted(ids))

    def tick(self) -> Conversation[None]:
        """Now and then: end overdue requests, and read all in case word was lost."""
        now = time.monotonic()
        overdue = self.outstanding.overdue(now, READ_CHUNK)
        if overdue:
            try:
                yield [self._revocation(task_id, "expired") for task_id in overdue]
            except BaseException:
                self.outstanding.remind(overdue, now)
                raise
        if now >= self._reread_at:
            yield from self.read(self.outstanding.ids())
            self._reread_at = time.monotonic() + self._settings.reread_interval_s

    def read(self, ids: Sequence[str]) -> Conversation[None]:
        """Settle those of `ids` that have an answer, and forget what was read before."""
        for part in chunks(ids, READ_CHUNK):
            replies = yield [*self._forgetting(), ("MGET", *map(self._keys.result, part))]
            self.outstanding.settle(part, replies[-1])

    def forget(self) -> Conversation[None]:
        """Delete answers that have been read, those of idempotency keys excepted."""
        commands = self._forgetting()
        if commands:
            yield commands

    def _forgetting(self) -> list[Command]:
        ids = self.outstanding.take_forgettable()
        return [("UNLINK", *map(self._keys.result, part)) for part in chunks(ids, READ_CHUNK)]


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
