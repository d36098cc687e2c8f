"""What Celery itself must do for some messages: links, chains, groups, chords, signals.

Such a message's answer is computed in its batch like any other. Then Celery's own tracer runs
a task that only returns that answer, so that callbacks, chord counting, signals and the stored
result are exactly Celery's.
"""

from typing import Any

from celery import Celery, Task, signals
from celery.app.task import Context
from celery.app.trace import build_tracer

from reclane import names, wire
from reclane.contract import Failure
from reclane.errors import RequestFailed

Outcome = dict[str, Any] | Failure


def answer_or_raise(outcome: Outcome) -> dict[str, Any]:
    """A task's way to tell an answer from a failure.

    Raises:
        RequestFailed: with the failure's code.
    """
    if isinstance(outcome, Failure):
        raise RequestFailed(outcome.message, outcome.code, outcome.retry)
    return outcome


class _Computed(Task):  # type: ignore[misc]  # celery ships no types
    """`reclane.recommend` as the tracer sees it: its answer is already there."""

    name = names.RECOMMEND
    resultrepr_maxsize = 1  # answers stay out of logs
    outcome: Outcome

    def run(self, *args: object, **kwargs: object) -> dict[str, Any]:
        return answer_or_raise(self.outcome)


class CeleryFinisher:
    """Ends messages through Celery's tracer and backend. For one thread."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._task = _Computed()
        self._task.bind(app)
        self._trace = build_tracer(names.RECOMMEND, self._task, app=app, hostname=hostname)

    def wants(self, message: wire.Message) -> bool:
        """Whether plain storing is not enough: the message is linked, or somebody listens."""
        return message.needs_celery or bool(
            signals.task_prerun.receivers
            or signals.task_postrun.receivers
            or signals.task_success.receivers
            or signals.task_failure.receivers
        )

    def finish(self, message: wire.Message, outcome: Outcome | str) -> None:
        """Store the outcome and send what follows from it, as a stock worker would.

        A string is the reason for a revocation: then the chord is told, too.
        """
        request = self._request(message)
        if isinstance(outcome, str):
            self._app.backend.mark_as_revoked(
                message.id,
                outcome,
                request=Context(request),
                store_result=not message.ignore_result,
            )
            return
        self._task.outcome = outcome
        self._trace(message.id, message.args, message.kwargs, request)

    def _request(self, message: wire.Message) -> dict[str, Any]:
        return {
            **message.headers,
            **message.embed,
            "argsrepr": "-",  # a stock client's holds request text, and log records carry it
            "kwargsrepr": "-",
            "args": message.args,
            "kwargs": message.kwargs,
            "hostname": self._hostname,
            "is_eager": False,
            "reply_to": message.reply_to,
            "correlation_id": message.properties.get("correlation_id"),
            "delivery_info": {
                **_mapping(message.properties.get("delivery_info")),
                "priority": message.properties.get("priority"),
                "redelivered": False,
            },
        }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
