"""What waits, what is in flight and what comes next: reads only, a handful of commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from reclane import names
from reclane.errors import WireError
from reclane.operations import messages

QUEUES: Final = (*names.LANE_QUEUES, names.TASKS_QUEUE)
MAX_WORKERS: Final = 1_000
MAX_PEEK: Final = 100


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue: messages at each priority, and how long the next one to be served has waited.

    `oldest_s` is None where nothing waits or a stock client did not say when it was sent.
    """

    queue: str
    by_priority: dict[int, int]
    oldest_s: float | None

    @property
    def length(self) -> int:
        return sum(self.by_priority.values())


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker with a lease: messages it holds, and seconds until the lease ends (or ended)."""

    worker: str
    in_flight: int
    lease_left_s: float


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything accepted and not ended. `overdue` of the `scheduled` should be in a list."""

    queues: tuple[QueueState, ...]
    workers: tuple[WorkerState, ...]
    scheduled: int
    overdue: int
    next_due_s: float | None
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One waiting message, without what it asks unless that was wanted. Times in seconds."""

    id: str
    task: str
    priority: int
    bytes: int
    age_s: float | None = None
    expires_in_s: float | None = None
    due_in_s: float | None = None
    problem: str = ""
    request: Any = None


def overview(client: Any, keys: names.Keys) -> Overview:
    """Lengths and holders as they are now; two round trips, whatever the backlog."""
    lists = [(q, step) for q in QUEUES for step in names.PRIORITY_STEPS]
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys.leases, 0, MAX_WORKERS - 1, withscores=True)
        pipe.zrange(keys.scheduled, 0, 0, withscores=True)
        pipe.zcard(keys.scheduled)
        pipe.llen(keys.dead_letters)
        for queue, step in lists:
            pipe.llen(keys.list(queue, step))
            pipe.lindex(keys.list(queue, step), -1)
        time, leases, first, scheduled, dead, *rest = pipe.execute()
    now_s = time[0] + time[1] / 1e6
    lengths = dict(zip(lists, rest[0::2], strict=True))
    tails = dict(zip(lists, rest[1::2], strict=True))
    held, overdue = _held(client, keys, [worker for worker, _ in leases], now_s)
    workers = tuple(
        WorkerState(worker.decode("utf-8", "replace"), count, end / 1e3 - now_s)
        for (worker, end), count in zip(leases, held, strict=True)
    )
    return Overview(
        queues=tuple(_state(queue, lengths, tails, now_s) for queue in QUEUES),
        workers=workers,
        scheduled=scheduled,
        overdue=overdue,
        next_due_s=first[0][1] / 1e3 - now_s if first else None,
        dead_letters=dead,
    )


def peek(
    client: Any, keys: names.Keys, queue: str, count: int, show_text: bool = False
) -> list[Glimpse]:
    """The next `count` messages of a queue (MAX_PEEK at most) in the order they are served."""
    seconds, micros = client.time()
    found: list[Glimpse] = []
    for step in names.PRIORITY_STEPS:
        left = min(count, MAX_PEEK) - len(found)
        if left <= 0:
            break
        raws = client.lrange(keys.list(queue, step), -left, -1)
        found += [glimpse(r, step, seconds + micros / 1e6, show_text) for r in reversed(raws)]
    return found


def glimpse(raw: bytes, priority: int, now_s: float, show_text: bool = False) -> Glimpse:
    """What a message says about itself; one that cannot be read says so."""
    message = messages.read(raw)
    if isinstance(message, WireError):
        return Glimpse(message.task_id or "", "", priority, len(raw), problem=str(message))
    return Glimpse(
        message.id,
        message.task,
        priority,
        len(raw),
        age_s=None if message.sent is None else now_s - message.sent,
        expires_in_s=None if message.expires is None else message.expires - now_s,
        due_in_s=None if message.eta is None else message.eta - now_s,
        request=messages.asked(message) if show_text else None,
    )


def _held(
    client: Any, keys: names.Keys, workers: Sequence[bytes], now_s: float
) -> tuple[list[int], int]:
    """Messages in flight of each worker, and how many scheduled ones are overdue."""
    with client.pipeline(transaction=False) as pipe:
        pipe.zcount(keys.scheduled, "-inf", now_s * 1e3)
        for worker in workers:
            pipe.hlen(keys.inflight(worker.decode("utf-8", "surrogateescape")))
        overdue, *held = pipe.execute()
    return held, overdue


def _state(
    queue: str,
    lengths: dict[tuple[str, int], int],
    tails: dict[tuple[str, int], bytes | None],
    now_s: float,
) -> QueueState:
    ages = [
        glimpse(tail, step, now_s).age_s
        for step in names.PRIORITY_STEPS
        if (tail := tails[queue, step]) is not None
    ]
    oldest_s = max((age for age in ages if age is not None), default=None)
    return QueueState(queue, {s: lengths[queue, s] for s in names.PRIORITY_STEPS}, oldest_s)
