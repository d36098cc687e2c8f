"""The reclane worker. `celery -A reclane_worker worker -Q reclane.tasks` finds its app here."""

from reclane_worker.app import app

__all__ = ["app"]
