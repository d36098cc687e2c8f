"""The worker's app with listeners, as Sentry or OpenTelemetry would add: `-A listening_worker`."""

import os
from pathlib import Path
from typing import Any

from celery import signals
from celery.worker.consumer import Consumer
from faulty_worker import app

from reclane import names

__all__ = ["app"]


def note(name: str, sender: Any, task_id: str) -> None:
    """One line: the signal, the request, whether the sender is what a receiver may filter by."""
    known = isinstance(sender, Consumer) or sender is app.tasks[names.RECOMMEND]
    with Path(os.environ["SIGNALS_SEEN"]).open("a") as file:
        file.write(f"{name} {task_id} {known}\n")


@signals.task_received.connect
def received(sender: Any, request: Any, **_: Any) -> None:
    note("received", sender, request.id)


@signals.task_prerun.connect
def prerun(sender: Any, task_id: str, **_: Any) -> None:
    note("prerun", sender, task_id)


@signals.task_postrun.connect
def postrun(sender: Any, task_id: str, state: str, **_: Any) -> None:
    note(f"postrun-{state}", sender, task_id)


@signals.task_success.connect
def success(sender: Any, **_: Any) -> None:
    note("success", sender, sender.request.id)


@signals.task_failure.connect
def failure(sender: Any, task_id: str, exception: Exception, **_: Any) -> None:
    note(f"failure-{type(exception).__name__}", sender, task_id)


@signals.task_revoked.connect
def revoked(sender: Any, request: Any, expired: bool, **_: Any) -> None:
    note("expired" if expired else "revoked", sender, request.id)
