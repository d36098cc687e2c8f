"""The synchronous client: enqueue requests, await answers. Safe to share between threads."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import as_completed as futures_as_completed
from typing import Any, Self, TypeVar
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from reclane import _exchange, names
from reclane.contract import Recommendation, RecommendRequest
from reclane.errors import ClientClosed, ResultTimeout
from reclane.settings import Settings

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Handle:
    """One submitted request."""

    def __init__(self, client: "Client", task_id: str, future: "Future[Recommendation]") -> None:
        self.id = task_id
        self._client = client
        self._future = future

    def done(self) -> bool:
        """Whether the answer, or a failure, has arrived."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Recommendation:
        """Wait for the answer, `timeout` seconds at most (None: for ever).

        Raises:
            RequestFailed: the worker answered with a failure.
            RequestRevoked: cancelled or expired.
            ResultTimeout: nothing yet; the request is still queued.
        """
        try:
            return self._future.result(timeout)
        except FutureTimeout:
            raise ResultTimeout(
                f"no answer to {self.id} within {timeout} s; is a worker running?"
            ) from None

    def cancel(self) -> bool:
        """Revoke the request; False when its answer already exists."""
        return self._client.cancel(self)


class Client:
    """Enqueues recommendation requests and awaits their answers.

    >>> with Client("redis://localhost:6379/0") as client:      # doctest: +SKIP
    ...     answer = client.recommend("comfortable running shoes", k=5)
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(redis_url=url)
        self._redis: Any = connect(self._settings)  # redis-py types replies loosely
        self._reply_to = names.notify_channel(uuid4().hex)
        self._outstanding = _exchange.Outstanding()
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._subscribed = threading.Event()
        self._starting = threading.Lock()
        self._listener: threading.Thread | None = None

    def recommend(
        self,
        request: RecommendRequest | str | None = None,
        *,
        timeout: float | None = 30.0,
        **fields: Any,
    ) -> Recommendation:
        """Submit one request and wait for its answer; see `submit` and `Handle.result`."""
        return self.submit(request, **fields).result(timeout)

    def submit(self, request: RecommendRequest | str | None = None, **fields: Any) -> Handle:
        """Enqueue one request: a query with keyword fields, or a RecommendRequest.

        Raises:
            InvalidRequest: it breaks the contract; nothing was enqueued.
            BrokerUnavailable: Redis could not be reached, or refuses writes.
        """
        return self.submit_many([_exchange.merge(request, fields)])[0]

    def submit_many(self, requests: Iterable[RecommendRequest | str]) -> list[Handle]:
        """Enqueue many requests, pipelined; all are validated before the first is enqueued."""
        self._ensure_listening()
        now = time.time()
        messages = [
            _exchange.outgoing(_exchange.merge(r, {}), self._reply_to, now) for r in requests
        ]
        handles = []
        for message in messages:
            future: Future[Recommendation] = Future()
            self._outstanding.add(message.id, future)
            handles.append(Handle(self, message.id, future))
        calls = list(_exchange.enqueue_calls(messages, self._settings.keys))
        try:
            self._check_open()  # again: close() may have failed all waiters just before
            self._retrying(lambda: self._push(calls))
        except BaseException:
            for handle in handles:
                self._outstanding.drop(handle.id, handle._future)
            raise
        return handles

    def as_completed(
        self, handles: Iterable[Handle], timeout: float | None = None
    ) -> Iterator[Handle]:
        """Yield handles as their answers arrive.

        Raises:
            ResultTimeout: some are missing after `timeout` seconds.
        """
        waiting: dict[Future[Recommendation], list[Handle]] = {}
        for handle in handles:
            waiting.setdefault(handle._future, []).append(handle)
        try:
            for future in futures_as_completed(waiting, timeout):
                yield from waiting[future]
        except FutureTimeout as error:
            raise ResultTimeout(str(error)) from None

    def cancel(self, handle: Handle) -> bool:
        """Store REVOKED for a request that has no answer yet; see `Handle.cancel`."""
        self._check_open()
        call = _exchange.cancel_call(handle.id, self._reply_to, self._settings, time.time())
        return self._retrying(lambda: bool(self._redis.eval(_exchange.CANCEL, 1, *call)))

    def close(self) -> None:
        """Stop listening. Requests already enqueued are still worked on."""
        self._closed.set()
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join(self._settings.socket_timeout_s)
        self._outstanding.fail_all(ClientClosed("the client was closed before the answer came"))
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- enqueueing

    def _push(self, calls: list[_exchange.EnqueueCall]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.eval(_exchange.ENQUEUE, len(call.keys), *call.keys, *call.args)
            pipe.execute()

    def _retrying(self, call: Callable[[], _T]) -> _T:
        """Repeat an idempotent call while Redis is away, for enqueue_timeout_s at most."""
        retry = _exchange.Retrying(self._settings.enqueue_timeout_s, time.monotonic())
        while True:
            try:
                return call()
            except redis.RedisError as error:
                if self._closed.wait(retry.pause_s(error, time.monotonic())):
                    raise ClientClosed("the client was closed while Redis was away") from error

    # ---- listening

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ClientClosed("this client is closed; make a new one")
        if os.getpid() != self._pid:
            raise ClientClosed("this client was made before a fork; make one in each process")

    def _ensure_listening(self) -> None:
        """Subscribe before the first enqueue; the slow re-read covers what this misses."""
        self._check_open()
        with self._starting:
            if self._listener is None:
                self._listener = threading.Thread(
                    target=self._listen, name="reclane-client", daemon=True
                )
                self._listener.start()
        self._subscribed.wait(self._settings.socket_timeout_s)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen_once()
            except redis.RedisError as error:
                _log.warning("notifications interrupted (%s); reconnecting", type(error).__name__)
                self._closed.wait(0.2)
            except Exception as error:
                _log.exception("reading answers failed")
                self._outstanding.fail_all(_exchange.reading_failed(error))

    def _listen_once(self) -> None:
        """Read answers as they are announced, and all outstanding ones now and then."""
        interval_s = self._settings.reread_interval_s
        with self._redis.pubsub() as pubsub:
            pubsub.subscribe(self._settings.keys.channel(self._reply_to))
            reread_at = 0.0
            while not self._closed.is_set():
                message = pubsub.get_message(timeout=min(0.2, interval_s))
                if message and message["type"] == "message":
                    ids = _exchange.notified_ids(message["data"])
                    self._read(self._outstanding.wanted(ids))
                elif message:
                    self._subscribed.set()
                if time.monotonic() >= reread_at:
                    self._read(self._outstanding.ids())
                    reread_at = time.monotonic() + interval_s

    def _read(self, ids: list[str]) -> None:
        for part in _exchange.chunks(ids, _exchange.READ_CHUNK):
            stored = self._redis.mget([self._settings.keys.result(i) for i in part])
            self._outstanding.settle(part, stored)


def connect(settings: Settings, protocol: int = 2) -> "redis.Redis":
    """A client whose own retries are off: reclane repeats only calls that are idempotent."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        **_exchange.connection_options(settings),
        protocol=protocol,
        retry=Retry(NoBackoff(), 0),
    )
