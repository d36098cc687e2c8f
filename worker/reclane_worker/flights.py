"""What is on the device: batches are launched and landed here, and their cost is learnt.

For the lane's thread; `running` and `totals` may be read by others.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Final

from reclane.contract import Failure, RecommendRequest
from reclane_worker.answering import Answer, batch_shape, padded_tokens, reranking_s
from reclane_worker.batching import CostLine, slice_tokens
from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.chunks import Chunk
from reclane_worker.deadlines import Overrun, too_late
from reclane_worker.device import Device, Stopwatch
from reclane_worker.ending import EXIT_LANE, end_process
from reclane_worker.finishing import Finishing
from reclane_worker.lane import Lane, Leased, patiently
from reclane_worker.pace import Pace
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared
from reclane_worker.ready import Batch
from reclane_worker.slices import Slices
from reclane_worker.triage import Held, Job, expired, wanted_until

FIRST_BATCH_S: Final = 60.0
TYPICAL_TOKENS: Final = 16.0  # of a request, until some were seen
_NEWS: Final = 0.1  # what the newest batch counts in what reranking usually takes
PROBE: Final = RecommendRequest(query="a plain request", k=10)
# Two points make a line. All differ: equal requests run as one, and answers may be kept.
_FIRST: Final = [RecommendRequest(query=f"a plain request {n}", k=10) for n in range(9)]
FIRST_BATCHES: Final = (_FIRST[:1], _FIRST[1:])


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on its way through the device."""

    jobs: list[Job]
    shape: dict[str, int]
    started: float  # seconds since the epoch
    result: "Future[tuple[list[Answer | Failure], float]]"
    begin: float  # monotonic, when a thread should be free for it
    due: float  # and when it should be done
    bulk: bool
    express: bool


@dataclass(slots=True)
class Totals:
    """Counters since the process started, published with each renewal."""

    accepted: int = 0  # messages, as Celery counts: begun, whether they are answered or fail
    chunks: int = 0  # of these, many requests in one
    batches: int = 0
    requests: int = 0
    tokens: int = 0
    padded: int = 0
    device_s: float = 0.0
    too_late: int = 0  # dropped before their batch: they could not have been answered in time


