"""One pipeline for many callers: what threads or tasks send at once goes out together.

Whoever comes first sends for all that wait, while the others wait for their replies. Every
command here may be repeated after a lost reply, so a broken connection is tried again until
each caller's time is up. No I/O: `flush` yields what is to be done, a client does it.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from threading import Lock
from typing import Any, Final, TypeAlias, TypeVar

import redis

from reclane import _scripts
from reclane._refusal import refusal
from reclane.errors import BrokerUnavailable

_T = TypeVar("_T")
Command: TypeAlias = tuple[str | bytes | int, ...]
Commands: TypeAlias = Sequence[Command]

MAX_FLUSH_BYTES: Final = 4_000_000
MAX_FLUSH_COMMANDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long before going on."""

    seconds: float


Steps: TypeAlias = Generator[Commands | Pause, list[Any], _T]
"""A conversation with Redis: yields a pipeline (or a pause), gets its replies."""


class Script:
    """A Lua script that is called by its digest, and loaded where the server does not know it."""

    def __init__(self, *parts: str) -> None:
        self.text = _scripts.load(*parts)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


ENQUEUE: Final = Script("reclane/terminal", "reclane/enqueue")
_LOADS: Final[Commands] = [("SCRIPT", "LOAD", ENQUEUE.text)]


@dataclass(eq=False, slots=True)
class Ticket:
    """One caller's commands, and what came of them."""

    commands: Commands
    give_up: float
    size: int
    replies: list[Any] = field(default_factory=list)
    error: Exception | None = None
    done: bool = False

    def take(self) -> list[Any]:
        """The replies.

        Raises:
            BrokerUnavailable: Redis refuses, or stayed away for the whole time.
        """
        if self.error is not None:
            raise self.error
        return self.replies


class Outbox:
    """Commands that wait to be sent. Threads may share it."""

    def __init__(self, timeout_s: float, clock: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: list[Ticket] = []
        self._lock = Lock()

    def put(self, commands: Commands) -> Ticket:
        """Have commands sent with the next flush."""
        ready = [tuple(map(_encoded, command)) for command in commands]  # here, if it fails
        size = sum(len(part) for c in ready for part in c if isinstance(part, bytes))
        ticket = Ticket(ready, self._clock() + self._timeout_s, size)
        with self._lock:
            self._waiting.append(ticket)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Have a caller's commands not sent any more, if they still wait."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def flush(self) -> Steps[None]:
        """Send what waits, bounded in count and bytes; every ticket sent ends done.

        A pipeline's failed commands must come back as exceptions among its replies.
        """
        group = self._take()
        loads: Commands = []
        pause_s = 0.05
        try:
            while group:
                try:
                    replies = yield [*loads, *(c for t in group for c in t.commands)]
                    _raise_passing(replies)
                except redis.RedisError as error:
                    group = self._fail_late(group, error, pause_s)
                    if group:
                        yield Pause(pause_s)
                    pause_s = min(1.0, pause_s * 2)
                    continue
                if not loads and any(
                    isinstance(r, redis.exceptions.NoScriptError) for r in replies
                ):
                    loads = _LOADS
                    continue
                _deliver(group, replies[len(loads) :])
                group = []
        finally:  # whoever sends for others may be cancelled: the next one sends these
            self._put_back(group)

    def _take(self) -> list[Ticket]:
        with self._lock:
            count = commands = size = 0
            for ticket in self._waiting:
                commands += len(ticket.commands)
                size += ticket.size
                if count and (commands > MAX_FLUSH_COMMANDS or size > MAX_FLUSH_BYTES):
                    break
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _put_back(self, group: list[Ticket]) -> None:
        if group:
            with self._lock:
                self._waiting[:0] = group

    def _fail_late(
        self, group: list[Ticket], error: redis.RedisError, pause_s: float
    ) -> list[Ticket]:
        """Give up for those whose time is up, or for all where Redis refuses; the rest stay."""
        refused = refusal(error) is not None or not is_away(error)
        now = self._clock()
        rest = []
        for ticket in group:
            if not refused and now + pause_s <= ticket.give_up:
                rest.append(ticket)
                continue
            ticket.error = unavailable(error)
            ticket.error.__cause__ = error
            ticket.done = True
        return rest


def _encoded(part: str | bytes | int) -> bytes | int:
    return part.encode() if isinstance(part, str) else part


def raise_first(replies: list[Any]) -> list[Any]:
    """The replies, unless one of them is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def is_away(error: Exception) -> bool:
    """Whether Redis could not be reached, or is still loading."""
    return isinstance(error, redis.ConnectionError | redis.TimeoutError)


def _raise_passing(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Exception) and is_away(reply):
            raise reply


def _deliver(group: Sequence[Ticket], replies: Sequence[Any]) -> None:
    start = 0
    for ticket in group:
        ticket.replies = list(replies[start : start + len(ticket.commands)])
        start += len(ticket.commands)
        for reply in ticket.replies:
            if isinstance(reply, Exception):
                ticket.error = unavailable(reply)
                ticket.error.__cause__ = reply
                break
        ticket.done = True


def unavailable(error: Exception) -> BrokerUnavailable:
    """What a caller is told of an error of Redis, and what to do about it."""
    told = refusal(error)
    if told is None and is_away(error):
        told = (
            f"Redis cannot be reached ({type(error).__name__}); check RECLANE_REDIS_URL (rediss:// "
            "for TLS), that the server runs, and whether it wants a client's certificate"
        )
    return BrokerUnavailable(told or f"Redis refuses: {error}")
