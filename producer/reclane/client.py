"""The synchronous client: enqueue requests, await answers. Safe to share between threads."""

import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import as_completed as futures_as_completed
from contextlib import suppress
from typing import Any, Self, TypeVar

import redis

from reclane import _exchange, _outgoing
from reclane._connection import connect
from reclane._outbox import Commands, Pause, raise_first
from reclane._refusal import refusal
from reclane.contract import Recommendation, RecommendRequest
from reclane.errors import ClientClosed, ResultTimeout
from reclane.settings import Settings

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Step = TypeVar("_Step")


class Handle:
    """One submitted request."""

    def __init__(self, client: "Client", task_id: str, future: "Future[Recommendation]") -> None:
        self.id = task_id
        self._client = client
        self._future = future

    def __repr__(self) -> str:
        return f"<Handle {self.id}{' done' if self.done() else ''}>"

    def done(self) -> bool:
        """Whether the answer, or a failure, has arrived."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Recommendation:
        """Wait for the answer, `timeout` seconds at most (None: for ever).

        Raises:
            RequestFailed: the worker answered with a failure.
            RequestRevoked: cancelled or expired.
            UnknownRequest: the answer outlived its time before it was read, or Redis lost it.
            ResultTimeout: nothing yet; the request is still queued.
        """
        if not self._future.done():
            self._client._check_open()
        try:
            return self._future.result(timeout)
        except FutureTimeout:
            raise ResultTimeout(
                f"no answer to {self.id} within {timeout} s; is a worker running?"
            ) from None

    def cancel(self) -> bool:
        """Revoke the request; False when it is answered. All who share its key lose it."""
        return self._client.cancel(self)


class Client:
    """Enqueues recommendation requests and awaits their answers.

    >>> with Client("redis://localhost:6379/0") as client:
    ...     answer = client.recommend("comfortable running shoes", k=5)
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(redis_url=url)
        self._redis: Any = connect(self._settings)  # redis-py types replies loosely
        self._exchange = _exchange.Exchange(self._settings)
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._tried = threading.Event()  # subscribed, or failed to
        self._starting = threading.Lock()
        self._sending = threading.Lock()
        self._listener: threading.Thread | None = None
        self._waited = False
        self._interrupted = False  # and said so in the log

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
            QueueFull: too many wait already; nothing was enqueued.
            DeadlineUnreachable: one cannot be answered in time; nothing was enqueued.
            BrokerUnavailable: Redis could not be reached, or refuses writes.
        """
        return self.submit_many([_outgoing.merge(request, fields)])[0]

    def submit_many(self, requests: Iterable[RecommendRequest | str]) -> list[Handle]:
        """Enqueue many requests, pipelined; all are validated before the first is enqueued.

        The queue's bound and the deadlines admit all of them or none; see `submit` for errors.
        """
        self._ensure_listening()
        submitted = self._talk(self._exchange.submit(requests, Future[Recommendation]))
        return [Handle(self, one.id, one.future) for one in submitted]

    def enqueue(self, requests: Iterable[RecommendRequest | str]) -> list[str]:
        """Enqueue requests that another process awaits, by `handle(id)`; returns their ids.

        Raises:
            InvalidRequest: one breaks the contract, and nothing was enqueued; or the key of one
                belongs to another request, and the others are enqueued.
            QueueFull: too many wait already; nothing was enqueued.
            DeadlineUnreachable: one cannot be answered in time; nothing was enqueued.
            BrokerUnavailable: Redis could not be reached, or refuses writes.
        """
        return self._talk(self._exchange.enqueue(requests))

    def handle(self, task_id: str) -> Handle:
        """Await a request that was submitted elsewhere by a reclane client, by its id.

        Whoever reads an answer first takes it, unless it has an idempotency key.

        Raises:
            UnknownRequest: no such request waits and no answer to it is kept.
        """
        self._ensure_listening()
        one = self._talk(self._exchange.attach(task_id, Future[Recommendation]()))
        return Handle(self, one.id, one.future)

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
        if not all(future.done() for future in waiting):
            self._check_open()
        try:
            for future in futures_as_completed(waiting, timeout):
                yield from waiting[future]
        except FutureTimeout as error:
            raise ResultTimeout(str(error)) from None

    def cancel(self, handle: Handle) -> bool:
        """Store REVOKED for a request that has no answer yet; see `Handle.cancel`."""
        self._check_open()
        return not handle.done() and self._talk(self._exchange.cancel(handle.id))

    def close(self) -> None:
        """Stop listening. Requests already enqueued are still worked on."""
        self._closed.set()
        if os.getpid() != self._pid:
            return  # threads and locks are the parent's
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join(self._settings.socket_timeout_s)
        error = ClientClosed("the client was closed before the answer came")
        self._exchange.outstanding.fail_all(error)
        with suppress(redis.RedisError):
            self._drive(self._exchange.forget(), self._execute)
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- talking to Redis

    def _talk(self, conversation: Generator[Commands, list[Any], _T]) -> _T:
        return self._drive(conversation, self._send)

    def _send(self, commands: Commands) -> list[Any]:
        """Through the outbox: whoever holds the lock sends for all threads that wait."""
        self._check_open()  # also after close() has failed all waiters
        ticket = self._exchange.outbox.put(commands)
        try:
            while not ticket.done:
                with self._sending:
                    if not ticket.done:
                        self._drive(self._exchange.outbox.flush(), self._execute_or_pause)
        except BaseException:
            self._exchange.outbox.withdraw(ticket)
            raise
        return ticket.take()

    def _execute_or_pause(self, step: Commands | Pause) -> list[Any]:
        if not isinstance(step, Pause):
            return self._pipeline(step)
        if self._closed.wait(step.seconds):
            raise ClientClosed("the client was closed while Redis was away")
        return []

    def _execute(self, commands: Commands) -> list[Any]:
        return raise_first(self._pipeline(commands))

    def _pipeline(self, commands: Commands) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = pipe.execute(raise_on_error=False)
        return replies

    @staticmethod
    def _drive(steps: Generator[_Step, list[Any], _T], do: Callable[[_Step], list[Any]]) -> _T:
        """Run a conversation to its end; errors are thrown into it, where it decides."""
        try:
            step = next(steps)
            while True:
                try:
                    replies = do(step)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(replies)
        except StopIteration as end:
            result: _T = end.value
            return result

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
        if not self._waited:  # once: while Redis is away the fallback has to do
            self._tried.wait(self._settings.socket_timeout_s)
            self._waited = True

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen_once()
            except redis.RedisError as error:
                if not self._interrupted:
                    self._interrupted = True
                    _log.warning(_exchange.INTERRUPTED, refusal(error) or type(error).__name__)
                self._tried.set()
                self._closed.wait(0.2)
            except Exception as error:
                _log.exception("reading answers failed")
                self._exchange.outstanding.fail_all(_exchange.reading_failed(error))

    def _listen_once(self) -> None:
        """Read answers as they are announced, and all outstanding ones now and then."""
        tick_s = min(_exchange.TICK_S, self._settings.reread_interval_s)
        with self._redis.pubsub() as pubsub:
            pubsub.subscribe(self._exchange.channel)
            while not self._closed.is_set():
                message = pubsub.get_message(timeout=tick_s)
                if message and message["type"] == "message":
                    self._drive(self._exchange.heard(message["data"]), self._execute)
                elif message:  # subscribed, or again after a broken connection
                    self._exchange.subscribed()
                    self._tried.set()
                    self._interrupted = False
                else:
                    self._drive(self._exchange.forget(), self._execute)
                self._drive(self._exchange.tick(), self._execute)
