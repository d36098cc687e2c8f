"""From leased messages to jobs, from jobs to batches: what needs no run ends here.

For the lane's thread, while the device runs the batches before.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Final

from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.celery_side.finisher import CeleryFinisher
from reclane_worker.deadlines import rounds
from reclane_worker.device import Stopwatch
from reclane_worker.finishing import CELERY_S, Finishing
from reclane_worker.flights import Flights
from reclane_worker.lane import Entry, Lane, Leased, patiently
from reclane_worker.pipeline import Pipeline
from reclane_worker.portions import Portions
from reclane_worker.preparing import Prepared
from reclane_worker.ready import Batch
from reclane_worker.sharing import first_places
from reclane_worker.triage import Job, Triage, decode, triage

PREPARE_S: Final = 1.0  # predicted time to tokenise one lease


class Intake:
    """Checks messages, and groups those that shall run. `revoked` holds ids."""

    def __init__(
        self,
        lane: Lane,
        pipeline: Pipeline,
        flights: Flights,
        finishing: Finishing,
        finisher: CeleryFinisher,
        events: TaskEvents,
        stopwatch: Stopwatch,
        revoked: Collection[str],
        max_attempts: int,
    ) -> None:
        self._lane = lane
        self._pipeline = pipeline
        self._flights = flights
        self._finishing = finishing
        self._finisher = finisher
        self._events = events
        self._stopwatch = stopwatch
        self._revoked = revoked
        self._max_attempts = max_attempts
        self.bulk = Portions()  # what shall be prepared in portions
        self.per_message = 1.0  # requests in a bulk message, as lately seen

    def check(self, entries: Sequence[Entry], leased: Leased, most: float = math.inf) -> list[Job]:
        """Read messages, end those that need no run; the requests of the rest. Chunks that come
        after `most` requests of others are given back."""
        now_ms = leased.now_ms
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
        self._leave_over(checked, most)
        self._announce(checked)
        self._finishing.end(ended + checked.ended)
        for one in checked.parked:
            self._finishing.park(one.entry, one.due_ms)
        failed = [chunk for chunk in checked.chunks if chunk.whole]
        self._flights.begin(failed)
        self._finishing.end_chunks(failed)
        return checked.jobs

    def batches(self, jobs: Sequence[Job], leased: Leased) -> list[Batch]:
        """Prepare requests of one class and group them, in the order to run."""
        return self._group(self._prepare(jobs), leased.now_s())

    def portion(self, leased: Leased) -> list[Batch]:
        """Prepare a portion of the bulk that waits for it; with the last one all is grouped. It
        counts as started, as one request may kill the process."""
        jobs = self.bulk.take()
        if not jobs or not self._flights.start([job.started for job in jobs]):
            return []
        self.bulk.put(self._prepare(jobs))
        return self._group(self.bulk.whole(), leased.now_s())

    def _leave_over(self, checked: Triage, most: float) -> None:
        """How many requests a message holds is known only by now."""
        bulk = [job for job in checked.jobs if job.bulk]
        if bulk:
            self.per_message = len(bulk) / len({job.entry.field for job in bulk})
        before = [0, *accumulate(map(len, checked.chunks))]
        kept = sum(1 for requests in before[:-1] if requests < most)
        over = [chunk.entry.field for chunk in checked.chunks[kept:]]
        if over:
            checked.chunks = checked.chunks[:kept]
            checked.jobs = [job for job in checked.jobs if job.entry.field not in over]
            patiently(lambda: self._lane.give_back(over))

    def _announce(self, checked: Triage) -> None:
        """As Celery does when a message has arrived: count what fails at once, tell whoever
        listens."""
        self._flights.totals.accepted += sum(1 for one in checked.ended if one.failure)
        with self._stopwatch.watch("receivers of task_received", CELERY_S):
            self._finisher.received(checked.arrived())
        self._events.received(checked)

    def _prepare(self, jobs: Sequence[Job]) -> list[tuple[Job, Prepared]]:
        """Jobs ready for the device; what is known by now, or cannot be prepared, ends here."""
        with self._stopwatch.watch("preparing requests", PREPARE_S):
            prepared = self._pipeline.prepare(
                [job.request for job in jobs], [job.queued_ms for job in jobs]
            )
        done = [(j, p) for j, p in zip(jobs, prepared, strict=True) if not isinstance(p, Prepared)]
        if done:
            self._flights.begin(job for job, _ in done)
            self._finishing.commit([job for job, _ in done], [result for _, result in done])
        return [(j, p) for j, p in zip(jobs, prepared, strict=True) if isinstance(p, Prepared)]

    def _group(self, ready: Sequence[tuple[Job, Prepared]], now: float) -> list[Batch]:
        """Similar lengths together, the oldest deadline first; bulk in slices. All of one class."""
        return [*self._groups(ready, ready[0][0].bulk, now)] if ready else []

    def _groups(
        self, ready: Sequence[tuple[Job, Prepared]], bulk: bool, now: float
    ) -> Iterator[Batch]:
        cost = self._flights.cost
        expires = [math.inf if job.expires is None else job.expires for job, _ in ready]
        first = first_places([one.key for _, one in ready])  # equal requests run as one
        tokens = [len(one.tokens) if first[one.key] == i else 0 for i, (_, one) in enumerate(ready)]
        full_tokens = self._pipeline.limits.max_tokens
        slice_tokens = self._flights.slice_tokens if bulk else None
        for part in rounds(expires, tokens, now, full_tokens, cost.expect):
            groups = self._pipeline.batches([ready[i][1] for i in part], slice_tokens)
            members = [[part[i] for i in group] for group in groups]
            for group in sorted(members, key=lambda group: min(expires[i] for i in group)):
                yield Batch([ready[i][0] for i in group], [ready[i][1] for i in group], bulk)
