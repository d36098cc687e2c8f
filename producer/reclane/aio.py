"""The asynchronous client: `Client` with every wait awaited. For one event loop."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, Self, TypeVar

import redis

from reclane import _exchange, _outgoing
from reclane._connection import connect_async
from reclane._outbox import Commands, Pause, raise_first
from reclane._refusal import refusal
from reclane.contract import Recommendation, RecommendRequest
from reclane.errors import ClientClosed, ResultTimeout
from reclane.settings import Settings

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Step = TypeVar("_Step")


class AsyncHandle:
    """One submitted request."""

    def __init__(
        self, client: "AsyncClient", task_id: str, future: "asyncio.Future[Recommendation]"
    ) -> None:
        self.id = task_id
        self._client = client
        self._future = future

    def __repr__(self) -> str:
        return f"<AsyncHandle {self.id}{' done' if self.done() else ''}>"

    def done(self) -> bool:
        """Whether the answer, or a failure, has arrived."""
        return self._future.done()

    async def result(self, timeout: float | None = None) -> Recommendation:
        """Await the answer; raises as `reclane.client.Handle.result` does."""
        if not self._future.done():
            self._client._check_usable()
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

    >>> async with AsyncClient() as client:
    ...     answer = await client.recommend("comfortable running shoes", k=5)
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(redis_url=url)
        self._redis: Any = connect_async(self._settings)  # redis-py types replies loosely
        self._exchange = _exchange.Exchange(self._settings)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._tried = asyncio.Event()  # subscribed, or failed to
        self._sending = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None
        self._waited = False
        self._interrupted = False  # and said so in the log

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
        return (await self.submit_many([_outgoing.merge(request, fields)]))[0]

    async def submit_many(self, requests: Iterable[RecommendRequest | str]) -> list[AsyncHandle]:
        """Enqueue many requests, pipelined; as `reclane.client.Client.submit_many`."""
        await self._ensure_listening()
        submitted = await self._talk(self._exchange.submit(requests, self._future))
        return [AsyncHandle(self, one.id, one.future) for one in submitted]

    async def enqueue(self, requests: Iterable[RecommendRequest | str]) -> list[str]:
        """Enqueue requests that another process awaits, by `handle(id)`; returns their ids.

        Raises:
            InvalidRequest: one breaks the contract, and nothing was enqueued; or the key of one
                belongs to another request, and the others are enqueued.
            QueueFull: too many wait already; nothing was enqueued.
            DeadlineUnreachable: one cannot be answered in time; nothing was enqueued.
            BrokerUnavailable: Redis could not be reached, or refuses writes.
        """
        return await self._talk(self._exchange.enqueue(requests))

    async def handle(self, task_id: str) -> AsyncHandle:
        """Await a request that was submitted elsewhere; as `reclane.client.Client.handle`."""
        await self._ensure_listening()
        one = await self._talk(self._exchange.attach(task_id, self._future()))
        return AsyncHandle(self, one.id, one.future)

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
        if not all(future.done() for future in waiting):
            self._check_usable()
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
        self._check_usable()
        return not handle.done() and await self._talk(self._exchange.cancel(handle.id))

    async def close(self) -> None:
        """Stop listening. Requests already enqueued are still worked on."""
        if os.getpid() != self._pid:
            self._closed = True
            return  # the loop and its sockets are the parent's
        if not self._closed:
            self._check_usable()
        self._closed = True
        error = ClientClosed("the client was closed before the answer came")
        self._exchange.outstanding.fail_all(error)  # first: what follows may be cancelled
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        with suppress(redis.RedisError):
            await self._drive(self._exchange.forget(), self._execute)
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- talking to Redis

    async def _talk(self, conversation: Generator[Commands, list[Any], _T]) -> _T:
        return await self._drive(conversation, self._send)

    async def _send(self, commands: Commands) -> list[Any]:
        """Through the outbox: whoever holds the lock sends for all tasks that wait."""
        self._check_usable()  # also after close() has failed all waiters
        ticket = self._exchange.outbox.put(commands)
        try:
            while not ticket.done:
                async with self._sending:
                    if not ticket.done:
                        await self._drive(self._exchange.outbox.flush(), self._execute_or_pause)
        except BaseException:
            self._exchange.outbox.withdraw(ticket)
            raise
        return ticket.take()

    async def _execute_or_pause(self, step: Commands | Pause) -> list[Any]:
        if not isinstance(step, Pause):
            return await self._pipeline(step)
        await asyncio.sleep(step.seconds)
        if self._closed:
            raise ClientClosed("the client was closed while Redis was away")
        return []

    async def _execute(self, commands: Commands) -> list[Any]:
        return raise_first(await self._pipeline(commands))

    async def _pipeline(self, commands: Commands) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies

    @staticmethod
    async def _drive(
        steps: Generator[_Step, list[Any], _T], do: Callable[[_Step], Awaitable[list[Any]]]
    ) -> _T:
        """Run a conversation to its end; errors are thrown into it, where it decides."""
        try:
            step = next(steps)
            while True:
                try:
                    replies = await do(step)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(replies)
        except StopIteration as end:
            result: _T = end.value
            return result

    # ---- listening

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientClosed("this client is closed; make a new one")
        if os.getpid() != self._pid:
            raise ClientClosed("this client was made before a fork; make one in each process")
        loop = asyncio.get_running_loop()
        if self._loop is not None and loop is not self._loop:
            raise ClientClosed("this client belongs to another event loop; make one in each loop")

    def _future(self) -> "asyncio.Future[Recommendation]":
        future: asyncio.Future[Recommendation] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_mark_retrieved)
        return future

    async def _ensure_listening(self) -> None:
        """Subscribe before the first enqueue; the slow re-read covers what this misses."""
        self._check_usable()
        if self._listener is None or self._listener.done():
            self._loop = asyncio.get_running_loop()
            self._listener = asyncio.create_task(self._listen(), name="reclane-client")
        if not self._waited:  # once: while Redis is away the fallback has to do
            self._waited = True
            try:
                await asyncio.wait_for(self._tried.wait(), self._settings.socket_timeout_s)
            except TimeoutError:
                _log.warning("not subscribed yet; answers are read by the slow fallback")

    async def _listen(self) -> None:
        while not self._closed:
            try:
                await self._listen_once()
            except redis.RedisError as error:
                if not self._interrupted:
                    self._interrupted = True
                    _log.warning(_exchange.INTERRUPTED, refusal(error) or type(error).__name__)
                self._tried.set()
                await asyncio.sleep(0.2)
            except Exception as error:
                _log.exception("reading answers failed")
                self._exchange.outstanding.fail_all(_exchange.reading_failed(error))

    async def _listen_once(self) -> None:
        """Read answers as they are announced, and all outstanding ones now and then."""
        tick_s = min(_exchange.TICK_S, self._settings.reread_interval_s)
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._exchange.channel)
            while not self._closed:
                message = await pubsub.get_message(timeout=tick_s)
                if message and message["type"] == "message":
                    await self._drive(self._exchange.heard(message["data"]), self._execute)
                elif message:  # subscribed, or again after a broken connection
                    self._exchange.subscribed()
                    self._tried.set()
                    self._interrupted = False
                else:
                    await self._drive(self._exchange.forget(), self._execute)
                await self._drive(self._exchange.tick(), self._execute)


def _mark_retrieved(future: "asyncio.Future[Recommendation]") -> None:
    """A failure nobody awaits is not worth asyncio's 'exception was never retrieved'."""
    if not future.cancelled():
        future.exception()
