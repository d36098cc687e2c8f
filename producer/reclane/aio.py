"""The asynchronous client: `Client` with every wait awaited. For one event loop."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self, TypeVar
from uuid import uuid4

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reclane import _exchange, names
from reclane.contract import Recommendation, RecommendRequest
from reclane.errors import ClientClosed, ResultTimeout
from reclane.settings import Settings

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class AsyncHandle:
    """One submitted request."""

    def __init__(
        self, client: "AsyncClient", task_id: str, future: "asyncio.Future[Recommendation]"
    ) -> None:
        self.id = task_id
        self._client = client
        self._future = future

    def done(self) -> bool:
        """Whether the answer, or a failure, has arrived."""
        return self._future.done()

    async def result(self, timeout: float | None = None) -> Recommendation:
        """Await the answer; raises as `reclane.client.Handle.result` does."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._future), timeout)
        except TimeoutError as error:
            if isinstance(error, ResultTimeout):
                raise
            raise ResultTimeout(
                f"no answer to {self.id} within {timeout} s; is a worker running?"
            ) from None

    async def cancel(self) -> bool:
        """Revoke the request; False when its answer already exists."""
        return await self._client.cancel(self)


class AsyncClient:
    """Enqueues recommendation requests and awaits their answers.

    >>> async with AsyncClient() as client:                     # doctest: +SKIP
    ...     answer = await client.recommend("comfortable running shoes", k=5)
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(redis_url=url)
        self._redis: Any = connect(self._settings)  # redis-py types replies loosely
        self._reply_to = names.notify_channel(uuid4().hex)
        self._outstanding = _exchange.Outstanding()
        self._pid = os.getpid()
        self._closed = False
        self._subscribed = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def recommend(
        self,
        request: RecommendRequest | str | None = None,
        *,
        timeout: float | None = 30.0,
        **fields: Any,
    ) -> Recommendation:
        """Submit one request and await its answer; see `submit` and `AsyncHandle.result`."""
        handle = await self.submit(request, **fields)
        return await handle.result(timeout)

    async def submit(
        self, request: RecommendRequest | str | None = None, **fields: Any
    ) -> AsyncHandle:
        """Enqueue one request; raises as `reclane.client.Client.submit` does."""
        return (await self.submit_many([_exchange.merge(request, fields)]))[0]

    async def submit_many(self, requests: Iterable[RecommendRequest | str]) -> list[AsyncHandle]:
        """Enqueue many requests, pipelined; all are validated before the first is enqueued."""
        now = time.time()
        messages = [
            _exchange.outgoing(_exchange.merge(r, {}), self._reply_to, now) for r in requests
        ]
        await self._ensure_listening()
        loop = asyncio.get_running_loop()
        handles = []
        for message in messages:
            future: asyncio.Future[Recommendation] = loop.create_future()
            future.add_done_callback(_mark_retrieved)
            self._outstanding.add(message.id, future)
            handles.append(AsyncHandle(self, message.id, future))
        calls = list(_exchange.enqueue_calls(messages, self._settings.keys))
        try:
            self._check_open()  # again: close() may have failed all waiters just before
            await self._retrying(lambda: self._push(calls))
        except BaseException:
            for handle in handles:
                self._outstanding.drop(handle.id, handle._future)
            raise
        return handles

    async def as_completed(
        self, handles: Iterable[AsyncHandle], timeout: float | None = None
    ) -> AsyncIterator[AsyncHandle]:
        """Yield handles as their answers arrive.

        Raises:
            ResultTimeout: some are missing after `timeout` seconds.
        """
        waiting: dict[asyncio.Future[Recommendation], list[AsyncHandle]] = {}
        for handle in handles:
            waiting.setdefault(handle._future, []).append(handle)
        give_up = None if timeout is None else time.monotonic() + timeout
        pending = set(waiting)
        while pending:
            left_s = None if give_up is None else max(0.0, give_up - time.monotonic())
            done, pending = await asyncio.wait(
                pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise ResultTimeout(f"{len(pending)} of {len(waiting)} answers are missing")
            for future in done:
                for handle in waiting[future]:
                    yield handle

    async def cancel(self, handle: AsyncHandle) -> bool:
        """Store REVOKED for a request that has no answer yet."""
        self._check_open()
        call = _exchange.cancel_call(handle.id, self._reply_to, self._settings, time.time())
        return bool(await self._retrying(lambda: self._redis.eval(_exchange.CANCEL, 1, *call)))

    async def close(self) -> None:
        """Stop listening. Requests already enqueued are still worked on."""
        self._closed = True
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        self._outstanding.fail_all(ClientClosed("the client was closed before the answer came"))
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- enqueueing

    async def _push(self, calls: list[_exchange.EnqueueCall]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.eval(_exchange.ENQUEUE, len(call.keys), *call.keys, *call.args)
            await pipe.execute()

    async def _retrying(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat an idempotent call while Redis is away, for enqueue_timeout_s at most."""
        retry = _exchange.Retrying(self._settings.enqueue_timeout_s, time.monotonic())
        while True:
            try:
                return await call()
            except redis.RedisError as error:
                await asyncio.sleep(retry.pause_s(error, time.monotonic()))
                if self._closed:
                    raise ClientClosed("the client was closed while Redis was away") from error

    # ---- listening

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("this client is closed; make a new one")
        if os.getpid() != self._pid:
            raise ClientClosed("this client was made before a fork; make one in each process")

    async def _ensure_listening(self) -> None:
        """Subscribe before the first enqueue; the slow re-read covers what this misses."""
        self._check_open()
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="reclane-client")
        if not self._subscribed.is_set():
            try:
                await asyncio.wait_for(self._subscribed.wait(), self._settings.socket_timeout_s)
            except TimeoutError:
                _log.warning("not subscribed yet; answers are read by the slow fallback")

    async def _listen(self) -> None:
        while not self._closed:
            try:
                await self._listen_once()
            except redis.RedisError as error:
                _log.warning("notifications interrupted (%s); reconnecting", type(error).__name__)
                await asyncio.sleep(0.2)
            except Exception as error:
                _log.exception("reading answers failed")
                self._outstanding.fail_all(_exchange.reading_failed(error))

    async def _listen_once(self) -> None:
        """Read answers as they are announced, and all outstanding ones now and then."""
        interval_s = self._settings.reread_interval_s
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._settings.keys.channel(self._reply_to))
            reread_at = 0.0
            while not self._closed:
                message = await pubsub.get_message(timeout=min(0.2, interval_s))
                if message and message["type"] == "message":
                    ids = _exchange.notified_ids(message["data"])
                    await self._read(self._outstanding.wanted(ids))
                elif message:
                    self._subscribed.set()
                if time.monotonic() >= reread_at:
                    await self._read(self._outstanding.ids())
                    reread_at = time.monotonic() + interval_s

    async def _read(self, ids: list[str]) -> None:
        for part in _exchange.chunks(ids, _exchange.READ_CHUNK):
            stored = await self._redis.mget([self._settings.keys.result(i) for i in part])
            self._outstanding.settle(part, stored)


def _mark_retrieved(future: "asyncio.Future[Recommendation]") -> None:
    """A failure nobody awaits is not worth asyncio's 'exception was never retrieved'."""
    if not future.cancelled():
        future.exception()


def connect(settings: Settings) -> "redis.asyncio.Redis":
    """As `reclane.client.connect`, for asyncio."""
    return redis.asyncio.Redis.from_url(
        settings.redis_url.get_secret_value(),
        **_exchange.connection_options(settings),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