class Flights:
    """The batches in the air. `wake` is called, from any thread, when one is done; the whole
    device runs a bulk batch in about `slice_s` seconds while interactive requests come."""

    def __init__(
        self,
        lane: Lane,
        pipeline: Pipeline,
        device: Device,
        finishing: Finishing,
        events: TaskEvents,
        stopwatch: Stopwatch,
        wake: Callable[[], None],
        slice_s: float,
    ) -> None:
        self._lane = lane
        self._pipeline = pipeline
        self._device = device
        self._finishing = finishing
        self._events = events
        self._stopwatch = stopwatch
        self._wake = wake
        beside = pipeline.encoder.device.type == "cpu"
        self._slices = Slices(slice_s * device.threads, beside)  # they run it side by side
        self._flights: deque[Flight] = deque()
        self._pace = Pace()
        self._overrun = Overrun()
        self._learnt = False
        self.backlog = False  # whether more waits than the device can take at once
        self.cost = CostLine()  # without reranking, whose time depends on what is left for it
        self._reranking_s = 0.0  # what it lately took of a batch
        self.totals = Totals()

    # ---- asked from other threads

    def running(self) -> dict[str, float]:
        """What is on the device: in-flight field -> when it went there, seconds since the epoch."""
        flights = [f for f in tuple(self._flights) if f.result.running() or f.result.done()]
        return {job.entry.field: flight.started for flight in flights for job in flight.jobs}

    def left_s(self) -> float:
        """Predicted seconds until everything in the air is done."""
        return max([0.0, *(f.due - time.monotonic() for f in tuple(self._flights))])

    def pace_per_s(self) -> float | None:
        """Requests per second when busy: as measured, else what full batches should bring."""
        measured = self._pace.per_second()
        if measured is not None or not self._learnt:
            return measured
        limits = self._pipeline.limits
        requests = min(limits.max_requests, max(1.0, limits.max_tokens / self.mean_tokens))
        seconds = self.expect_s(int(requests * self.mean_tokens))
        return self._device.threads * requests / max(seconds, 1e-6)

    # ---- the lane's thread

    @property
    def mean_tokens(self) -> float:
        """Of a request."""
        totals = self.totals
        return max(1.0, totals.tokens / totals.requests) if totals.requests else TYPICAL_TOKENS

    @property
    def full(self) -> bool:
        """Whether every device thread has a batch."""
        return self._queued() >= self._device.threads

    @property
    def room(self) -> bool:
        """Whether one more batch may go on the device: at most one waits for a thread."""
        return self._queued() <= self._device.threads

    @property
    def bulk(self) -> bool:
        """Whether any of the batches is bulk."""
        return any(flight.bulk for flight in self._flights)

    def _queued(self) -> int:
        return sum(1 for flight in self._flights if not flight.express)

    def _wait_for_way(self, batch: Batch) -> bool:
        """Land batches until this one may go on the device; whether it then passes bulk: beside it
        instead of after it, on a thread of its own, one such batch at a time."""
        while True:
            passing = not batch.bulk and self.bulk and self.full
            if passing and not any(flight.express for flight in self._flights):
                return True
            if not passing and self.room:
                return False
            self.wait_for_one()
            self.land_done()

    def expect_s(self, padded: int) -> float:
        """Seconds that a batch of so many padded tokens usually takes, reranking included."""
        return self.cost.expect(padded) + self._reranking_s

    def rerank_within_s(self, bulk: bool, left_s: float) -> float:
        """What reranking may add to a batch: of bulk no more than a slice, as others wait; and
        only what is left of `left_s`, until the first of its requests is wanted no more."""
        most_s = min(self._pipeline.rerank_s, self._slices.slice_s if bulk else math.inf)
        return max(0.0, min(most_s, left_s / self._overrun.factor()))

    @property
    def slice_tokens(self) -> int:
        """Padded tokens of one bulk batch."""
        seconds = self._slices.seconds(time.monotonic())
        return slice_tokens(self.cost, seconds, self._pipeline.limits)

    def learn_cost(self) -> None:
        """Predict from this model and catalog from the first batch on."""
        with self._stopwatch.watch("a first batch", FIRST_BATCH_S + self._pipeline.rerank_s):
            for requests in FIRST_BATCHES:
                prepared = self._pipeline.prepare(requests, [0.0] * len(requests))
                batch = [one for one in prepared if isinstance(one, Prepared)]
                started = time.perf_counter()
                answers = self._pipeline.run(batch)
                self._learn(batch_shape(batch)["padded"], time.perf_counter() - started, answers)
        self._learnt = True

    def _learn(self, padded: int, seconds: float, answers: Sequence[Answer | Failure]) -> None:
        """What a batch took beside reranking, and what reranking took of it."""
        reranked_s = min(seconds, reranking_s(answers))
        self.cost.learn(padded, seconds - reranked_s)
        news = _NEWS if self._learnt else 1.0
        self._reranking_s += news * (reranked_s - self._reranking_s)

    def start(self, started: Sequence[str]) -> bool:
        """Record what may be to blame if the process dies: these fields or parts, and what is in
        the air. False when the lease was lost."""
        flying = [job.started for flight in self._flights for job in flight.jobs]
        return patiently(lambda: self._lane.start([*flying, *started]))

    def begin(self, held: Iterable[Held]) -> None:
        """Count messages whose work begins now, and tell whoever watches; a chunk's begins once."""
        begun = [one for one in held if _begins(one)]
        self.totals.accepted += len(begun)
        self.totals.chunks += sum(1 for one in begun if _chunk(one))
        self._events.started(one.message for one in begun)

    def launch(self, batch: Batch, leased: Leased) -> None:
        """Put a batch on the device once there is room, without what would be answered too late,
        and unless the lease was lost meanwhile. `leased` knows Redis's clock."""
        if not batch.bulk:
            self._slices.came(time.monotonic())
        express = self._wait_for_way(batch)
        waits_s = 0.0 if express else self._until_free_s()
        now = leased.now_s()
        jobs, prepared = self._drop_late(batch, now, waits_s)
        if not jobs or not self.start([job.started for job in jobs]):
            return
        shape = batch_shape(prepared)
        predicted_s = self.cost.predict(shape["padded"])
        wanted = min((job.expires for job in jobs if job.expires is not None), default=math.inf)
        spent_s = waits_s + self._overrun.factor() * self.cost.expect(shape["padded"])
        within_s = self.rerank_within_s(batch.bulk, wanted - now - spent_s)
        result = self._device.submit(
            lambda: self._pipeline.run(prepared, within_s), predicted_s + within_s, express
        )
        result.add_done_callback(lambda _: self._wake())
        begin = time.monotonic() + waits_s
        due = begin + predicted_s + min(within_s, self._reranking_s)
        flight = Flight(jobs, shape, time.time(), result, begin, due, batch.bulk, express)
        self._flights.append(flight)
        self.begin(jobs)

    def _until_free_s(self) -> float:
        """Seconds until a thread of the device should be free."""
        return max(0.0, self._next_due - time.monotonic()) if self.full else 0.0

    def _drop_late(
        self, batch: Batch, now: float, waits_s: float
    ) -> tuple[list[Job], list[Prepared]]:
        """The jobs of a batch that can be done in time; the others end as expired."""
        expires = [job.expires for job in batch.jobs]
        if not any(expires):
            return batch.jobs, batch.prepared
        begin = now + waits_s
        overrun = self._overrun.factor()

        def cost(left: Collection[int]) -> float:
            padded = padded_tokens([batch.prepared[index] for index in left])
            return overrun * self.cost.expect(padded)

        late = set(too_late(expires, begin, cost))
        if self._wanted_longer(batch.jobs, late, expires):
            late = set(too_late(expires, begin, cost))
        self.totals.too_late += len(late)
        self._finishing.end([expired(batch.jobs[index], now) for index in sorted(late)])
        kept = [index for index in range(len(batch)) if index not in late]
        return [batch.jobs[i] for i in kept], [batch.prepared[i] for i in kept]

    def _wanted_longer(
        self, jobs: Sequence[Job], late: set[int], expires: list[float | None]
    ) -> bool:
        """Look again until when requests with a key are wanted, before they are given up: others
        may have joined since. Corrects `expires`; whether there was anything to look at."""
        keyed = [index for index in late if jobs[index].message.digest]
        stored = patiently(lambda: self._lane.stored([jobs[i].message.id for i in keyed]))
        for index in keyed:
            message = jobs[index].message
            expires[index] = wanted_until(message, stored.get(message.id))
        return bool(keyed)

    @property
    def _next_due(self) -> float:
        return min(flight.due for flight in self._flights)

    def wait_until_ending(self, lead_s: float) -> None:
        """Wait until a batch is done, or should be within `lead_s` seconds."""
        self.wait_for_one(max(0.0, self._next_due - lead_s - time.monotonic()))

    def wait_for_one(self, timeout_s: float | None = None) -> None:
        """Wait until a batch is done."""
        wait([f.result for f in self._flights], timeout_s, return_when=FIRST_COMPLETED)

    def land_all(self) -> None:
        while self._flights:
            self.wait_for_one()
            self.land_done()

    def land_done(self) -> None:
        """Make the answers of every finished batch visible."""
        for flight in [flight for flight in self._flights if flight.result.done()]:
            answers, seconds = flight.result.result()
            self._end_if_broken(answers)
            self._flights.remove(flight)
            padded = flight.shape["padded"]
            expected_s = self.cost.expect(padded)
            self._learn(padded, seconds, answers)
            self._finishing.commit(flight.jobs, answers, seconds)
            took_s = time.monotonic() - flight.begin - reranking_s(answers)
            self._overrun.learn(expected_s, took_s)
            self._count(flight, seconds)
            self._pace.landed(len(flight.jobs), time.monotonic(), self.backlog)

    def close(self) -> None:
        self._device.close()

    def _end_if_broken(self, answers: Sequence[Answer | Failure]) -> None:
        """A model that can answer nothing any more (a CUDA error that stays, say) would fail the
        whole queue, and faster than healthy workers answer it: leave the batch to them."""
        if not all(isinstance(a, Failure) and a.code == "pipeline_error" for a in answers):
            return
        with self._stopwatch.watch("a probe of the model", FIRST_BATCH_S + self._pipeline.rerank_s):
            probe = self._pipeline.compute(PROBE)
        if isinstance(probe, Failure):
            end_process(EXIT_LANE, "the model fails on every request, also on a plain one")

    def _count(self, flight: Flight, seconds: float) -> None:
        totals, shape = self.totals, flight.shape
        totals.batches += 1
        totals.requests += len(flight.jobs)
        totals.tokens += shape["tokens"]
        totals.padded += shape["padded"]
        totals.device_s += seconds


def _begins(held: Held) -> bool:
    chunk = _chunk(held)
    return chunk is None or chunk.begin()


def _chunk(held: Held) -> Chunk | None:
    if isinstance(held, Chunk):
        return held
    return held.part.chunk if held.part else None
