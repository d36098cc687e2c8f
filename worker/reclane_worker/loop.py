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
from reclane_worker.flights import Batch, Flights
from reclane_worker.intake import Intake
from reclane_worker.lane import Entry, Lane, Leased, is_passing, patiently
from reclane_worker.pipeline import Pipeline
from reclane_worker.settings import WorkerSettings
from reclane_worker.wait import QueueWatch

_log = logging.getLogger(__name__)

LEAD_S: Final = 0.010  # prepare the next batch this long before the running one should end


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
        self.device_threads = device_threads(settings, pipeline.encoder.device.type)
        device = Device(stopwatch, self.device_threads)
        finishing = Finishing(lane, finisher, events, stopwatch)
        self._flights = Flights(
            lane, pipeline, device, finishing, events, stopwatch, self._watch.wake
        )
        self.totals = self._flights.totals
        self._intake = Intake(
            lane,
            pipeline,
            finishing,
            finisher,
            events,
            stopwatch,
            self.totals,
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
        """Counters and versions, for whoever watches the worker."""
        return asdict(self.totals) | self._pipeline.versions()

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
            trusted = [entry for entry in leased.entries if not entry.crashes]
            for batch in self._prepare(trusted, leased.now_ms):
                if self._draining.is_set():
                    break
                self._flights.make_room()
                self._flights.launch(batch)
            for entry in leased.entries:
                if entry.crashes and not self._draining.is_set():
                    self._run_suspect(entry, leased.now_ms)
            if leased.entries:
                self._let_work_gather(leased)
            elif self._flights.full:
                self._flights.make_room(len(self._flights) - 1)
            else:
                self._wait(leased)
            self._flights.land_done()
        self._flights.make_room(0)

    def _lease(self) -> Leased:
        """Take work; the batch id changes only once the reply has arrived."""
        queues, limit = self._queues, self._settings.lease_messages
        leased = patiently(lambda: self._lane.lease(self._batch_id, limit, queues))
        self._batch_id += 1
        if self._incarnation and leased.incarnation != self._incarnation:
            _log.warning("the lease had lapsed; unfinished batches were recovered by others")
        self._incarnation = leased.incarnation
        return leased

    def _prepare(self, entries: Sequence[Entry], now_ms: int) -> list[Batch]:
        """Batches of leased messages. They count as started from here: one that kills the
        process while it is read or tokenised must not go from worker to worker for ever."""
        if not entries or not self._flights.start([entry.field for entry in entries]):
            return []
        return self._intake.batches(entries, now_ms)

    def _run_suspect(self, entry: Entry, now_ms: int) -> None:
        """A request that was with a worker when it died goes through everything with nothing
        beside it: if it is the culprit, nobody goes down with it again."""
        self._flights.make_room(0)
        for batch in self._prepare([entry], now_ms):
            self._flights.launch(batch)
            self._flights.make_room(0)

    # ---- waiting

    def _wait(self, leased: Leased) -> None:
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

    def _let_work_gather(self, leased: Leased) -> None:
        """Wait until a running batch is about to end, so that what arrives meanwhile runs
        together; not while part of the device is idle, nor with a backlog."""
        if self._flights.full and len(leased.entries) < self._settings.lease_messages:
            self._flights.wait_until_ending(LEAD_S)

    def _leave(self) -> None:
        """Give back what was leased and not run, then the lease."""
        held = patiently(self._lane.held)
        if held:
            patiently(lambda: self._lane.give_back(held))
            _log.info("gave back %s messages", len(held))
        patiently(self._lane.leave)
        self._flights.close()
        self._lane.close()
