"""The lane's loop: lease, check, prepare, run, commit, with the device always one batch ahead.

While the device runs batches, this thread commits finished ones and prepares the next. It
never waits for a fuller batch while the device is idle, and leases the next work only when the
running batch is about to end, so that what arrives meanwhile runs together.
"""

import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict
from traceback import format_tb
from typing import Any, Final

import redis

from reclane import names
from reclane._refusal import refusal
from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.celery_side.finisher import CeleryFinisher
from reclane_worker.device import Device, Stopwatch, bound_s, device_threads
from reclane_worker.ending import EXIT_LANE, end_process
from reclane_worker.finishing import Finishing
from reclane_worker.flights import Flights
from reclane_worker.intake import Intake
from reclane_worker.lane import Entry, Lane, Leased, is_passing, patiently
from reclane_worker.pipeline import Pipeline
from reclane_worker.ready import Batch, Ready, places_kept
from reclane_worker.settings import WorkerSettings
from reclane_worker.wait import QueueWatch

_log = logging.getLogger(__name__)

LEAD_S: Final = 0.010  # prepare the next batch this long before the running one should end
SLICE_MS: Final = {"cpu": 50.0, "cuda": 10.0}
SLICES: Final = 4  # of bulk in one lease: enough to find similar lengths


class LaneLoop(threading.Thread):
    """Owns the lane's connection. `drain` ends it; its death ends the process."""

    def __init__(
        self,
        settings: WorkerSettings,
        lane: Lane,
        pipeline: Pipeline,
        finisher: CeleryFinisher,
        events: TaskEvents,
        stopwatch: Stopwatch,
        revoked: Collection[str],
    ) -> None:
        super().__init__(name="reclane-lane", daemon=True)
        self._settings = settings
        self._lane = lane
        self._pipeline = pipeline
        self._watch = QueueWatch(settings)
        self._draining = threading.Event()
        self._batch_id = 0
        self._incarnation = 0
        self._queues: tuple[str, ...] = names.LANE_QUEUES
        self._ready = Ready()
        kind = pipeline.encoder.device.type
        slice_s = (settings.bulk_slice_ms or SLICE_MS.get(kind, SLICE_MS["cpu"])) / 1e3
        self.device_threads = device_threads(settings, kind)
        device = Device(stopwatch, self.device_threads)
        finishing = Finishing(lane, finisher, events, stopwatch)
        self._flights = Flights(
            lane, pipeline, device, finishing, events, stopwatch, self._watch.wake, slice_s
        )
        self.totals = self._flights.totals
        self._intake = Intake(
            lane,
            pipeline,
            self._flights,
            finishing,
            finisher,
            events,
            stopwatch,
            revoked,
            settings.max_attempts,
        )

    # ---- lifecycle

    def run(self) -> None:
        try:
            self._work()
            self._leave()
        except BaseException as error:
            place = "".join(format_tb(error.__traceback__)[-6:])  # the message may hold a request
            _log.error("the lane thread failed with %s\n%s", type(error).__name__, place)
            why = refusal(error)
            end_process(
                EXIT_LANE,
                f"the lane thread died of {type(error).__name__}" + (f": {why}" if why else ""),
            )

    def begin_drain(self) -> None:
        """Take no more work; returns at once."""
        self._draining.set()
        self._watch.wake()

    def drain(self) -> bool:
        """Finish what is on the device, give the rest back, leave; False past the bound."""
        self.begin_drain()
        self.join(self._settings.drain_s or bound_s(self._flights.left_s()))
        return not self.is_alive()

    # ---- asked from other threads

    def statistics(self) -> dict[str, Any]:
        """For whoever watches the worker: counters, cost, versions; and its pace when busy, in
        requests per second, None before the first batch."""
        token_s, batch_s = self._flights.cost.line()
        told: dict[str, Any] = {"cost": {"token_s": token_s, "batch_s": batch_s}}
        told["pace_per_s"] = self._flights.pace_per_s()
        return self.counters() | told | self._pipeline.versions()

    def counters(self) -> dict[str, float]:
        """Everything counted since the start, here and in the pipeline."""
        return asdict(self.totals) | self._pipeline.statistics()

    @property
    def queues(self) -> tuple[str, ...]:
        """The lane queues this worker takes from at present, in order."""
        return self._queues

    def take(self, queue: str, wanted: bool) -> None:
        """Take from a lane queue, or leave it alone; what was leased from it still runs."""
        kept = {*self._queues, queue} if wanted else {*self._queues} - {queue}
        self._queues = tuple(name for name in names.LANE_QUEUES if name in kept)
        self._watch.wake()

    def running(self) -> dict[str, float]:
        """What is on the device: in-flight field -> when it went there, seconds since the epoch."""
        return self._flights.running()

    # ---- the loop

    def _work(self) -> None:
        self._flights.learn_cost()
        while not self._draining.is_set():
            leased = self._lease()
            trusted = [entry for entry in leased.entries if not entry.suspect]
            self._ready.add(self._prepare(trusted, leased))
            self._launch(leased)
            self._prepare_bulk(leased)
            for entry in leased.entries:
                if entry.suspect and not self._draining.is_set():
                    self._run_suspect(entry, leased)
            self._flights.backlog = self._is_backlog(leased)
            self._wait(leased)
            self._flights.land_done()
        self._flights.land_all()

    def _is_backlog(self, leased: Leased) -> bool:
        """Whether more work waits than was leased."""
        waiting = self._ready or self._intake.bulk
        return bool(waiting) or len(leased.entries) >= self._settings.lease_messages

    def _lease(self) -> Leased:
        """Take work; the batch id changes only once the reply has arrived."""
        queues, limit, bulk = self._queues, self._settings.lease_messages, self._bulk_wanted()
        kept = places_kept(limit)
        leased = patiently(
            lambda: self._lane.lease(self._batch_id, limit, queues, bulk_kept=kept, bulk_most=bulk)
        )
        self._batch_id += 1
        if self._incarnation and leased.incarnation != self._incarnation:
            _log.warning("the lease had lapsed; unfinished batches were recovered by others")
            self._ready.clear()
            self._intake.bulk.clear()
        self._incarnation = leased.incarnation
        return leased

    def _bulk_wanted(self) -> int:
        """How many bulk messages to lease: some slices' worth, and none while one is ready."""
        if self._intake.bulk or self._ready.bulk_requests > self._slice_requests:
            return 0
        return max(1, int(SLICES * self._slice_requests / self._intake.per_message))

    @property
    def _slice_requests(self) -> float:
        return self._flights.slice_tokens / self._flights.mean_tokens

    def _prepare(self, entries: Sequence[Entry], leased: Leased) -> list[Batch]:
        """Batches of leased messages; bulk comes later. They count as started from here: one that
        kills the process while it is read or tokenised must not go from worker to worker for ever.
        """
        if not entries or not self._flights.start([entry.field for entry in entries]):
            return []
        jobs = self._intake.check(entries, leased, SLICES * self._slice_requests)
        self._intake.bulk.add(job for job in jobs if job.bulk)
        return self._intake.batches([job for job in jobs if not job.bulk], leased)

    def _prepare_bulk(self, leased: Leased) -> None:
        """The bulk that waits for it, portion by portion, until there is something else to do: then
        some is left, and nobody sleeps on what was heard."""
        while self._intake.bulk and not self._draining.is_set():
            self._ready.add(self._intake.portion(leased))
            self._launch(leased)
            if self._intake.bulk and self._is_awaited():
                return

    def _is_awaited(self) -> bool:
        """Whether a queue changed or a batch is done."""
        try:
            return self._watch.woken()
        except redis.RedisError:
            return True

    def _launch(self, leased: Leased) -> None:
        """Everything interactive goes on the device, then bulk where there is room."""
        for batch in self._ready.interactive():
            if self._draining.is_set():
                return
            self._flights.launch(batch, leased)
        while bulk := self._ready.bulk(self._flights.room, self._flights.bulk):
            if self._draining.is_set():
                return
            self._flights.launch(bulk, leased)

    def _run_suspect(self, entry: Entry, leased: Leased) -> None:
        """What was with a worker when it died goes through everything with nothing beside it: if
        it is the culprit, nobody goes down with it again. Of a chunk these are the requests that
        ran then, the worst first; the others follow as usual."""
        self._flights.land_all()
        if not self._flights.start([entry.field]):
            return
        jobs = self._intake.check([entry], leased)
        for job in sorted(jobs, key=lambda job: -job.crashes):
            if not job.suspect:
                continue
            if self._draining.is_set() or not self._flights.start([job.started]):
                return
            for batch in self._intake.batches([job], leased):
                self._flights.launch(batch, leased)
                self._flights.land_all()
        others = [job for job in jobs if not job.suspect]
        if others and self._flights.start([entry.field]):
            self._ready.add(self._intake.batches(others, leased))  # one message is of one class

    # ---- waiting

    def _wait(self, leased: Leased) -> None:
        """Until there is something to do: not with a backlog, nor while part of the device is
        idle and work may wait."""
        if self._intake.bulk or len(leased.entries) >= self._settings.lease_messages:
            return
        busy = self._flights.full
        if self._flights.bulk:
            self._wait_beside_bulk(leased)
        elif leased.entries:
            if busy:  # what arrives meanwhile runs together
                self._flights.wait_until_ending(LEAD_S)
        elif busy:
            self._flights.wait_for_one()
        else:
            self._sleep(leased)

    def _wait_beside_bulk(self, leased: Leased) -> None:
        """An interactive request passes bulk as soon as it comes; bulk that comes is no hurry."""
        if not leased.entries and self._flights.full:
            self._flights.wait_for_one(LEAD_S)
        if self._ready or not leased.entries or not self._flights.room:
            self._sleep(leased)

    def _sleep(self, leased: Leased) -> None:
        """Sleep until a queue changes, a batch is done or a scheduled message is due."""
        timeout_s = self._settings.lease_ms / 3e3
        if leased.next_due_ms is not None:
            timeout_s = min(timeout_s, max(0.0, (leased.next_due_ms - leased.now_ms) / 1e3))
        try:
            self._watch.wait(timeout_s, self._queues)
        except redis.RedisError as error:
            if not is_passing(error):
                raise
            if not self._draining.is_set():
                _log.warning("waiting for work was interrupted; reconnecting")
                self._draining.wait(0.1)

    def _leave(self) -> None:
        """Give back what was leased and not run, then the lease."""
        held = patiently(self._lane.held)
        if held:
            patiently(lambda: self._lane.give_back(held))
            _log.info("gave back %s messages", len(held))
        patiently(self._lane.leave)
        self._flights.close()
        self._lane.close()
