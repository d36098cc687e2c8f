"""The lane's loop: lease, check, prepare, run, commit, with the device always one batch ahead.

While the device runs batches, this thread commits finished ones and prepares the next. It
never waits for a fuller batch while the device is idle, and leases the next work only when the
running batch is about to end, so that what arrives meanwhile runs together.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass, replace
from itertools import count
from traceback import format_tb
from typing import Final, TypeVar

from reclane import wire
from reclane.contract import Failure
from reclane_worker.answering import Answer, batch_shape
from reclane_worker.batching import CostLine
from reclane_worker.celery_side import CeleryFinisher
from reclane_worker.device import Device, Stopwatch, bound_s, device_threads
from reclane_worker.ending import EXIT_LANE, end_process
from reclane_worker.lane import PASSING_ERRORS, Ending, Entry, Lane, Leased
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.settings import WorkerSettings
from reclane_worker.triage import Ended, Job, decode, end_with, triage
from reclane_worker.wait import QueueWatch

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

LEAD_S: Final = 0.010  # prepare the next batch this long before the running one should end
PREPARE_S: Final = 1.0  # predicted time to tokenise one lease
CELERY_RETRY_S: Final = 2.0  # pause before a message whose callbacks could not be sent runs again
LOG_EVERY: Final = 10


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on its way through the device."""

    jobs: list[Job]
    shape: dict[str, int]
    result: "Future[tuple[list[Answer | Failure], float]]"
    due: float  # monotonic, when it should be done


