"""The worker's app with a listener, as Sentry or OpenTelemetry would add: `-A signal_worker`."""

import os
from pathlib import Path
from typing import Any

from celery.signals import task_success

from reclane_worker import app

__all__ = ["app"]


@task_success.connect
def note(sender: Any, **_: Any) -> None:
    with Path(os.environ["SIGNALS_SEEN"]).open("a") as file:
        file.write(f"{sender.name} {sender.request.id}\n")
