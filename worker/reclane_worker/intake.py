"""From leased messages to batches: what needs no run ends here, the rest is prepared and grouped.

For the lane's thread, while the device runs the batches before.
"""

from collections.abc import Collection, Sequence
from typing import Final

from reclane.contract import Failure
from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.celery_side.finisher import CeleryFinisher
from reclane_worker.device import Stopwatch
from reclane_worker.finishing import CELERY_S, Finishing
from reclane_worker.flights import Batch, Totals
from reclane_worker.lane import Entry, Lane, patiently
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.triage import Job, Triage, decode, triage

PREPARE_S: Final = 1.0  # predicted time to tokenise one lease


class Intake:
    """Checks messages, and groups those that shall run. `revoked` holds ids."""

    def __init__(
        self,
        lane: Lane,
        pipeline: Pipeline,
        finishing: Finishing,
        finisher: CeleryFinisher,
        events: TaskEvents,
        stopwatch: Stopwatch,
        totals: Totals,
        revoked: Collection[str],
        max_attempts: int,
    ) -> None:
        self._lane = lane
        self._pipeline = pipeline
        self._finishing = finishing
        self._finisher = finisher
        self._events = events
        self._stopwatch = stopwatch
        self._totals = totals
        self._revoked = revoked
        self._max_attempts = max_attempts

    def batches(self, entries: Sequence[Entry], now_ms: int) -> list[Batch]:
        """Check messages, end those that need no run, and group the rest into batches.

        `now_ms` is Redis's clock at the lease.
        """
        with self._stopwatch.watch("reading messages", PREPARE_S):
            read, ended = decode(entries, now_ms, self._max_attempts)
        ids = [message.id for _, message in read]
        stored = patiently(lambda: self._lane.stored(ids))
        with self._stopwatch.watch("checking messages", PREPARE_S):
            checked = triage(
                read,
                now_ms=now_ms,
                stored=stored,
                revoked=self._revoked,
                max_attempts=self._max_attempts,
            )
        self._announce(checked)
        self._finishing.end(ended + checked.ended)
        for one in checked.parked:
            self._finishing.park(one.entry, one.due_ms)
        return self._group(checked.jobs)

    def _announce(self, checked: Triage) -> None:
        """As Celery does when a message has arrived: count it, tell whoever listens."""
        self._totals.accepted += len(checked.jobs) + sum(1 for one in checked.ended if one.failure)
        with self._stopwatch.watch("receivers of task_received", CELERY_S):
            self._finisher.received(checked.arrived())
        self._events.received(checked)

    def _group(self, jobs: Sequence[Job]) -> list[Batch]:
        """Batches in the order to run; what cannot be prepared fails alone, here."""
        with self._stopwatch.watch("preparing requests", PREPARE_S):
            prepared = self._pipeline.prepare(
                [job.request for job in jobs], [job.queued_ms for job in jobs]
            )
        failed = [(j, p) for j, p in zip(jobs, prepared, strict=True) if isinstance(p, Failure)]
        if failed:
            self._events.started([job for job, _ in failed])
            self._finishing.commit([job for job, _ in failed], [failure for _, failure in failed])
        ready = [(j, p) for j, p in zip(jobs, prepared, strict=True) if isinstance(p, Prepared)]
        groups = self._pipeline.batches([one for _, one in ready])
        return [[ready[i] for i in group] for group in groups]
