"""The lane's loop: lease, check, prepare, run, commit, with the device always one batch ahead.

While the device runs batches, this thread commits finished ones and prepares the next. It
never waits for a fuller batch while the device is idle, and leases the next work only when the
running batch is about to end, so that what arrives meanwhile runs together.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from traceback import format_tb
from typing import Any, Final

import redis

from reclane import names
from reclane._refusal import refusal
from reclane.contract import Failure, RecommendRequest
from reclane_worker.answering import Answer, batch_shape
from reclane_worker.batching import CostLine
from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.celery_side.finisher import CeleryFinisher
from reclane_worker.device import Device, Stopwatch, bound_s, device_threads
from reclane_worker.ending import EXIT_LANE, end_process
from reclane_worker.finishing import CELERY_S, Finishing
from reclane_worker.lane import Entry, Lane, Leased, is_passing, patiently
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.settings import WorkerSettings
from reclane_worker.triage import Job, Triage, decode, triage
from reclane_worker.wait import QueueWatch

_log = logging.getLogger(__name__)

LEAD_S: Final = 0.010  # prepare the next batch this long before the running one should end
PREPARE_S: Final = 1.0  # predicted time to tokenise one lease
FIRST_BATCH_S: Final = 60.0
PROBE: Final = RecommendRequest(query="a plain request", k=10)


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on its way through the device."""

    jobs: list[Job]
    shape: dict[str, int]
    started: float  # seconds since the epoch
    result: "Future[tuple[list[Answer | Failure], float]]"
    due: float  # monotonic, when it should be done


