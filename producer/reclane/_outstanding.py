"""The ids that await an answer, and what becomes of them when one is read. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias

from pydantic import ValidationError

from reclane import wire
from reclane._outgoing import is_keyed
from reclane.contract import Recommendation
from reclane.errors import ReclaneError, RequestFailed, RequestRevoked, UnknownRequest

MAX_DONE_DEADLINES: Final = 1_000


class SettableFuture(Protocol):
    """What concurrent.futures.Future and asyncio.Future have in common."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


Watched: TypeAlias = Mapping[str, Sequence[SettableFuture]]
"""Who awaited each id when a read began: it settles these and nobody who came later."""

_Deadline: TypeAlias = tuple[float, int, str, SettableFuture]  # monotonic, serial, id, waiter


@dataclass(slots=True)
class _Awaited:
    futures: list[SettableFuture] = field(default_factory=list)
    sent: bool = False


class Outstanding:
    """The ids that await an answer. Threads may share it.

    An id counts as sent once Redis has confirmed it: only then does a missing result mean that
    the request is unknown, and only then may a result that was read be forgotten. An id of an
    idempotency key, which others may have sent too, is added when it is confirmed.
    """

    def __init__(self) -> None:
        self._awaited: dict[str, _Awaited] = {}
        self._early: set[str] = set()  # settled before they were confirmed
        self._forgettable: list[str] = []
        self._deadlines: list[_Deadline] = []  # heap
        self._serial = count()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._awaited)

    def add(self, task_id: str, future: SettableFuture, deadline: float | None = None) -> None:
        """Await an id; past `deadline` (monotonic seconds) it is overdue."""
        with self._lock:
            self._awaited.setdefault(task_id, _Awaited()).futures.append(future)
            if deadline is not None:
                heappush(self._deadlines, (deadline, next(self._serial), task_id, future))
                self._drop_done_deadlines()

    def sent(self, ids: Iterable[str]) -> None:
        """Redis has confirmed these."""
        with self._lock:
            for task_id in ids:
                awaited = self._awaited.get(task_id)
                if awaited is not None:
                    awaited.sent = True
                elif task_id in self._early:
                    self._early.discard(task_id)
                    self._forgettable.append(task_id)

    def drop(self, task_id: str, future: SettableFuture) -> None:
        """Forget one waiter; others of the same id (one idempotency key) go on waiting."""
        with self._lock:
            self._early.discard(task_id)
            self._remove(task_id, [future])

    def ids(self) -> list[str]:
        """Those confirmed by Redis."""
        with self._lock:
            return [task_id for task_id, awaited in self._awaited.items() if awaited.sent]

    def wanted(self, ids: Iterable[str]) -> list[str]:
        """Those of `ids` that somebody still awaits."""
        return [i for i in ids if i in self._awaited]

    def watched(self, ids: Iterable[str]) -> Watched:
        """Who awaits each of `ids` now."""
        with self._lock:
            return {
                task_id: tuple(self._awaited[task_id].futures)
                for task_id in ids
                if task_id in self._awaited
            }

    def overdue(self, now: float, limit: int) -> list[str]:
        """Up to `limit` ids past their deadline that nobody has answered; each is named once.

        One that Redis has not confirmed yet is named later. A request with an idempotency key
        may have other waiters: here only the overdue one is told, and no id is named.
        """
        found: list[str] = []
        unconfirmed: list[_Deadline] = []
        told: list[SettableFuture] = []
        with self._lock:
            while self._deadlines and self._deadlines[0][0] <= now and len(found) < limit:
                entry = heappop(self._deadlines)
                _, _, task_id, future = entry
                awaited = self._awaited.get(task_id)
                if awaited is None or future not in awaited.futures:
                    continue
                if is_keyed(task_id):
                    self._remove(task_id, [future])
                    told.append(future)
                elif awaited.sent:
                    found.append(task_id)
                else:
                    unconfirmed.append(entry)
            for entry in unconfirmed:
                heappush(self._deadlines, entry)
        for future in told:
            _set(future, RequestRevoked("the request expired before it was answered", "expired"))
        return found

    def remind(self, ids: Iterable[str], deadline: float) -> None:
        """Name these again at `deadline`: Redis could not be told."""
        with self._lock:
            for task_id in ids:
                for future in self._awaited.get(task_id, _Awaited()).futures:
                    heappush(self._deadlines, (deadline, next(self._serial), task_id, future))

    def settle(self, watched: Watched, stored: Mapping[str, bytes | None]) -> None:
        """Give each id's waiters its stored answer; one that waits stays outstanding."""
        for task_id, raw in stored.items():
            futures = watched.get(task_id, ())
            result = self._unknown(task_id) if raw is None else read_result(raw)
            if result is not None and futures:
                self._finish(task_id, futures, result, raw is not None and _may_go(task_id, result))

    def take_forgettable(self) -> list[str]:
        """Ids whose answers have been read and may go from the server; each is named once."""
        with self._lock:
            ids, self._forgettable = self._forgettable, []
        return ids

    def keep_forgettable(self, ids: Iterable[str]) -> None:
        """Name these again: Redis could not be told."""
        with self._lock:
            self._forgettable.extend(ids)

    def fail_all(self, error: ReclaneError) -> None:
        with self._lock:
            everyone = {i: tuple(awaited.futures) for i, awaited in self._awaited.items()}
        for task_id, futures in everyone.items():
            self._finish(task_id, futures, error, forget=False)

    def _finish(
        self,
        task_id: str,
        futures: Sequence[SettableFuture],
        result: Recommendation | ReclaneError,
        forget: bool,
    ) -> None:
        with self._lock:
            awaited = self._awaited.get(task_id)
            claimed = self._remove(task_id, futures)
            if awaited is not None and claimed and not awaited.futures and forget:
                if awaited.sent:
                    self._forgettable.append(task_id)
                else:
                    self._early.add(task_id)
        for future in claimed:  # nobody else settles these
            _set(future, result)

    def _remove(self, task_id: str, futures: Sequence[SettableFuture]) -> list[SettableFuture]:
        """Take waiters out; those that were still in. Holds the lock."""
        awaited = self._awaited.get(task_id)
        if awaited is None:
            return []
        claimed = [one for one in awaited.futures if any(one is f for f in futures)]
        awaited.futures = [one for one in awaited.futures if all(one is not f for f in futures)]
        if not awaited.futures:
            del self._awaited[task_id]
        return claimed

    def _unknown(self, task_id: str) -> ReclaneError | None:
        awaited = self._awaited.get(task_id)
        return unknown(task_id) if awaited is not None and awaited.sent else None

    def _drop_done_deadlines(self) -> None:
        """Keep the heap in proportion to who waits. Holds the lock."""
        if len(self._deadlines) > 2 * len(self._awaited) + MAX_DONE_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if not entry[3].done()]
            heapify(self._deadlines)


def _set(future: SettableFuture, result: Recommendation | ReclaneError) -> None:
    if future.done():  # cancelled by its owner
        return
    if isinstance(result, ReclaneError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _may_go(task_id: str, result: Recommendation | ReclaneError) -> bool:
    """A keyed answer stays for who asks again; a revocation stays to stop the message."""
    return not isinstance(result, RequestRevoked) and not is_keyed(task_id)


def unknown(task_id: str) -> UnknownRequest:
    """What a waiter gets where Redis knows nothing of its id."""
    return UnknownRequest(
        f"no request {task_id} waits and no answer to it is kept: it was read already, outlived "
        "RECLANE_RESULT_TTL_S, was never submitted by a reclane client, or Redis lost it; "
        "submit it again"
    )


def read_result(raw: bytes) -> Recommendation | ReclaneError | None:
    """The answer or error that stored bytes stand for; None while the request waits."""
    if wire.is_pending(raw):
        return None
    try:
        meta = wire.decode_result(raw)
        return wire.outcome(meta) if meta.status in wire.READY else None
    except ValidationError:
        return RequestFailed("the answer breaks this client's contract; upgrade reclane", "version")
    except ReclaneError as error:
        return error
