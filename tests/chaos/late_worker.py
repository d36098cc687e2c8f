"""The same app on a stock worker that acknowledges late: `celery -A chaos.late_worker`."""

from typing import Final

from chaos.paced_worker import app

__all__ = ["app"]

VISIBILITY_TIMEOUT_S: Final = 5

app.conf.task_acks_late = True
app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "visibility_timeout": VISIBILITY_TIMEOUT_S,
}
