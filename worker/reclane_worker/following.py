"""Serves what is published: loads another version of a catalog while the one before serves.

A thread of its own hears that something was published, loads and verifies it, asks it something
and then puts it in the pipeline's place for it. What cannot be loaded changes nothing; the worker
says so, with its statistics, and tries again later.
"""

import logging
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import redis

from reclane._connection import connect
from reclane.errors import ReclaneError
from reclane.publishing import Publication, published
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.device import yielding
from reclane_worker.ears import Ears
from reclane_worker.loading import uncollected, warm_up
from reclane_worker.pipeline import Pipeline
from reclane_worker.settings import WorkerSettings

LOOK_S: Final = 10.0  # in case word of a publication was lost
AGAIN_S: Final = 60.0  # what could not be loaded may be there by then
_TICK_S: Final = 0.5  # how soon a stop is seen
_JOIN_S: Final = 2.0

_log = logging.getLogger(__name__)


def published_now(settings: WorkerSettings) -> dict[str, Publication]:
    """What is published, by catalog name; nothing where Redis does not say."""
    try:
        with connect(settings) as client:
            return {name: one.now for name, one in published(client, settings.keys).items()}
    except redis.RedisError as error:
        _log.warning("what is published is not known (%s)", type(error).__name__)
        return {}


class Following:
    """Follows what is published under the names of a pipeline's catalogs."""

    def __init__(self, settings: WorkerSettings, pipeline: Pipeline) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._redis: Any = connect(settings)  # redis-py types replies loosely
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reclane-catalogs", daemon=True)
        self._refused: dict[str, tuple[Publication, str, float]] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """A load that is under way ends with the process."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        self._redis.close()

    def told(self) -> dict[str, Any]:
        """For whoever watches the worker: what it serves, and what it could not."""
        return {
            "catalogs": self._pipeline.versions()["catalogs"],
            "refused": {
                name: {"version": one.version, "at": one.at, "why": why}
                for name, (one, why, _) in self._refused.copy().items()
            },
        }

    def _run(self) -> None:
        yielding()
        while not self._stopping.is_set():
            try:
                with closing(Ears(self._redis, [self._settings.keys.catalogs_changed])) as ears:
                    self.follow()
                    self._wait(ears)
            except redis.RedisError:
                self._stopping.wait(1.0)  # the lane says that Redis is away
            except Exception as error:
                _log.error("catalogs are not followed now: %s", _traced(error))
                self._stopping.wait(LOOK_S)

    def follow(self) -> None:
        """Look once, and serve what is published."""
        for name, wanted in self._wanted().items():
            self._serve(name, wanted)

    def _serve(self, name: str, wanted: Publication) -> None:
        if self._pipeline.catalogs[name].version == wanted.version:
            self._refused.pop(name, None)
            return
        tried, _, again = self._refused.get(name, (None, "", 0.0))
        if tried == wanted and time.monotonic() < again:
            return
        started = time.perf_counter()
        try:
            catalog = self._load(name, wanted)
        except Exception as error:
            known = isinstance(error, ReclaneError)
            why = str(error) if known else f"{type(error).__name__}: see the worker's log"
            self._refused[name] = wanted, why, time.monotonic() + AGAIN_S
            _log.error("catalog %s@%s: %s", name, wanted.version, why if known else _traced(error))
            return
        if self._wanted().get(name) != wanted:
            return  # it was rolled back meanwhile, or there is a newer one
        self._pipeline.catalogs[name] = catalog
        self._refused.pop(name, None)
        seconds = time.perf_counter() - started
        _log.info("catalog %s@%s is served, after %.1f s", name, wanted.version, seconds)

    def _wanted(self) -> dict[str, Publication]:
        found = published(self._redis, self._settings.keys).items()
        return {name: one.now for name, one in found if name in self._pipeline.catalogs}

    def _load(self, name: str, wanted: Publication) -> Catalog:
        encoder = self._pipeline.encoder
        with uncollected():
            catalog = load_catalog(name, Path(wanted.folder), encoder, wanted.version)
            warm_up(Pipeline(encoder, {name: catalog}, self._settings))
            return catalog

    def _wait(self, ears: Ears) -> None:
        give_up = time.monotonic() + LOOK_S
        while not self._stopping.is_set() and time.monotonic() < give_up:
            if ears.wait(_TICK_S):
                return


def _traced(error: Exception) -> str:
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
