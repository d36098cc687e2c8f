"""The keeper thread: renews the lease, ends a stuck process, recovers what dead workers held."""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import redis

from reclane_worker.device import Overdue, Stopwatch
from reclane_worker.ending import EXIT_LANE, EXIT_STUCK, end_process
from reclane_worker.lane import Lane, is_passing

_log = logging.getLogger(__name__)
_MAX_TICK_S: Final = 1.0
_NEWS: Final = ("late", "catalogs", "refused")  # a probe, or who publishes, hears of it at once


class Keeper(threading.Thread):
    """Runs beside the lane's loop over a connection of its own."""

    def __init__(
        self,
        lane: Lane,
        lease_ms: int,
        stopwatch: Stopwatch,
        statistics: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(name="reclane-keeper", daemon=True)
        self._lane = lane
        self._lease_s = lease_ms / 1e3
        self._stopwatch = stopwatch
        self._statistics = statistics
        self._stopping = threading.Event()
        self._connected_at: float | None = None

    def stop(self) -> None:
        self._stopping.set()
        self.join(2 * _MAX_TICK_S)
        self._lane.close()

    def run(self) -> None:
        try:
            self._keep()
        except BaseException as error:
            end_process(EXIT_LANE, f"the keeper thread died of {type(error).__name__}: {error}")

    def _keep(self) -> None:
        tick_s = min(_MAX_TICK_S, self._lease_s / 3)
        overdue = Overdue(tick_s)
        renew_at = 0.0
        told: tuple[Any, ...] = ()
        while not self._stopping.wait(tick_s):
            now = time.monotonic()
            running = self._stopwatch.running()
            stuck = overdue.check(running, now)
            if stuck:
                end_process(EXIT_STUCK, stuck)
            found = self._statistics() | {"late": overdue.late(running)}
            news = tuple(found.get(name) for name in _NEWS)
            if now >= renew_at or news != told:
                self._renew_and_recover(now, found)
                renew_at, told = now + self._lease_s / 3, news

    def _renew_and_recover(self, now: float, found: dict[str, Any]) -> None:
        """Nobody recovers within one lease of (re)connecting: after an outage every lease has
        lapsed, and the others need that long to renew theirs."""
        try:
            self._lane.renew(json.dumps(found), found["pace_per_s"])
            if self._connected_at is None:
                self._connected_at = now
            if now - self._connected_at > self._lease_s:
                for worker, returned, started in self._lane.recover():
                    _log.warning(
                        "worker %s is gone: %s messages returned, %s of them had been started",
                        worker,
                        returned,
                        started,
                    )
        except redis.RedisError as error:
            if not is_passing(error):
                raise
            self._connected_at = None
            _log.warning("lease not renewed (%s)", type(error).__name__)
