"""How long the messages of a dead worker wait until others take them over."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import redis

from chaos.crew import Crew, patiently
from reclane._connection import connect
from reclane.settings import Settings

TICK_S: Final = 0.05


class Survivor(Protocol):
    """A worker as seen here: since when it works undisturbed, by `Clock`; None: it does not."""

    @property
    def steady_since(self) -> float | None: ...


class Clock:
    """Seconds that this machine had for us.

    A tick counts for at most twice its nominal length: where the harness itself did not get to
    run, neither did a worker.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._ticked = time.monotonic()

    def tick(self) -> None:
        ticked = time.monotonic()
        self.now += min(ticked - self._ticked, 2 * TICK_S)
        self._ticked = ticked


@dataclass(slots=True)
class Loss:
    """A worker that died: how many messages it held, and how long they waited."""

    worker_id: str
    at: float
    held: int | None = None
    waited_s: float = 0.0
    over: bool = False


class Recovery:
    """Follows each loss until nothing of that worker is left.

    Counted is the longest time that a steady survivor looked on: a worker that is up, not frozen,
    not cut off, with Redis there. Without any, as when all died, the count starts with the next.
    """

    def __init__(self, settings: Settings, crew: Crew) -> None:
        self._keys = settings.keys
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._crew = crew
        self.clock = Clock()
        self.losses: list[Loss] = []

    def lost(self, worker_id: str) -> None:
        """This worker holds its messages no longer, from now on."""
        if worker_id:
            self.losses.append(Loss(worker_id, self.clock.now))

    def follow(self, survivors: Sequence[Survivor]) -> None:
        while not self._crew.stopping.wait(TICK_S):
            self.clock.tick()
            try:
                self._look([loss for loss in self.losses if not loss.over], survivors)
            except (redis.ConnectionError, redis.TimeoutError):
                continue  # away: nobody is steady now

    def open(self) -> int:
        return sum(not loss.over for loss in self.losses)

    def _look(self, losses: Iterable[Loss], survivors: Sequence[Survivor]) -> None:
        for loss in losses:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.hlen(self._keys.inflight(loss.worker_id))
                pipe.zscore(self._keys.leases, loss.worker_id)
                held, lease = pipe.execute()
            if loss.held is None:
                loss.held = held
            loss.over = held == 0 and lease is None
            since = [s.steady_since for s in survivors]
            steady = [moment for moment in since if moment is not None]
            if steady and not loss.over:
                looked_on_s = self.clock.now - max(loss.at, min(steady))
                loss.waited_s = max(loss.waited_s, looked_on_s)


def lane_id(settings: Settings, pid: int) -> str:
    """The lane's id of a worker process that holds a lease, or ''."""
    with connect(settings) as client:
        held: Any = patiently(lambda: client.zrange(settings.keys.leases, 0, -1))
    return next((one.decode() for one in held if f":{pid}:".encode() in one), "")
