"""What is on the device: batches are launched and landed here, and their cost is learnt.

For the lane's thread; `running` and `totals` may be read by others.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Final

from reclane.contract import Failure, RecommendRequest
from reclane_worker.answering import Answer, batch_shape
from reclane_worker.batching import CostLine
from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.device import Device, Stopwatch
from reclane_worker.ending import EXIT_LANE, end_process
from reclane_worker.finishing import Finishing
from reclane_worker.lane import Lane, patiently
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.triage import Job

FIRST_BATCH_S: Final = 60.0
PROBE: Final = RecommendRequest(query="a plain request", k=10)

Batch = list[tuple[Job, Prepared]]
"""Requests that run together."""


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


class Flights:
    """The batches in the air. `wake` is called, from any thread, when one is done."""

    def __init__(
        self,
        lane: Lane,
        pipeline: Pipeline,
        device: Device,
        finishing: Finishing,
        events: TaskEvents,
        stopwatch: Stopwatch,
        wake: Callable[[], None],
    ) -> None:
        self._lane = lane
        self._pipeline = pipeline
        self._device = device
        self._finishing = finishing
        self._events = events
        self._stopwatch = stopwatch
        self._wake = wake
        self._flights: deque[Flight] = deque()
        self.cost = CostLine()
        self.totals = Totals()

    def __len__(self) -> int:
        return len(self._flights)

    # ---- asked from other threads

    def running(self) -> dict[str, float]:
        """What is on the device: in-flight field -> when it went there, seconds since the epoch."""
        flights = [f for f in tuple(self._flights) if f.result.running() or f.result.done()]
        return {job.entry.field: flight.started for flight in flights for job in flight.jobs}

    def left_s(self) -> float:
        """Predicted seconds until everything in the air is done."""
        return max([0.0, *(f.due - time.monotonic() for f in tuple(self._flights))])

    # ---- the lane's thread

    @property
    def full(self) -> bool:
        """Whether every device thread has a batch."""
        return len(self._flights) >= self._device.threads

    def learn_cost(self) -> None:
        """Predict from this model and catalog from the first batch on."""
        with self._stopwatch.watch("a first batch", FIRST_BATCH_S):
            prepared = self._pipeline.prepare([PROBE], [0.0])
            batch = [one for one in prepared if isinstance(one, Prepared)]
            started = time.perf_counter()
            self._pipeline.run(batch)
            self.cost.learn(batch_shape(batch)["padded"], time.perf_counter() - started)

    def start(self, fields: Sequence[str]) -> bool:
        """Record what may be to blame if the process dies: these, and what is in the air."""
        flying = [job.entry.field for flight in self._flights for job in flight.jobs]
        return patiently(lambda: self._lane.start([*flying, *fields]))

    def launch(self, batch: Batch) -> None:
        """Put a batch on the device, unless the lease was lost meanwhile."""
        jobs = [job for job, _ in batch]
        prepared = [one for _, one in batch]
        if not self.start([job.entry.field for job in jobs]):
            return
        shape = batch_shape(prepared)
        predicted_s = self.cost.predict(shape["padded"])
        result = self._device.submit(lambda: self._pipeline.run(prepared), predicted_s)
        result.add_done_callback(lambda _: self._wake())
        due = time.monotonic() + predicted_s
        self._flights.append(Flight(jobs, shape, time.time(), result, due))
        self._events.started(jobs)

    def wait_until_ending(self, lead_s: float) -> None:
        """Wait until a batch is done, or should be within `lead_s` seconds."""
        due = min(flight.due for flight in self._flights)
        timeout_s = max(0.0, due - lead_s - time.monotonic())
        wait([f.result for f in self._flights], timeout_s, return_when=FIRST_COMPLETED)

    def make_room(self, flights: int | None = None) -> None:
        """Land batches, whichever is done first, until at most so many are in the air; by
        default one for each device thread."""
        most = self._device.threads if flights is None else flights
        while len(self._flights) > most:
            wait([flight.result for flight in self._flights], return_when=FIRST_COMPLETED)
            self.land_done()

    def land_done(self) -> None:
        """Make the answers of every finished batch visible."""
        for flight in [flight for flight in self._flights if flight.result.done()]:
            answers, seconds = flight.result.result()
            self._end_if_broken(answers)
            self._flights.remove(flight)
            self.cost.learn(flight.shape["padded"], seconds)
            self._finishing.commit(flight.jobs, answers, seconds)
            self._count(flight.shape, seconds)

    def close(self) -> None:
        self._device.close()

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