@dataclass(slots=True)
class Totals:
    """Counters since the process started, published with each renewal."""

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
        stopwatch: Stopwatch,
        revoked: Collection[str],
    ) -> None:
        super().__init__(name="reclane-lane", daemon=True)
        self._settings = settings
        self._lane = lane
        self._pipeline = pipeline
        self._finisher = finisher
        self._stopwatch = stopwatch
        self._revoked = revoked
        self._device = Device(stopwatch, device_threads(settings, pipeline.encoder.device.type))
        self._flights: deque[Flight] = deque()
        self._watch = QueueWatch(settings)
        self._draining = threading.Event()
        self._batch_id = 0
        self._incarnation = 0
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
            end_process(EXIT_LANE, f"the lane thread died of {type(error).__name__}")

    def begin_drain(self) -> None:
        """Take no more work; returns at once."""
        self._draining.set()
        self._watch.wake()

    def drain(self) -> bool:
        """Finish what is on the device, give the rest back, leave; False past the bound."""
        self.begin_drain()
        flying = list(self._flights)
        predicted_s = max((f.due - time.monotonic() for f in flying), default=0.0)
        self.join(self._settings.drain_s or bound_s(predicted_s))
        return not self.is_alive()

    def statistics(self) -> str:
        """Counters as JSON, for whoever watches the worker."""
        return json.dumps(asdict(self.totals))

    # ---- the loop

    def _work(self) -> None:
        while not self._draining.is_set():
            leased = self._lease()
            for batch in self._prepare(leased):
                if self._draining.is_set():
                    break
                suspect = any(job.entry.crashes for job, _ in batch)
                self._make_room(0 if suspect else self._device.threads)
                self._launch(batch)
                if suspect:
                    self._make_room(0)
            if leased.entries:
                self._let_work_gather(leased)
            elif self._flights:
                self._land()
            else:
                self._wait(leased)
        self._make_room(0)

    def _lease(self) -> Leased:
        """Take work; the batch id changes only once the reply has arrived."""
        leased = self._patiently(
            lambda: self._lane.lease(self._batch_id, self._settings.lease_messages)
        )
        self._batch_id += 1
        if self._incarnation and leased.incarnation != self._incarnation:
            _log.warning("the lease had lapsed; unfinished batches were recovered by others")
        self._incarnation = leased.incarnation
        return leased

    def _prepare(self, leased: Leased) -> list[list[tuple[Job, Prepared]]]:
        """Check every message, end those that need no run, and group the rest into batches."""
        if not leased.entries:
            return []
        read, ended = decode(leased.entries, leased.now_ms)
        ids = [message.id for _, message in read]
        checked = triage(
            read,
            now_ms=leased.now_ms,
            answered=self._patiently(lambda: self._lane.terminal(ids)),
            revoked=self._revoked,
            max_attempts=self._settings.max_attempts,
        )
        self._end(ended + checked.ended)
        for entry, due_ms in checked.parked:
            self._park(entry, due_ms)
        return self._group(checked.jobs)

    def _park(self, entry: Entry, due_ms: int) -> None:
        self._patiently(lambda: self._lane.give_back([entry.field], due_ms))

    def _group(self, jobs: Sequence[Job]) -> list[list[tuple[Job, Prepared]]]:
        """Batches in the order to run. A request that was on the device when a process died
        runs with nothing beside it: if it is the culprit, nobody goes down with it again."""
        with self._stopwatch.watch("preparing requests", PREPARE_S):
            prepared = self._pipeline.prepare(
                [job.request for job in jobs], [job.queued_ms for job in jobs]
            )
        failed = [(j, p) for j, p in zip(jobs, prepared, strict=True) if isinstance(p, Failure)]
        if failed:
            self._commit([job for job, _ in failed], [failure for _, failure in failed])
        ready = [(j, p) for j, p in zip(jobs, prepared, strict=True) if isinstance(p, Prepared)]
        suspects = [[pair] for pair in ready if pair[0].entry.crashes]
        trusted = [pair for pair in ready if not pair[0].entry.crashes]
        groups = self._pipeline.batches([one for _, one in trusted])
        return [[trusted[i] for i in group] for group in groups] + suspects

    def _launch(self, batch: Sequence[tuple[Job, Prepared]]) -> None:
        """Put a batch on the device, unless the lease was lost meanwhile."""
        jobs = [job for job, _ in batch]
        prepared = [one for _, one in batch]
        flying = [job for flight in self._flights for job in flight.jobs]
        fields = [job.entry.field for job in flying + jobs]
        if not self._patiently(lambda: self._lane.start(fields)):
            return
        shape = batch_shape(prepared)
        predicted_s = self.cost.predict(shape["padded"])
        result = self._device.submit(lambda: self._pipeline.run(prepared), predicted_s)
        self._flights.append(Flight(jobs, shape, result, time.monotonic() + predicted_s))

    def _make_room(self, flights: int) -> None:
        """Land the oldest batches until at most so many are in the air."""
        while len(self._flights) > flights:
            self._land()

    def _land(self) -> None:
        """Wait for the oldest batch and make its answers visible."""
        flight = self._flights[0]
        answers, seconds = flight.result.result()
        self._flights.popleft()
        self.cost.learn(flight.shape["padded"], seconds)
        self._commit(flight.jobs, answers)
        totals = self.totals
        totals.batches += 1
        totals.requests += flight.shape["size"]
        totals.tokens += flight.shape["tokens"]
        totals.padded += flight.shape["padded"]
        totals.device_s += seconds

    # ---- ending messages

    def _commit(self, jobs: Sequence[Job], answers: Sequence[Answer | Failure]) -> None:
        now = time.time()
        endings = []
        for job, answer in zip(jobs, answers, strict=True):
            if self._finisher.wants(job.message):
                if self._through_celery(job.entry, job.message, answer):
                    endings.append(end_with(job, b""))
            elif isinstance(answer, Failure):
                meta = wire.encode_failure(job.message.id, answer, now)
                endings.append(end_with(job, meta))
            else:
                endings.append(end_with(job, wire.encode_success(job.message.id, answer, now)))
        lost = self._store(endings)
        if lost:
            _log.warning("%s answers came too late: others had taken the requests over", len(lost))
            raws = [job.entry.raw for job in jobs if job.entry.field in lost]
            self._patiently(lambda: self._lane.absolve(raws))

    def _end(self, ended: Sequence[Ended]) -> None:
        endings = []
        for one in ended:
            ending = one.ending
            message = one.message
            if message and ending.meta and self._finisher.wants(message):
                if not self._through_celery(one.entry, message, one.failure or one.reason):
                    continue
                ending = replace(ending, meta=b"")
            endings.append(ending)
            _log.info("request %s ended without a run: %s", ending.task_id or "-", one.reason)
        self._store(endings)

    def _through_celery(
        self, entry: Entry, message: wire.Message, outcome: Answer | Failure | str
    ) -> bool:
        """Let Celery store and send what follows; False when the entry is not to be ended now.

        Checked to be ours just before: this path has no conditional commit in one script.
        """
        if not self._patiently(lambda: self._lane.owns(entry.field)):
            return False
        try:
            self._finisher.finish(message, outcome)
        except Exception as error:
            _log.error("request %s: Celery's side failed with %s", message.id, type(error).__name__)
            self._park(entry, int((time.time() + CELERY_RETRY_S) * 1e3))
            return False
        return True

    def _store(self, endings: Sequence[Ending]) -> set[str]:
        return self._patiently(lambda: self._lane.commit(endings)) if endings else set()

    # ---- waiting

    def _wait(self, leased: Leased) -> None:
        """Sleep until a queue changes or a scheduled message is due."""
        timeout_s = self._settings.lease_ms / 3e3
        if leased.next_due_ms is not None:
            timeout_s = min(timeout_s, max(0.0, (leased.next_due_ms - leased.now_ms) / 1e3))
        try:
            self._watch.wait(timeout_s)
        except PASSING_ERRORS:
            if not self._draining.is_set():
                _log.warning("waiting for work was interrupted; reconnecting")
                self._draining.wait(0.1)

    def _let_work_gather(self, leased: Leased) -> None:
        """Wait until a running batch is about to end, so that what arrives meanwhile runs
        together; not while part of the device is idle, nor with a backlog."""
        busy = len(self._flights) >= self._device.threads
        if not busy or len(leased.entries) >= self._settings.lease_messages:
            return
        flight = self._flights[0]
        try:
            flight.result.result(max(0.0, flight.due - LEAD_S - time.monotonic()))
        except FutureTimeout:
            return

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Repeat an idempotent call until Redis answers; a drain has its own bound."""
        pause_s = 0.05
        for attempt in count():
            try:
                return call()
            except PASSING_ERRORS as error:
                if attempt % LOG_EVERY == 0:
                    _log.warning("Redis is away (%s); trying again", type(error).__name__)
                time.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)
        raise AssertionError("count() does not end")

    def _leave(self) -> None:
        """Give back what was leased and not run, then the lease."""
        held = self._patiently(self._lane.held)
        if held:
            self._patiently(lambda: self._lane.give_back(held))
            _log.info("gave back %s messages", len(held))
        self._patiently(self._lane.leave)
        self._device.close()
        self._lane.close()