@dataclass(slots=True)
class Totals:
    """Counters since the process started, published with each renewal."""

    accepted: int = 0  # as Celery counts: begun, whether they are answered or fail
    batches: int = 0
    requests: int = 0
    tokens: int = 0
    padded: int = 0
    device_s: float = 0.0


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
        self._finisher = finisher
        self._events = events
        self._finishing = Finishing(lane, finisher, events, stopwatch)
        self._stopwatch = stopwatch
        self._revoked = revoked
        self._device = Device(stopwatch, device_threads(settings, pipeline.encoder.device.type))
        self._flights: deque[Flight] = deque()
        self._watch = QueueWatch(settings)
        self._draining = threading.Event()
        self._batch_id = 0
        self._incarnation = 0
        self._queues: tuple[str, ...] = names.LANE_QUEUES
        self.cost = CostLine()
        self.totals = Totals()

    # ---- lifecycle

    @property
    def device_threads(self) -> int:
        return self._device.threads

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
        flying = list(self._flights)
        predicted_s = max([0.0, *(f.due - time.monotonic() for f in flying)])
        self.join(self._settings.drain_s or bound_s(predicted_s))
        return not self.is_alive()

    def statistics(self) -> dict[str, Any]:
        """Counters and versions, for whoever watches the worker."""
        return asdict(self.totals) | self._pipeline.versions()

    # ---- asked from other threads

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
        flights = [f for f in tuple(self._flights) if f.result.running() or f.result.done()]
        return {job.entry.field: flight.started for flight in flights for job in flight.jobs}

    # ---- the loop

    def _work(self) -> None:
        self._learn_cost()
        while not self._draining.is_set():
            leased = self._lease()
            trusted = [entry for entry in leased.entries if not entry.crashes]
            for batch in self._prepare(trusted, leased.now_ms):
                if self._draining.is_set():
                    break
                self._make_room(self._device.threads)
                self._launch(batch)
            for entry in leased.entries:
                if entry.crashes and not self._draining.is_set():
                    self._run_suspect(entry, leased.now_ms)
            if leased.entries:
                self._let_work_gather(leased)
            elif len(self._flights) >= self._device.threads:
                self._make_room(len(self._flights) - 1)
            else:
                self._wait(leased)
            self._land_done()
        self._make_room(0)

    def _learn_cost(self) -> None:
        """Predict from this model and catalog from the first batch on."""
        with self._stopwatch.watch("a first batch", FIRST_BATCH_S):
            prepared = self._pipeline.prepare([PROBE], [0.0])
            batch = [one for one in prepared if isinstance(one, Prepared)]
            started = time.perf_counter()
            self._pipeline.run(batch)
            self.cost.learn(batch_shape(batch)["padded"], time.perf_counter() - started)

    def _run_suspect(self, entry: Entry, now_ms: int) -> None:
        """A request that was with a worker when it died goes through everything with nothing
        beside it: if it is the culprit, nobody goes down with it again."""
        self._make_room(0)
        for batch in self._prepare([entry], now_ms):
            self._launch(batch)
            self._make_room(0)

    def _lease(self) -> Leased:
        """Take work; the batch id changes only once the reply has arrived."""
        queues, limit = self._queues, self._settings.lease_messages
        leased = patiently(lambda: self._lane.lease(self._batch_id, limit, queues))
        self._batch_id += 1
        if self._incarnation and leased.incarnation != self._incarnation:
            _log.warning("the lease had lapsed; unfinished batches were recovered by others")
        self._incarnation = leased.incarnation
        return leased

    def _prepare(self, entries: Sequence[Entry], now_ms: int) -> list[list[tuple[Job, Prepared]]]:
        """Check messages, end those that need no run, and group the rest into batches.

        They count as started from here: one that kills the process while it is read or
        tokenised must not go from worker to worker for ever.
        """
        if not entries or not self._start([entry.field for entry in entries]):
            return []
        with self._stopwatch.watch("reading messages", PREPARE_S):
            read, ended = decode(entries, now_ms, self._settings.max_attempts)
        ids = [message.id for _, message in read]
        stored = patiently(lambda: self._lane.stored(ids))
        with self._stopwatch.watch("checking messages", PREPARE_S):
            checked = triage(
                read,
                now_ms=now_ms,
                stored=stored,
                revoked=self._revoked,
                max_attempts=self._settings.max_attempts,
            )
        self._announce(checked)
        self._finishing.end(ended + checked.ended)
        for one in checked.parked:
            self._finishing.park(one.entry, one.due_ms)
        return self._group(checked.jobs)

    def _announce(self, checked: Triage) -> None:
        """As Celery does when a message has arrived: count it, tell whoever listens."""
        self.totals.accepted += len(checked.jobs) + sum(1 for one in checked.ended if one.failure)
        with self._stopwatch.watch("receivers of task_received", CELERY_S):
            self._finisher.received(checked.arrived())
        self._events.received(checked)

    def _start(self, fields: Sequence[str]) -> bool:
        """Record what may be to blame if the process dies: these, and what is in the air."""
        flying = [job.entry.field for flight in self._flights for job in flight.jobs]
        return patiently(lambda: self._lane.start([*flying, *fields]))

    def _group(self, jobs: Sequence[Job]) -> list[list[tuple[Job, Prepared]]]:
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

    def _launch(self, batch: Sequence[tuple[Job, Prepared]]) -> None:
        """Put a batch on the device, unless the lease was lost meanwhile."""
        jobs = [job for job, _ in batch]
        prepared = [one for _, one in batch]
        if not self._start([job.entry.field for job in jobs]):
            return
        shape = batch_shape(prepared)
        predicted_s = self.cost.predict(shape["padded"])
        result = self._device.submit(lambda: self._pipeline.run(prepared), predicted_s)
        result.add_done_callback(lambda _: self._watch.wake())
        due = time.monotonic() + predicted_s
        self._flights.append(Flight(jobs, shape, time.time(), result, due))
        self._events.started(jobs)

    def _make_room(self, flights: int) -> None:
        """Land batches, whichever is done first, until at most so many are in the air."""
        while len(self._flights) > flights:
            wait([flight.result for flight in self._flights], return_when=FIRST_COMPLETED)
            self._land_done()

    def _land_done(self) -> None:
        """Make the answers of every finished batch visible."""
        for flight in [flight for flight in self._flights if flight.result.done()]:
            answers, seconds = flight.result.result()
            self._end_if_broken(answers)
            self._flights.remove(flight)
            self.cost.learn(flight.shape["padded"], seconds)
            self._finishing.commit(flight.jobs, answers, seconds)
            self._count(flight.shape, seconds)

    def _end_if_broken(self, answers: Sequence[Answer | Failure]) -> None:
        """A model that can answer nothing any more (a CUDA error that stays, say) would fail the
        whole queue, and faster than healthy workers answer it: leave the batch to them."""
        if not all(isinstance(a, Failure) and a.code == "pipeline_error" for a in answers):
            return
        with self._stopwatch.watch("a probe of the model", FIRST_BATCH_S):
            probe = self._pipeline.recommend([PROBE])[0]
        if isinstance(probe, Failure):
            end_process(EXIT_LANE, "the model fails on every request, also on a plain one")

    def _count(self, shape: dict[str, int], seconds: float) -> None:
        totals = self.totals
        totals.batches += 1
        totals.requests += shape["size"]
        totals.tokens += shape["tokens"]
        totals.padded += shape["padded"]
        totals.device_s += seconds

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
        busy = len(self._flights) >= self._device.threads
        if not busy or len(leased.entries) >= self._settings.lease_messages:
            return
        due = min(flight.due for flight in self._flights)
        timeout_s = max(0.0, due - LEAD_S - time.monotonic())
        wait([f.result for f in self._flights], timeout_s, return_when=FIRST_COMPLETED)

    def _leave(self) -> None:
        """Give back what was leased and not run, then the lease."""
        held = patiently(self._lane.held)
        if held:
            patiently(lambda: self._lane.give_back(held))
            _log.info("gave back %s messages", len(held))
        patiently(self._lane.leave)
        self._device.close()
        self._lane.close()
