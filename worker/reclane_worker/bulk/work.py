"""THE STEPS of a bulk run: check, send, write, carry, complete. Read `Work.step` first.

Each step is short and may be repeated: a process that dies in one leaves the run between two steps,
and whoever claims it then does that step again. It writes its part beside what was half done, under
another number, and only parts that were saved are shown: somebody who was stopped in a step, and
comes back after others took the run on, changes nothing that they wrote.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from typing import Final

from reclane.bulk.runs import shown_failures
from reclane.bulk.spec import RunSpec
from reclane.contract import Versions as AnswerVersions
from reclane.contract import parse_request
from reclane.errors import ReclaneError, WireError
from reclane_worker.bulk.errors import AnswersUnreadable, NothingAnswered, NoWorker, TooManyBad
from reclane_worker.bulk.ledger import Claim, Command, Ledger, Versions
from reclane_worker.bulk.sent import (
    CHUNK_ROWS,
    Ask,
    Sent,
    answer_digest,
    ask,
    cut,
    results,
    sort,
)
from reclane_worker.bulk.sinks import Manifest, Result, Sink, open_sink
from reclane_worker.bulk.sources import BadRow, Row, Source, open_source

IN_FLIGHT: Final = 32  # chunks that are sent and not written: what Redis holds of a run
PART_CHUNKS: Final = 16  # of these at once become a part of the sink
LAND_EVERY_S: Final = 10.0  # or fewer, so that progress shows
LOOK_EVERY_S: Final = 1.0  # in case word was lost
SKIP_ROWS: Final = 1_000  # rows whose records are compared at once
MAX_SKIPPED: Final = 20_000  # rows in one step
OVER: Final = None

_log = logging.getLogger(__name__)


class Work:
    """A claimed run with its source and sink. For one thread; `close` it."""

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        """Reads what was sent; opens nothing yet, so that any run can be cancelled."""
        fields = claim.fields
        self._ledger = ledger
        self._claim = claim
        self._opened = ExitStack()
        self._state = fields["state"]
        self._checked = self._looked = False
        self._cursor = json.loads(fields.get("cursor", "null"))
        self._exhausted = "exhausted" in fields
        self._next = int(fields.get("next", 0))
        self._parts = int(fields.get("parts", 0))
        self._bad = int(fields.get("bad", 0))
        self._written = int(fields.get("written", 0))
        self._versions = {tuple(one) for one in json.loads(fields.get("versions", "[]"))}
        self._chunks = ledger.chunks(claim)
        self._kept: set[str] = set()  # ids of chunks whose results outlive their time
        self._pending = False
        self._current: Versions | None = None
        self._landed_at = time.monotonic()
        self._shown = -1

    def step(self) -> float | None:
        """Do what can be done now; seconds to wait before the next step, OVER after the last.

        Raises:
            LostRun: another worker has the run.
            StepFailed, MissingExtra: the run cannot go on, or not now.
        """
        if self._state == "cancelling":
            return self._cancel()
        if not self._checked:
            self._check()
        landed = self._land()
        self._looked = True
        if self._state == "paused":
            return 0.0 if landed else self._rest()
        sent = self._send()
        if self._state == "running" and self._exhausted and not self._chunks:
            return self._finish()
        if landed or sent:
            return 0.0
        self._save()  # hears of a new state, too
        return LOOK_EVERY_S

    def close(self) -> None:
        self._opened.close()

    @cached_property
    def _spec(self) -> RunSpec:
        return self._claim.spec

    @cached_property
    def _source(self) -> Source:
        return self._opened.enter_context(closing(open_source(self._spec.source)))

    @cached_property
    def _sink(self) -> Sink:
        return self._opened.enter_context(closing(open_sink(self._spec.sink, self._claim.id)))

    # ---- before anything is sent, and after trouble

    def _check(self) -> None:
        self._refuse_bad()
        self._source.check()
        self._sink.check()
        known = self._ledger.sets(self._claim, trouble=None) if self._state == "running" else []
        if "total" not in self._claim.fields and not self._exhausted:
            known += self._ledger.sets(self._claim, total=self._source.count())
        self._save(*known)
        self._checked = True

    # ---- from the source to the queue

    def _send(self) -> bool:
        sent = False
        for _ in range(PART_CHUNKS):
            if self._exhausted or len(self._chunks) >= IN_FLIGHT or self._state != "running":
                break
            self._send_next()
            sent = True
        return sent

    def _send_next(self) -> None:
        """Read on, and send what is to be asked, in one step with where to go on."""
        rows, bad, passed = self._read()
        chunks = list(cut(rows, self._next))
        self._next += len(chunks)
        self._bad += len(bad)
        self._written += len(bad) + passed
        asked = len(rows) + passed
        self._save(
            *self._ledger.sends(self._claim, chunks),
            *self._ledger.counts(self._claim, read=asked, bad=len(bad), unchanged=passed),
            *self._ledger.notes_bad(self._claim, [(one.place, one.reason) for one in bad]),
            *self._ledger.sets(
                self._claim,
                cursor=json.dumps(self._cursor),
                next=self._next,
                written=self._written,
                exhausted=1 if self._exhausted else None,
                tries=None,
            ),
            room=True,
        )
        self._chunks |= {chunk.number: chunk for chunk in chunks}
        self._refuse_bad()

    def _refuse_bad(self) -> None:
        if self._spec.max_bad is not None and self._bad > self._spec.max_bad:
            raise TooManyBad(
                f"{self._bad} bad rows, more than {self._spec.max_bad}; "
                f"`reclane bulk status {self._claim.id}` shows the first"
            )

    def _read(self) -> tuple[list[Ask], list[BadRow], int]:
        """The next rows to ask for, the bad ones, and how many are as they were."""
        limit = SKIP_ROWS if self._spec.only_changed else CHUNK_ROWS
        asks: list[Ask] = []
        bad: list[BadRow] = []
        passed = 0
        while not asks and not self._exhausted and passed + len(bad) < MAX_SKIPPED:
            found = self._source.read(self._cursor, limit)
            self._cursor, self._exhausted = found.cursor, found.cursor is None
            bad += found.bad
            new = [ask(row.key, parse_request(row.request)) for row in found.rows]
            if self._spec.only_changed:
                same = self._unchanged(found.rows, new)
                new = [one for one in new if one.key not in same]
            asks += new
            passed += len(found.rows) - len(new)
        return asks, bad, passed

    def _unchanged(self, rows: Sequence[Row], asks: Sequence[Ask]) -> set[str]:
        """Keys whose record in the sink is what asking again would bring."""
        now = self._current = self._current or self._ledger.versions()
        if now is None:
            raise NoWorker("no worker says yet what it answers with; start one")
        wanted = {}
        for row, one in zip(rows, asks, strict=True):
            catalog = now.catalog(row.request.get("catalog"))
            if catalog is not None:
                wanted[one.key] = answer_digest(one.digest, now.models, catalog)
        return self._sink.unchanged(wanted)

    # ---- from the queue to the sink

    def _land(self) -> bool:
        """Write chunks that are answered, and send again what was lost; whether there was any."""
        chunks = list(self._chunks.values())
        looked = sort(chunks, self._ledger.states(chunks))
        self._pending = looked.pending
        if looked.revoked:
            self._take_back(looked.revoked)
            return True
        self._keep(looked.ready)
        self._show(sum(len(chunk.keys) for chunk in looked.ready))
        late = time.monotonic() - self._landed_at > LAND_EVERY_S
        enough = late or not looked.pending or len(looked.ready) >= PART_CHUNKS
        if looked.ready and enough:
            self._write(looked.ready[:PART_CHUNKS])
            return True
        if looked.lost and self._state == "running":
            self._send_again(looked.lost)
            return True
        return False

    def _keep(self, ready: Sequence[Sent]) -> None:
        if new := [chunk for chunk in ready if chunk.id not in self._kept]:
            self._ledger.keep_results(new)
            self._kept = {chunk.id for chunk in ready}

    def _part(self) -> int:
        """The number of the next part. No other claim ever uses it."""
        return self._parts + self._claim.fence - 1

    def _write(self, chunks: Sequence[Sent]) -> None:
        rows: list[Result] = []
        for chunk, stored in zip(chunks, self._ledger.results(chunks), strict=True):
            if stored is None:
                return  # its time ended just now: the next step sends it again
            rows += self._results(chunk, stored)
        part = self._sink.write(self._part(), rows)
        failed = sum(row.answer is None for row in rows)
        self._parts += 1
        self._written += len(rows)
        self._versions |= {
            tuple(v[name] for name in AnswerVersions.model_fields if v.get(name) is not None)
            for v in (row.answer["versions"] for row in rows if row.answer)
        }
        self._save(
            *self._ledger.lands(self._claim, chunks, part),
            *self._ledger.counts(self._claim, answered=len(rows) - failed, failed=failed),
            *self._ledger.failures(
                self._claim, Counter(r.failure["code"] for r in rows if r.failure)
            ),
            *self._ledger.sets(
                self._claim,
                parts=self._parts,
                written=self._written,
                versions=json.dumps(sorted(self._versions)),
                tries=None,
            ),
        )
        for chunk in chunks:
            del self._chunks[chunk.number]
        self._landed_at = time.monotonic()

    def _results(self, chunk: Sent, stored: bytes) -> list[Result]:
        try:
            return results(chunk, stored)
        except WireError as error:
            self._save(*self._ledger.takes_back(self._claim, [chunk.unsent()]))
            raise AnswersUnreadable(f"{error}; `reclane bulk resume` sends it again") from None

    def _send_again(self, lost: Sequence[Sent]) -> None:
        _log.warning("bulk run %s: %s chunks are sent again", self._claim.id, len(lost))
        again = [chunk.renamed() for chunk in lost]
        self._save(*self._ledger.sends(self._claim, again), room=True)
        self._chunks |= {chunk.number: chunk for chunk in again}

    def _take_back(self, revoked: Sequence[Sent]) -> None:
        """Somebody took chunks from the queue by hand: wait until the run is resumed. Those that
        were revoked before it was are sent again."""
        unsent = [chunk.unsent() for chunk in revoked]
        self._chunks |= {chunk.number: chunk for chunk in unsent}
        commands = self._ledger.takes_back(self._claim, unsent)
        if self._looked and self._state == "running":
            text = "requests were revoked or purged by hand; `reclane bulk resume` sends them again"
            commands += self._ledger.sets(self._claim, state="paused")
            commands += self._ledger.tells(self._claim, "requests_revoked", text)
        self._save(*commands, unless="cancelling")

    def _show(self, ready: int = 0) -> None:
        """Let watchers see how many rows are computed; renews the claim."""
        done = self._written + ready
        if done != self._shown:
            self._shown = done
            self._save(*self._ledger.sets(self._claim, done=done))

    # ---- the ends

    def _rest(self) -> float | None:
        """Paused: what is under way still lands."""
        if self._pending:
            self._save()
            return LOOK_EVERY_S
        self._ledger.let_go(self._claim, due_s=None)
        return OVER

    def _finish(self) -> float | None:
        """All rows of the source are written: show the result."""
        if self._spec.incremental and self._carry():
            return 0.0
        parts = self._ledger.parts(self._claim)
        run = self._ledger.run(self._claim)
        counts = run.counts
        if counts["failed"] and not (counts["answered"] or counts["unchanged"]):
            codes = shown_failures(run.failures)
            raise NothingAnswered(
                f"no request was answered ({codes}); an earlier result stays. Mend the rows or "
                "--map, --set and the like, and start a new run"
            )
        versions = tuple(
            AnswerVersions(**dict(zip(AnswerVersions.model_fields, one, strict=False)))
            for one in sorted(self._versions)
        )
        started = int(self._claim.fields["started"]) / 1e3
        self._sink.complete(
            Manifest(
                run=self._claim.id,
                parts=parts,
                counts=counts,
                versions=versions,
                started=started,
                finished=time.time(),
            )
        )
        self._end("done", *self._ledger.sets(self._claim, done=self._written))
        return OVER

    def _carry(self) -> bool:
        """Take one more part over from the earlier result; whether there was something to do."""
        fields = self._claim.fields
        own = int(fields.setdefault("own", str(self._parts)))
        parts = self._ledger.parts(self._claim)[:own]
        carried = self._sink.carry(self._part(), int(fields.get("carry_at", 0)), parts)
        if carried is None:
            return False
        fields["carry_at"] = str(carried.at)
        self._parts += carried.part is not None
        self._save(
            *(self._ledger.keeps(self._claim, carried.part) if carried.part else ()),
            *self._ledger.counts(self._claim, carried=carried.part.rows if carried.part else 0),
            *self._ledger.sets(
                self._claim, own=own, carry_at=carried.at, parts=self._parts, tries=None
            ),
        )
        return True

    def _cancel(self) -> float | None:
        """Given up: nobody computes what waits, and nothing half stays where that can be."""
        try:
            self._sink.clear()
        except (ReclaneError, OSError) as error:
            _log.warning("bulk run %s: cannot clean up (%s)", self._claim.id, type(error).__name__)
        sent = [chunk for chunk in self._chunks.values() if chunk.id]
        self._end("cancelled", *self._ledger.revokes(sent), *self._ledger.forgets(self._claim))
        return OVER

    def _end(self, state: str, *commands: Command) -> None:
        ending = self._ledger.ends(self._claim, state, int(time.time() * 1e3))
        ending += self._ledger.sets(self._claim, trouble=None)
        self._ledger.let_go(self._claim, *commands, *ending, due_s=None)
        _log.info("bulk run %s is %s", self._claim.id, state)

    def _save(self, *commands: Command, room: bool = False, unless: str = "") -> None:
        self._state = self._ledger.save(self._claim, *commands, room=room, unless=unless)
