"""The conductor: a thread of a worker that takes bulk runs on, one at a time, while they are due.

It holds a run as long as it can, since a source that stays open need not find its place again;
where it dies, the claim lapses and any worker goes on.
"""

import logging
import threading
import time
import traceback
from contextlib import closing, suppress
from typing import Final, Self

import redis

from reclane.errors import ReclaneError
from reclane_worker.bulk.errors import GivenUp, RedisFull
from reclane_worker.bulk.ledger import AGAIN_S, Claim, Command, Ledger, LostRun
from reclane_worker.bulk.work import Work
from reclane_worker.ears import Ears
from reclane_worker.lane import is_passing, patiently

TURN_S: Final = 10.0  # how long a run is held while others wait for a worker
IDLE_LOOK_S: Final = 5.0  # in case word of a new run was lost
TICK_S: Final = 0.5  # how soon a stop is seen
MAX_TRIES: Final = 5  # claims that got no further before a run is given up
MAX_STEP_S: Final = 600.0  # a step that takes longer hangs: its claim is renewed no more
_JOIN_S: Final = 5.0

_log = logging.getLogger(__name__)


class Conductor:
    """Runs beside whatever else the worker does, over connections of its own."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reclane-bulk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begin_stop(self) -> None:
        """Let go of the run after the step that is under way."""
        self._stopping.set()

    def stop(self) -> None:
        """As `begin_stop`, and wait a little; what hangs is taken on by others when it lapses."""
        self.begin_stop()
        self._thread.join(_JOIN_S)
        self._ledger.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._take_next()
            except redis.RedisError as error:
                _log.warning("bulk runs: Redis is away (%s); trying again", type(error).__name__)
                self._stopping.wait(1.0)
            except Exception as error:
                _log.error("bulk runs: an error of this worker's own: %s", _traced(error))
                self._stopping.wait(AGAIN_S)

    def _take_next(self) -> None:
        found = self._ledger.claim()
        if isinstance(found, Claim):
            self._conduct(found)
            return
        with closing(self._ledger.listen(None)) as ears:
            self._wait(ears, IDLE_LOOK_S if found is None else min(IDLE_LOOK_S, found))

    def _conduct(self, claim: Claim) -> None:
        """Take a run on until it is over, or others need a turn, or it cannot go on now."""
        _log.info("bulk run %s: taken on", claim.id)
        try:
            cancelling = claim.fields["state"] == "cancelling"
            if int(claim.fields["tries"]) > MAX_TRIES and not cancelling:
                raise GivenUp("workers died of it or failed unexpectedly, again and again")
            with closing(Work(self._ledger, claim)) as work:
                self._drive(work, claim)
        except LostRun:
            _log.warning("bulk run %s: another worker has it", claim.id)
        except redis.OutOfMemoryError:
            self._stop_for(claim, RedisFull("Redis is full; the run goes on when it has room"))
        except ReclaneError as error:
            self._stop_for(claim, error)
        except Exception as error:
            if isinstance(error, redis.RedisError) and is_passing(error):
                self._take_on_anew(claim)
            else:
                self._failed(claim, error)

    def _drive(self, work: Work, claim: Claim) -> None:
        turn_ends = time.monotonic() + TURN_S
        blamed = True
        with closing(self._ledger.listen(claim)) as ears, Renewal(self._ledger, claim) as renewal:
            while (wait_s := work.step()) is not None:
                renewal.step_began = time.monotonic()
                if self._stopping.is_set() or (
                    time.monotonic() > turn_ends and self._ledger.others_due()
                ):
                    self._ledger.let_go(claim, *self._untried(claim), due_s=0.0)
                    return
                if wait_s and blamed:  # it only waits: whatever the worker dies of now is another's
                    self._ledger.save(claim, *self._untried(claim))
                    blamed = False
                if wait_s:
                    self._wait(ears, wait_s)

    def _stop_for(self, claim: Claim, trouble: ReclaneError) -> None:
        _log.warning("bulk run %s cannot go on: %s [%s]", claim.id, trouble, trouble.code)
        with suppress(LostRun):
            self._ledger.stop_for(claim, trouble)

    def _take_on_anew(self, claim: Claim) -> None:
        """Redis was away: only it knows where the run stands. That is no fault of the run's."""
        with suppress(LostRun):
            patiently(lambda: self._ledger.let_go(claim, *self._untried(claim), due_s=0.0))

    def _failed(self, claim: Claim, error: Exception) -> None:
        _log.error("bulk run %s: a step failed unexpectedly: %s", claim.id, _traced(error))
        why = f"{type(error).__name__}: see the worker's log"
        with suppress(LostRun):
            self._ledger.let_go(claim, *self._ledger.tells(claim, "internal", why), due_s=AGAIN_S)

    def _untried(self, claim: Claim) -> list[Command]:
        return self._ledger.sets(claim, tries=None)

    def _wait(self, ears: Ears, seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := give_up - time.monotonic()) > 0:
            if ears.wait(min(TICK_S, left)):
                return


def _traced(error: Exception) -> str:
    """Its type and where it was raised; not its words, which may quote a row or a password."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


class Renewal:
    """Renews a claim beside steps that take long, from entering to leaving it."""

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        self._ledger = ledger
        self._claim = claim
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reclane-bulk-claim", daemon=True)
        self.step_began = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._ledger.lease_s / 3):
            if time.monotonic() - self.step_began > MAX_STEP_S:
                _log.error("bulk run %s: a step hangs; others may take the run on", self._claim.id)
                return
            try:
                self._ledger.save(self._claim)
            except LostRun:
                return
            except redis.RedisError as error:
                _log.warning("bulk run %s: not renewed (%s)", self._claim.id, type(error).__name__)
