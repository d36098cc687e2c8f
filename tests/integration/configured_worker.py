"""The worker's app with Celery settings that change what is stored: `-A configured_worker`."""

from faulty_worker import app

__all__ = ["app"]

app.conf.update(task_track_started=True, result_extended=True)
