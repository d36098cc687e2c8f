"""From requests to the calls that enqueue them. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid4, uuid5

from reclane import _scripts, names, wire
from reclane._outbox import ENQUEUE, Command
from reclane.contract import MAX_REQUEST_BYTES, RecommendRequest, parse_request
from reclane.errors import InvalidRequest
from reclane.settings import Settings

MAX_CALL_MESSAGES: Final = 500
MAX_CALL_BYTES: Final = 1_000_000
WAITING_TTL_S: Final = 7 * 86_400
"""How long Redis knows that a request without a deadline waits."""

ADMISSION_TTL_S: Final = 60  # longer than any call is repeated

CANCEL: Final = _scripts.load("reclane/terminal", "reclane/cancel", allow_oom=True)
ATTACH: Final = _scripts.load("reclane/terminal", "reclane/attach")

FULL, TOO_LATE = 0, -1  # what enqueue.lua returns instead of 1 when it admits nothing
QUEUED, ATTACHED, READY, CONFLICT = "q", "a", "r", "c"  # states that enqueue.lua returns


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request, validated and encoded. `digest` is '' without an idempotency key.

    `expires` (seconds since the epoch) is when its caller stops waiting, None: never.
    """

    id: str
    queue: str
    raw: bytes
    digest: str = ""
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class EnqueueCall:
    """One enqueue.lua call: the messages that it carries and the command."""

    messages: tuple[Outgoing, ...]
    command: Command


def merge(request: RecommendRequest | str | None, fields: dict[str, Any]) -> RecommendRequest:
    """A request from a query string, keyword fields, or a ready request.

    Raises:
        InvalidRequest: before anything is enqueued.
    """
    if isinstance(request, RecommendRequest):
        if fields:
            raise InvalidRequest("give a RecommendRequest, or a query with fields, not both")
        return request
    if request is not None and "query" in fields:
        raise InvalidRequest("the query is given twice, by position and by name")
    return parse_request(fields if request is None else {"query": request, **fields})


def outgoing(request: RecommendRequest, reply_to: str, now: float) -> Outgoing:
    """Encode a request for the interactive queue. `now` is seconds since the epoch.

    Raises:
        InvalidRequest: its message would be larger than MAX_REQUEST_BYTES.
    """
    key = request.idempotency_key
    task_id = str(uuid5(NAMESPACE_URL, f"reclane:{key}")) if key else str(uuid4())
    digest = wire.request_digest(request) if key else ""
    expires = None if request.deadline_s is None else now + request.deadline_s
    queue = names.INTERACTIVE_QUEUE
    if key:  # others may join and wait longer: the placeholder says until when it is wanted
        request = request.model_copy(update={"deadline_s": None})
    raw = wire.encode_request(
        request, task_id=task_id, queue=queue, reply_to=reply_to, now=now, digest=digest
    )
    if len(raw) > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"the request takes {len(raw)} bytes, limit {MAX_REQUEST_BYTES}")
    return Outgoing(task_id, queue, raw, digest, expires)


def is_keyed(task_id: str) -> bool:
    """Whether an id comes from an idempotency key: then its result is kept once read."""
    return len(task_id) == 36 and task_id[14] == "5"  # UUID version 5, see `outgoing`


def enqueue_calls(
    messages: Iterable[Outgoing], reply_to: str, settings: Settings, now: float
) -> Iterator[EnqueueCall]:
    """Group messages into calls bounded in count and bytes, order kept within a queue.

    The first call decides for all of a queue's messages: whether they fit the queue's bound,
    and whether those with deadlines can be answered in time; of the messages still to come the
    most urgent counts, as if it were the last. The later calls look whether it was admitted.
    `now` is seconds since the epoch.
    """
    by_queue: defaultdict[str, list[Outgoing]] = defaultdict(list)
    for message in messages:
        by_queue[message.queue].append(message)
    for queue, ours in by_queue.items():
        keys = settings.keys
        lists, before = keys.lists(queue), keys.served_before(queue)
        shared = [keys.admission(uuid4().hex), keys.pace, keys.list(queue), *lists, *before]
        left = len(ours)
        for group in _groups(ours):
            left -= len(group)
            first = group[0] is ours[0]
            coming = left if first else -1
            urgent = _most_urgent(ours[len(group) :], now) if first else ""
            key_names = [*shared, *(keys.result(message.id) for message in group)]
            command: list[str | bytes | int] = ["EVALSHA", ENQUEUE.sha, len(key_names), *key_names]
            command += [len(lists), len(before), settings.queue_limit, coming, urgent]
            command += [f"{now:.3f}", keys.channel(reply_to) if reply_to else "", ADMISSION_TTL_S]
            for message in group:
                command += _enqueued(message, settings, now)
            yield EnqueueCall(tuple(group), tuple(command))


def _most_urgent(messages: Sequence[Outgoing], now: float) -> str:
    """How many seconds the nearest deadline is away, or ''."""
    expires = [message.expires for message in messages if message.expires is not None]
    return f"{min(expires) - now:.3f}" if expires else ""


def _groups(messages: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    group: list[Outgoing] = []
    size = 0
    for message in messages:
        if group and (len(group) == MAX_CALL_MESSAGES or size + len(message.raw) > MAX_CALL_BYTES):
            yield group
            group, size = [], 0
        group.append(message)
        size += len(message.raw)
    if group:
        yield group


def _enqueued(message: Outgoing, settings: Settings, now: float) -> tuple[bytes | int | str, ...]:
    """One message's part of enqueue.lua's arguments."""
    if message.expires is None:
        return message.raw, WAITING_TTL_S, message.digest, ""
    ttl_s = int(message.expires - now) + 1 + settings.result_ttl_s
    return message.raw, ttl_s, message.digest, f"{message.expires:.3f}"


def cancel_command(task_id: str, meta: bytes, reply_to: str, settings: Settings) -> Command:
    """Store a revocation for a waiting request."""
    keys = settings.keys
    channel = keys.channel(reply_to)
    return ("EVAL", CANCEL, 1, keys.result(task_id), meta, settings.result_ttl_s, channel, task_id)


def attach_command(task_id: str, reply_to: str, settings: Settings) -> Command:
    """Have this client told when a request that was submitted elsewhere ends."""
    keys = settings.keys
    return ("EVAL", ATTACH, 1, keys.result(task_id), keys.channel(reply_to))
