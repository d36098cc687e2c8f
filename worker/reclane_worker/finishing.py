"""Ends messages: answers and failures become visible, here or through Celery's own backend."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import redis
from kombu.exceptions import OperationalError

from reclane import wire
from reclane.contract import Failure
from reclane_worker.answering import Answer
from reclane_worker.celery_side.events import Outcome, TaskEvents
from reclane_worker.celery_side.finisher import CeleryFinisher
from reclane_worker.chunks import Chunk
from reclane_worker.device import Stopwatch
from reclane_worker.lane import Ending, Entry, Lane, patiently
from reclane_worker.triage import (
    ANSWERED,
    REVOKED,
    SUPERSEDED,
    Ended,
    Held,
    Job,
    celery_failed,
    end_with,
    notify_channel,
    standing,
)

_log = logging.getLogger(__name__)

CELERY_RETRY_S: Final = 2.0  # pause before a message whose callbacks could not be sent runs again
CELERY_S: Final = 10.0  # predicted time for links and signal receivers, which are others' code

# What became visible of which message, by its in-flight field.
_Told = dict[str, tuple[wire.Message, Outcome]]


class Finishing:
    """The lane thread's way to end entries; every call waits until Redis has answered."""

    def __init__(
        self, lane: Lane, finisher: CeleryFinisher, events: TaskEvents, stopwatch: Stopwatch
    ) -> None:
        self._lane = lane
        self._finisher = finisher
        self._events = events
        self._stopwatch = stopwatch

    def commit(
        self, jobs: Sequence[Job], answers: Sequence[Answer | Failure], runtime_s: float = 0.0
    ) -> None:
        """Make the answers of one batch visible, each if its entry is still this worker's; those
        to the requests of a chunk with the last of them."""
        self._complete(list(_whole(jobs, answers)), runtime_s)

    def end_chunks(self, chunks: Sequence[Chunk]) -> None:
        """End those that need no run: each of their requests has failed already."""
        self._complete([(chunk, chunk.answer()) for chunk in chunks])

    def _complete(
        self, done: Sequence[tuple[Held, Answer | Failure]], runtime_s: float = 0.0
    ) -> None:
        now = time.time()
        endings: list[Ending] = []
        told: _Told = {}
        for held, answer in done:
            message = held.message
            task_id, digest, parent_id = message.id, message.digest, message.parent_id
            failure = answer if isinstance(answer, Failure) else None
            if isinstance(answer, Failure):
                meta = wire.encode_failure(task_id, answer, now, digest, parent_id)
            else:
                meta = wire.encode_success(task_id, answer, now, digest, parent_id)
            ending = end_with(held, meta, failure, int(now * 1e3))
            if self._finisher.wants(message):
                endings += self._through_celery(held.entry, message, answer, ending, told)
                continue
            endings.append(ending)
            told[held.entry.field] = message, answer
        lost = self._store(endings, told)
        if lost:
            _log.warning("%s answers came too late: others had taken the requests over", len(lost))
            raws = [held.entry.raw for held, _ in done if held.entry.field in lost]
            patiently(lambda: self._lane.absolve(raws))
        self._events.finished(told.values(), runtime_s)

    def end(self, ended: Sequence[Ended]) -> None:
        """End what needs no run: repeats, the revoked, the expired, the invalid."""
        endings: list[Ending] = []
        told: _Told = {}
        for one in ended:
            ending, message, outcome = one.ending, one.message, one.failure or one.reason
            if message and self._wants(message, one):
                endings += self._through_celery(one.entry, message, outcome, ending, told)
            else:
                endings.append(ending)
                if message and one.reason not in (ANSWERED, SUPERSEDED):
                    told[one.entry.field] = message, outcome
            _log.info("request %s ended without a run: %s", ending.task_id or "-", one.reason)
        self._store(endings, told)
        self._events.ended(told.values())

    def _wants(self, message: wire.Message, one: Ended) -> bool:
        """Whether a message that ends without a run ends through Celery."""
        if one.reason == SUPERSEDED:
            return False
        if one.reason == ANSWERED:
            return message.needs_celery
        return self._finisher.wants(message, revoked=one.failure is None)

    def _through_celery(
        self, entry: Entry, message: wire.Message, outcome: Outcome, ending: Ending, told: _Told
    ) -> list[Ending]:
        """Let Celery store and send what follows, and take the rest from `ending`; no ending where
        the entry is not to end now.

        Checked just before to be ours and not answered: this path has no conditional commit in
        one script, so a cancellation that comes in the same instant can still be overwritten.
        """
        if not patiently(lambda: self._lane.owns(entry.field)):
            return []
        kept = patiently(lambda: self._lane.stored([message.id])).get(message.id)
        try:
            with self._stopwatch.watch("Celery's side of a message", CELERY_S):
                became = self._let_celery(message, outcome, kept)
        except (OperationalError, redis.RedisError) as error:
            _log.error("request %s: not sent on (%s)", message.id, type(error).__name__)
            self.park(entry, int((time.time() + CELERY_RETRY_S) * 1e3))
            return []
        except Exception as error:
            _log.error("request %s: Celery's side raised %s", message.id, type(error).__name__)
            failed = celery_failed(entry, message, error, int(time.time() * 1e3))
            if failed.failure:
                told[entry.field] = message, failed.failure
            letters = ending.dead_letters or failed.ending.dead_letters
            return [replace(failed.ending, dead_letters=letters)]
        if became is not None:
            told[entry.field] = message, became
        through = replace(ending, meta=b"", channel="")
        if standing(message, kept) == SUPERSEDED:
            return [through]
        if message.digest:
            patiently(lambda: self._lane.mark(message.id, message.digest))
        others = wire.decode_pending(kept).notify if kept and wire.is_pending(kept) else ()
        return [replace(through, channel=notify_channel(message), others=others)]

    def _let_celery(
        self, message: wire.Message, outcome: Outcome, kept: bytes | None
    ) -> Outcome | None:
        """What Celery's side made visible for a message of which `kept` is stored, if anything."""
        stands = standing(message, kept)
        if kept and stands == ANSWERED:
            self._finisher.follow(message, kept)
            return None
        if stands == SUPERSEDED or outcome == ANSWERED:  # the answer that was there has expired
            return None
        if stands == REVOKED:  # perhaps while it ran: the answer is dropped
            # Who revokes stores that; a chord and signal receivers have yet to hear of it.
            outcome = outcome if isinstance(outcome, str) else REVOKED
        self._finisher.finish(message, outcome, store=not stands)
        return outcome

    def _store(self, endings: Sequence[Ending], told: _Told) -> frozenset[str]:
        """Returns the fields that were not ours; takes from `told` what did not become visible."""
        if not endings:
            return frozenset()
        done = patiently(lambda: self._lane.commit(endings))
        for field in done.lost:
            told.pop(field, None)
        late = [(field, told.pop(field)[0]) for field in done.late if field in told]
        ids = [message.id for _, message in late]
        kept = patiently(lambda: self._lane.stored(ids))
        for field, message in late:
            if standing(message, kept.get(message.id)) == REVOKED:
                told[field] = message, REVOKED
        return done.lost

    def park(self, entry: Entry, due_ms: int) -> None:
        """Put an entry back until `due_ms` of Redis's clock."""
        patiently(lambda: self._lane.give_back([entry.field], due_ms))


def _whole(
    jobs: Sequence[Job], answers: Sequence[Answer | Failure]
) -> Iterator[tuple[Held, Answer | Failure]]:
    """What ends now: requests that came alone, and chunks of which these were the last missing."""
    for job, answer in zip(jobs, answers, strict=True):
        if job.part is None:
            yield job, answer
            continue
        chunk = job.part.chunk
        chunk.put(job.part.place, answer)
        if chunk.whole:
            yield chunk, chunk.answer()
