"""Task events for Flower and `celery events`: told off the hot path, and only while wanted.

The lane's thread asks once a batch whether this worker's events are enabled (`-E`, or `celery
control enable_events`); if so it leaves a list here. A thread of its own publishes each list as
one message, as Celery's buffered dispatcher does. Best effort: when the channel is slow or
broken, lists are dropped and counted, and the lane goes on.
"""

import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from queue import Full, Queue
from typing import Any, Final

from celery.events import Event, get_exchange
from celery.utils.time import utcoffset
from kombu.messaging import Producer

from reclane import wire
from reclane.contract import Failure
from reclane.errors import RequestFailed
from reclane_worker.answering import Answer
from reclane_worker.triage import Triage

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 32  # lists, each of at most one lease's messages
STOP_S: Final = 2.0
HIDDEN: Final = "-"  # arguments and answers hold request text

# What became of a message; a string is the reason for its revocation.
Outcome = Answer | Failure | str

_Fields = dict[str, Any]


class TaskEvents(threading.Thread):
    """What happens to requests, as Celery's task events. Callers never wait nor see an error."""

    def __init__(self, worker: Any) -> None:
        super().__init__(name="reclane-events", daemon=True)
        self._worker = worker
        self._lists: Queue[list[_Fields] | None] = Queue(MAX_WAITING)
        self.dropped = 0

    # ---- called by the lane's thread

    def received(self, checked: Triage) -> None:
        if self._wanted():
            self._put([_received(message) for message in checked.arrived()])

    def started(self, messages: Iterable[wire.Message]) -> None:
        if self._wanted():
            self._put([_event("task-started", message) for message in messages])

    def finished(self, told: Iterable[tuple[wire.Message, Outcome]], runtime_s: float) -> None:
        """What has become visible of a batch that ran."""
        if self._wanted():
            self._put([_finished(message, outcome, runtime_s) for message, outcome in told])

    def ended(self, told: Collection[tuple[wire.Message, Outcome]]) -> None:
        """What has become visible without a run. A stock worker starts on a request before it
        finds it invalid."""
        if told and self._wanted():
            self._put([event for message, outcome in told for event in _ended(message, outcome)])

    def _wanted(self) -> bool:
        """Whether Celery's own dispatcher of this worker would send task events now."""
        dispatcher = getattr(getattr(self._worker, "consumer", None), "event_dispatcher", None)
        if dispatcher is None or not dispatcher.enabled:
            return False
        return not dispatcher.groups or "task" in dispatcher.groups

    def _put(self, events: list[_Fields]) -> None:
        if not events:
            return
        try:
            self._lists.put_nowait(events)
        except Full:
            self.dropped += len(events)

    # ---- the thread

    def stop(self) -> None:
        """Send what waits, within a bound."""
        if not self.is_alive():
            return
        try:
            self._lists.put(None, timeout=STOP_S)
        except Full:
            return
        self.join(STOP_S)

    def run(self) -> None:
        connection: Any = None
        while (events := self._lists.get()) is not None:
            try:
                connection = connection or self._worker.app.connection_for_write()
                self._publish(connection, events)
            except Exception as error:  # whatever is wrong with the channel is not the lane's
                self.dropped += len(events)
                _log.warning("%s events not sent (%s)", len(events), type(error).__name__)
                _close(connection)
                connection = None
        _close(connection)

    def _publish(self, connection: Any, events: list[_Fields]) -> None:
        app, hostname = self._worker.app, self._worker.hostname
        exchange = get_exchange(connection, name=app.conf.event_exchange)
        common = {"hostname": hostname, "utcoffset": utcoffset(), "pid": os.getpid()}
        with Producer(  # type: ignore[no-untyped-call]
            connection, exchange=exchange, serializer=app.conf.event_serializer, auto_declare=False
        ) as producer:
            producer.publish(
                [Event(**fields, **common, clock=app.clock.forward()) for fields in events],
                routing_key="task.multi",
                declare=[exchange],
                headers={"hostname": hostname},
                delivery_mode=1,
            )


def _close(connection: Any) -> None:
    try:
        if connection is not None:
            connection.release()
    except Exception as error:
        _log.debug("closing the event channel raised %s", type(error).__name__)


# ---- the fields of celery.worker.strategy and celery.worker.request ----------------------------


def _event(kind: str, message: wire.Message, **fields: Any) -> _Fields:
    return {"type": kind, "uuid": message.id, "timestamp": time.time(), **fields}


def _received(message: wire.Message) -> _Fields:
    headers = message.headers
    return _event(
        "task-received",
        message,
        name=headers.get("shadow") or message.task,
        args=HIDDEN,
        kwargs=HIDDEN,
        root_id=headers.get("root_id"),
        parent_id=headers.get("parent_id"),
        retries=headers.get("retries", 0),
        eta=_date(message.eta),
        expires=_date(message.expires),
    )


def _date(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _finished(message: wire.Message, outcome: Outcome, runtime_s: float = 0.0) -> _Fields:
    if isinstance(outcome, Failure):
        error = RequestFailed(outcome.message, outcome.code, outcome.retry)
        return _event("task-failed", message, exception=repr(error), traceback="")
    if isinstance(outcome, str):
        expired = outcome == "expired"
        return _event("task-revoked", message, terminated=False, signum=None, expired=expired)
    return _event("task-succeeded", message, result=HIDDEN, runtime=runtime_s)


def _ended(message: wire.Message, outcome: Outcome) -> Iterator[_Fields]:
    if isinstance(outcome, Failure):
        yield _event("task-started", message)
    yield _finished(message, outcome)
