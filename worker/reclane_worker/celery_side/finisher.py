"""What Celery itself must do for some messages: links, chains, groups, chords, signals.

Such a message's answer is computed in its batch like any other. Then Celery's own tracer runs
the registered task, which only returns that answer, so that callbacks, chord counting, signals,
their sender and the stored result are exactly Celery's.
"""

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from celery import Celery, signals
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.worker.request import Request
from kombu.message import Message

from reclane import names, wire
from reclane.contract import Failure
from reclane.errors import RequestFailed

Outcome = dict[str, Any] | Failure

_log = logging.getLogger(__name__)
# A stock client's argsrepr holds request text, and log records and events carry it.
_HIDDEN: Final = {"argsrepr": "-", "kwargsrepr": "-"}
_COMPUTED: Final[ContextVar[Outcome | None]] = ContextVar("computed", default=None)


def computed() -> Outcome | None:
    """What the lane has computed already for the task that this thread is tracing, if anything."""
    return _COMPUTED.get()


def answer_or_raise(outcome: Outcome) -> dict[str, Any]:
    """A task's way to tell an answer from a failure.

    Raises:
        RequestFailed: with the failure's code.
    """
    if isinstance(outcome, Failure):
        raise RequestFailed(outcome.message, outcome.code, outcome.retry)
    return outcome


class CeleryFinisher:
    """Ends messages through Celery's tracer and backend. For one thread."""

    def __init__(self, worker: Any) -> None:
        self._app: Celery = worker.app
        self._worker = worker
        self._extended = bool(self._app.conf.result_extended)
        self._tracers = {
            name: build_tracer(name, self._app.tasks[name], app=self._app, hostname=worker.hostname)
            for name in names.LANE_TASKS
        }

    def wants(self, message: wire.Message, *, revoked: bool = False) -> bool:
        """Whether plain storing is not enough: the message is linked, or somebody listens."""
        if message.needs_celery or self._extended:
            return True
        if revoked:
            return bool(signals.task_revoked.receivers)
        return bool(
            signals.task_prerun.receivers
            or signals.task_postrun.receivers
            or signals.task_success.receivers
            or signals.task_failure.receivers
        )

    def received(self, messages: Iterable[wire.Message]) -> None:
        """Tell receivers of `task_received`, where there are any, as Celery's consumer would."""
        if not signals.task_received.receivers:
            return
        for message in messages:
            try:
                request = self._celery_request(message)
            except Exception as error:
                _log.error("request %s: no signal (%s)", message.id, type(error).__name__)
            else:
                signals.task_received.send(sender=self._worker.consumer, request=request)

    def finish(self, message: wire.Message, outcome: Outcome | str, *, store: bool = True) -> None:
        """Store the outcome and send what follows from it, as a stock worker would.

        A string is the reason for a revocation: then the chord is told, also where whoever
        revoked it has stored that already.
        """
        if isinstance(outcome, str):
            self._revoke(message, outcome, store and not message.ignore_result)
            return
        token = _COMPUTED.set(outcome)
        try:
            trace = self._tracers[_task(message)]
            trace(message.id, message.args, message.kwargs, self._request(message))
        finally:
            _COMPUTED.reset(token)

    def follow(self, message: wire.Message, kept: bytes) -> None:
        """Do once more what follows from a result that is stored: who stored it may have died
        before a chord counted it or errbacks were sent. Links are sent before a result is stored.
        """
        context, backend = Context(self._request(message)), self._app.backend
        meta = backend.decode_result(kept)
        if meta["status"] == wire.SUCCESS:
            backend.mark_as_done(message.id, meta["result"], context, store_result=False)
            return
        # The rest of a chain hears of the failure only where that is stored (as it was) once more.
        backend.mark_as_failure(
            message.id,
            meta["result"],
            meta.get("traceback"),
            request=context,
            store_result=bool(context.chain),
        )

    def _revoke(self, message: wire.Message, reason: str, store: bool) -> None:
        context = Context(self._request(message))
        self._app.backend.mark_as_revoked(message.id, reason, request=context, store_result=store)
        signals.task_revoked.send(
            sender=self._app.tasks[_task(message)],
            request=context,
            terminated=False,
            signum=None,
            expired=reason == "expired",
        )

    def _celery_request(self, message: wire.Message) -> Request:
        sent = Message(properties=message.properties, delivery_info=delivery_info(message))  # type: ignore[no-untyped-call]
        return Request(
            sent,
            headers=message.headers | _HIDDEN,
            body=(message.args, message.kwargs, message.embed),
            decoded=True,
            app=self._app,
            hostname=self._worker.hostname,
            task=self._app.tasks[_task(message)],
        )

    def _request(self, message: wire.Message) -> dict[str, Any]:
        return {
            **message.headers,
            **message.embed,
            **_HIDDEN,
            "args": message.args,
            "kwargs": message.kwargs,
            "hostname": self._worker.hostname,
            "is_eager": False,
            "reply_to": message.reply_to,
            "correlation_id": message.properties.get("correlation_id"),
            "delivery_info": delivery_info(message),
        }


def _task(message: wire.Message) -> str:
    """The name of the task that Celery runs for a message; a foreign one only fails."""
    return message.task if message.task in names.LANE_TASKS else names.RECOMMEND


def delivery_info(message: wire.Message) -> dict[str, Any]:
    """Where a message came through, as a stock worker's request says it."""
    given = message.properties.get("delivery_info")
    return {
        **(given if isinstance(given, dict) else {}),
        "priority": message.properties.get("priority"),
        "redelivered": False,
    }
