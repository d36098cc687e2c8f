"""What the sync and the async client share: building enqueue calls, settling answers. No I/O."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Protocol, TypeVar
from uuid import NAMESPACE_URL, uuid4, uuid5

import redis
from pydantic import ValidationError

from reclane import _scripts, names, wire
from reclane.contract import MAX_REQUEST_BYTES, Recommendation, RecommendRequest, parse_request
from reclane.errors import BrokerUnavailable, InvalidRequest, ReclaneError, RequestFailed
from reclane.settings import Settings

MAX_CALL_MESSAGES: Final = 500
MAX_CALL_BYTES: Final = 1_000_000
CALL_MARKER_TTL_S: Final = 60  # longer than a call is ever repeated
READ_CHUNK: Final = 500
ENQUEUE: Final = _scripts.load("reclane/enqueue")
CANCEL: Final = _scripts.load("reclane/terminal", "reclane/cancel")

_T = TypeVar("_T")


class SettableFuture(Protocol):
    """What concurrent.futures.Future and asyncio.Future have in common."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request, validated and encoded."""

    id: str
    queue_list: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class EnqueueCall:
    """Keys and arguments of one enqueue.lua call; its call id makes a repeat harmless."""

    keys: tuple[str, str]
    args: tuple[bytes | int, ...]


def connection_options(settings: Settings) -> dict[str, Any]:
    """Timeouts for every connection; a client adds a Retry of zero, sync or async."""
    return {
        "socket_timeout": settings.socket_timeout_s,
        "socket_connect_timeout": settings.socket_timeout_s,
        "socket_keepalive": True,
    }


def cancel_call(
    task_id: str, reply_to: str, settings: Settings, now: float
) -> tuple[str, bytes, int, str, str]:
    """Key and arguments of cancel.lua for one request."""
    meta = wire.encode_revoked(task_id, "cancelled", now)
    keys = settings.keys
    return keys.result(task_id), meta, settings.result_ttl_s, keys.channel(reply_to), task_id


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
    queue = names.INTERACTIVE_QUEUE
    raw = wire.encode_request(request, task_id=task_id, queue=queue, reply_to=reply_to, now=now)
    if len(raw) > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"the request takes {len(raw)} bytes, limit {MAX_REQUEST_BYTES}")
    return Outgoing(task_id, names.priority_list(queue), raw)


def enqueue_calls(messages: Iterable[Outgoing], keys: names.Keys) -> Iterator[EnqueueCall]:
    """Group messages into calls bounded in count and bytes, order kept within a list."""
    by_list: defaultdict[str, list[bytes]] = defaultdict(list)
    for message in messages:
        by_list[message.queue_list].append(message.raw)
    for queue_list, raws in by_list.items():
        group: list[bytes] = []
        size = 0
        for raw in raws:
            if group and (len(group) == MAX_CALL_MESSAGES or size + len(raw) > MAX_CALL_BYTES):
                yield _call(keys, queue_list, group)
                group, size = [], 0
            group.append(raw)
            size += len(raw)
        yield _call(keys, queue_list, group)


def _call(keys: names.Keys, queue_list: str, raws: list[bytes]) -> EnqueueCall:
    return EnqueueCall(
        (keys.enqueued(uuid4().hex), keys.prefix + queue_list), (CALL_MARKER_TTL_S, *raws)
    )


class Retrying:
    """Decides about one idempotent call that Redis did not answer: pause and repeat, or give up."""

    def __init__(self, timeout_s: float, now: float) -> None:
        self._give_up = now + timeout_s
        self._pause_s = 0.05

    def pause_s(self, error: redis.RedisError, now: float) -> float:
        """Seconds to wait before repeating the call.

        Raises:
            BrokerUnavailable: Redis refuses, or stayed away for the whole timeout.
        """
        passing = isinstance(error, redis.ConnectionError | redis.TimeoutError)
        if not passing or isinstance(error, redis.AuthenticationError):
            raise BrokerUnavailable(f"Redis refuses: {error}") from error
        if now + self._pause_s > self._give_up:
            raise BrokerUnavailable(
                f"Redis cannot be reached ({type(error).__name__}); "
                "check RECLANE_REDIS_URL and that the server runs"
            ) from error
        pause_s, self._pause_s = self._pause_s, min(1.0, self._pause_s * 2)
        return pause_s


class Outstanding:
    """The ids that await an answer. Threads may share it."""

    def __init__(self) -> None:
        self._futures: dict[str, list[SettableFuture]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, task_id: str, future: SettableFuture) -> None:
        with self._lock:
            self._futures.setdefault(task_id, []).append(future)

    def drop(self, task_id: str, future: SettableFuture) -> None:
        """Forget one waiter; others of the same id (one idempotency key) go on waiting."""
        with self._lock:
            rest = [other for other in self._futures.get(task_id, ()) if other is not future]
            if rest:
                self._futures[task_id] = rest
            else:
                self._futures.pop(task_id, None)

    def ids(self) -> list[str]:
        with self._lock:
            return list(self._futures)

    def wanted(self, ids: Iterable[str]) -> list[str]:
        """Those of `ids` that somebody still awaits."""
        return [i for i in ids if i in self._futures]

    def settle(self, ids: Sequence[str], stored: Sequence[bytes | None]) -> None:
        """Give each id's futures its stored answer; an id with none stays outstanding."""
        for task_id, raw in zip(ids, stored, strict=True):
            if raw is None:
                continue
            result = _read(raw)
            if result is not None:
                self._finish(task_id, result)

    def fail_all(self, error: ReclaneError) -> None:
        for task_id in self.ids():
            self._finish(task_id, error)

    def _finish(self, task_id: str, result: Recommendation | ReclaneError) -> None:
        with self._lock:
            futures = self._futures.pop(task_id, [])
        for future in futures:
            if future.done():
                continue
            if isinstance(result, ReclaneError):
                future.set_exception(result)
            else:
                future.set_result(result)


def _read(raw: bytes) -> Recommendation | ReclaneError | None:
    try:
        meta = wire.decode_result(raw)
        return wire.outcome(meta) if meta.status in wire.READY else None
    except ValidationError:
        return RequestFailed("the answer breaks this client's contract; upgrade reclane", "version")
    except ReclaneError as error:
        return error


def reading_failed(error: Exception) -> ReclaneError:
    """What waiters get when answers cannot be read for a reason of this client's own."""
    return ReclaneError(f"this client failed to read answers: {type(error).__name__}")


def notified_ids(data: bytes) -> list[str]:
    """The ids in one notification, one a line."""
    return data.decode("utf-8", "replace").split("\n")


def chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Slices of at most `size` values, in order."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
