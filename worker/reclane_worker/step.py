"""The bootsteps that add the lane, and taking bulk runs on, to a Celery worker."""

import logging
import os
import socket
import sys
import time
from typing import Any, Final
from uuid import uuid4

import redis
from celery import bootsteps, signals
from celery.exceptions import ImproperlyConfigured
from celery.worker import state

from reclane import names
from reclane.cli import exits
from reclane.errors import ReclaneError
from reclane.probe import STARTING, announce, withdraw
from reclane_worker.celery_side.same_redis import differing
from reclane_worker.ending import EXIT_STUCK, end_process
from reclane_worker.lane import Lane, is_passing
from reclane_worker.rights import refused
from reclane_worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

ROOM_S: Final = 0.5  # how often to look whether a full Redis has room again
_SWITCH_INTERVAL_S: Final = 0.0005  # a wake-up beside a busy thread: 0.7 ms instead of 5.2 ms
_POOLS: Final = ("celery.concurrency.thread", "celery.concurrency.solo")


class LaneStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Runs the lane beside Celery's own consumer, from after the pool until before it."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return WorkerSettings.from_environment().lane

    def create(self, worker: Any) -> None:
        settings = WorkerSettings.from_environment()
        refuse_unsafe(worker, settings)
        reason = refused(settings)
        if reason:
            raise ImproperlyConfigured(reason)
        self._announce(STARTING)  # before the model loads: not the id of who was here before

    def start(self, worker: Any) -> None:
        """Load the model, then start taking work; Celery's consumer starts after that."""
        from reclane_worker.app import local_pipeline
        from reclane_worker.celery_side.events import TaskEvents
        from reclane_worker.celery_side.finisher import CeleryFinisher
        from reclane_worker.celery_side.holdings import Holdings
        from reclane_worker.celery_side.remote import Remote
        from reclane_worker.device import Stopwatch
        from reclane_worker.following import Following
        from reclane_worker.keeper import Keeper
        from reclane_worker.loading import share_cores, uncollected
        from reclane_worker.loop import LaneLoop

        settings = WorkerSettings.from_environment()
        try:
            with uncollected():
                pipeline = local_pipeline()
        except ReclaneError as error:  # says what to do; a traceback would hide it
            _log.critical("the worker cannot start: %s", error)
            raise SystemExit(exits.of(error)) from None
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        stopwatch = Stopwatch()
        self.events = TaskEvents(worker)
        self.loop = LaneLoop(
            settings,
            Lane(settings, worker_id),
            pipeline,
            CeleryFinisher(worker),
            self.events,
            stopwatch,
            state.revoked,
        )
        share_cores(self.loop.device_threads)
        self.following = Following(settings, pipeline)
        self.keeper = Keeper(
            Lane(settings, worker_id),
            settings.lease_ms,
            stopwatch,
            lambda: self.loop.statistics() | self.following.told(),
        )
        holdings = Holdings(settings, worker_id, worker.hostname, self.loop.running)
        self.remote = Remote(self.loop, self.following, holdings, self.events)
        self.remote.install()
        # Celery stops its own consumer first, which takes seconds: take no more work meanwhile.
        signals.worker_shutting_down.connect(self._shutting_down)
        self._announce(worker_id)
        self.events.start()
        self.loop.start()
        self.keeper.start()
        self.following.start()
        _log.info("lane %s takes %s", worker_id, ", ".join(names.LANE_QUEUES))
        self._wait_for_room(worker, Lane(settings, worker_id))

    def _wait_for_room(self, worker: Any, lane: Lane) -> None:
        """Hold Celery's own consumer back while Redis is away or full: it writes before it takes
        work, and would end the worker, whose lane is what drains Redis."""
        told = ""
        while why := _why_wait(lane):
            if why != told:
                _log.warning("%s; Celery's own consumer starts later", why)
            told = why
            try:
                state.maybe_shutdown()
            except SystemExit:
                self.stop(worker)  # Celery stops no step of a worker that has not fully started
                raise
            time.sleep(ROOM_S)
        lane.close()

    def _shutting_down(self, **_: Any) -> None:
        self.loop.begin_drain()

    def stop(self, worker: Any) -> None:
        """Warm shutdown: finish what is on the device, give the rest back."""
        loop = getattr(self, "loop", None)
        if loop is None:
            return
        if not loop.drain():
            end_process(EXIT_STUCK, "the drain went past its bound; others take the rest over")
        self.following.stop()
        self.keeper.stop()
        self.remote.remove()
        self.events.stop()
        self._announce(None)
        _log.info("lane drained")

    def terminate(self, worker: Any) -> None:
        self.stop(worker)

    def _announce(self, worker_id: str | None) -> None:
        """Tell `reclane probe` who works here; None: nobody any more."""
        id_file = WorkerSettings.from_environment().id_file
        if id_file is None:
            return
        if worker_id is None:
            withdraw(id_file)
        else:
            announce(id_file, worker_id)


def _why_wait(lane: Lane) -> str:
    """Why Celery's own consumer must not start yet; '' where it may."""
    try:
        return "Redis is full: the lane drains it" if lane.is_full() else ""
    except redis.RedisError as error:
        if not is_passing(error):
            raise
        return "Redis cannot be reached"


class BulkStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Takes bulk runs on beside the rest, in workers without a lane too."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return WorkerSettings.from_environment().bulk_runs

    def start(self, worker: Any) -> None:
        from reclane_worker.bulk.conductor import Conductor
        from reclane_worker.bulk.ledger import Ledger

        name = f"{socket.gethostname()}:{os.getpid()}"
        self.conductor = Conductor(Ledger(WorkerSettings.from_environment(), name))
        signals.worker_shutting_down.connect(self._shutting_down)
        self.conductor.start()

    def _shutting_down(self, **_: Any) -> None:
        self.conductor.begin_stop()

    def stop(self, worker: Any) -> None:
        """What a step has begun is finished; another worker goes on with the run."""
        if hasattr(self, "conductor"):
            self.conductor.stop()

    def terminate(self, worker: Any) -> None:
        self.stop(worker)


def refuse_unsafe(worker: Any, settings: WorkerSettings) -> None:
    """Refuse what would lose messages or run code from them.

    Raises:
        ImproperlyConfigured: saying what to change.
    """
    conf = worker.app.conf
    pool = worker.pool_cls.__module__
    if pool not in _POOLS:
        raise ImproperlyConfigured(
            f"the lane needs --pool threads, not {pool}: a model cannot be shared across a fork"
        )
    if set(conf.accept_content) - {"json", "application/json"}:
        raise ImproperlyConfigured("accept_content must be ['json']: other formats can run code")
    elsewhere = differing(conf, settings)
    if elsewhere:
        raise ImproperlyConfigured(
            f"{', '.join(elsewhere)}: broker and results must be the same Redis database as the "
            "lane's; set RECLANE_REDIS_URL and RECLANE_KEY_PREFIX and leave these alone"
        )
    consumed = set(worker.app.amqp.queues.consume_from)
    if consumed & set(names.LANE_QUEUES):
        raise ImproperlyConfigured(
            f"the lane takes {', '.join(names.LANE_QUEUES)} itself; "
            f"start the worker with -Q {names.TASKS_QUEUE}"
        )
