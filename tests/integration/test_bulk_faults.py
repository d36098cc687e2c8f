"""Bulk runs when somebody interferes at the worst moment, or hands them what is none of theirs."""

import json
import logging
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from bulk import RUN, begin, finish, look, spec, users, without_lane, write_rows, written
from reclane import names, wire
from reclane.bulk import runs
from reclane.bulk.runs import Run
from reclane.bulk.spec import parse_run
from reclane.embedded import EmbeddedServer
from reclane.errors import BulkError, ReclaneError, RunConflict
from reclane.operations import purging
from reclane.settings import Settings
from reclane_worker.bulk import work as steps
from reclane_worker.bulk.conductor import MAX_TRIES, Conductor
from reclane_worker.bulk.errors import AnswersUnreadable, SourceUnusable
from reclane_worker.bulk.ledger import KEPT_RESULT_S, Claim, Ledger, LostRun
from reclane_worker.bulk.sinks import Part, Result
from reclane_worker.bulk.work import IN_FLIGHT, OVER, Work
from reclane_worker.local import WorkerProcess
from reclane_worker.settings import WorkerSettings
from support import KEYS, LEASE_MS, StartWorker, assert_nothing_left, eventually

CHUNK = steps.CHUNK_ROWS
ROWS = IN_FLIGHT * CHUNK  # all can be under way at once
LANE_ALONE = {"RECLANE_BULK_RUNS": "false"}
PENDING = wire.PLACEHOLDER


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "recs"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "users.parquet", users(ROWS))


@pytest.fixture
def ledger(server: EmbeddedServer) -> Iterator[Ledger]:
    """A worker's way to runs, one step at a time."""
    made = Ledger(WorkerSettings.load(redis_url=server.url, lease_ms=60_000), "by-hand")
    yield made
    made.close()


@pytest.fixture
def conducting(ledger: Ledger) -> Iterator[None]:
    """A worker that takes runs on, and answers nothing."""
    conductor = Conductor(ledger)
    conductor.start()
    yield
    conductor.stop()


def claim(ledger: Ledger) -> Claim:
    found = ledger.claim()
    assert isinstance(found, Claim)
    return found


def take(ledger: Ledger) -> Work:
    return Work(ledger, claim(ledger))


def take_over(raw: "redis.Redis", ledger: Ledger) -> Work:
    """As another worker does once the claim of who has the run has lapsed."""
    raw.zadd(KEYS.bulk_due, {RUN: 0})
    return take(ledger)


def drive(work: Work) -> None:
    """To the end, or until it may rest."""
    while (wait_s := work.step()) is not OVER:
        time.sleep(min(wait_s, 0.02))
    work.close()


def sent(raw: "redis.Redis") -> list[str]:
    """Keys of the results of chunks under way, in order."""
    stored: Any = raw.hgetall(KEYS.bulk_chunks(RUN))
    return [KEYS.result(json.loads(stored[n])[0]) for n in sorted(stored, key=int)]


def all_answered(raw: "redis.Redis") -> Callable[[], bool]:
    def answered() -> bool:
        results: Any = raw.mget(sent(raw))
        return all(one and not wire.is_pending(one) for one in results)

    return answered


def send_all(raw: "redis.Redis", work: Work) -> None:
    """Send as much as may be under way, and wait until it is answered."""
    while raw.hlen(KEYS.bulk_chunks(RUN)) < IN_FLIGHT:
        work.step()
    eventually(all_answered(raw), "all that was sent is answered")


def assert_exact(out: Path, rows: int = ROWS) -> None:
    """Every row has an answer, once."""
    assert set(written(out)) == {f"u{n}" for n in range(rows)}
    assert all(record["items"] for record in written(out).values())


# ---- who comes late


def test_a_part_that_was_stopped_in_mid_write_spoils_no_other(
    source: Path,
    out: Path,
    raw: "redis.Redis",
    ledger: Ledger,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frozen in the step, it wakes when others have written other rows as that part."""
    start_worker(LANE_ALONE)
    begin(raw, spec(source, out))
    late, after = take(ledger), list[Work]()
    write = late._sink.write

    def write_late(part: int, results: Sequence[Result]) -> Part:
        monkeypatch.undo()
        after.append(take_over(raw, ledger))
        before = look(raw).counts["answered"]
        while look(raw).counts["answered"] == before:
            after[0].step()
        return write(part, results)

    monkeypatch.setattr(late._sink, "write", write_late)
    send_all(raw, late)
    monkeypatch.setattr(steps, "PART_CHUNKS", 1)  # it had seen one answer only
    with pytest.raises(LostRun):
        late.step()
    drive(after[0])
    assert look(raw).state == "done"
    assert_exact(out)


# ---- pause and cancel, at any instant


def test_a_pause_writes_all_that_was_under_way(
    source: Path, out: Path, raw: "redis.Redis", ledger: Ledger, start_worker: StartWorker
) -> None:
    start_worker(LANE_ALONE)
    begin(raw, spec(source, out))
    work = take(ledger)
    send_all(raw, work)
    runs.pause(raw, KEYS, RUN)
    drive(work)
    paused = look(raw)
    assert (paused.state, paused.counts["answered"], paused.done) == ("paused", ROWS, ROWS)
    assert not sent(raw)
    runs.resume(raw, KEYS, RUN)
    drive(take(ledger))
    assert_exact(out)


def test_a_run_whose_source_is_gone_can_be_cancelled(
    out: Path, raw: "redis.Redis", conducting: None
) -> None:
    begin(raw, spec(out.with_name("nothing.parquet"), out))
    finish(raw, state="failed")
    runs.cancel(raw, KEYS, RUN)
    eventually(lambda: look(raw).state == "cancelled", "it is cancelled")
    assert look(raw).trouble is None
    with pytest.raises(RunConflict, match="only one that is paused or failed can become running"):
        runs.resume(raw, KEYS, RUN)


def test_a_failure_does_not_undo_a_cancel(
    source: Path, out: Path, raw: "redis.Redis", ledger: Ledger
) -> None:
    begin(raw, spec(source, out))
    mine = claim(ledger)
    runs.cancel(raw, KEYS, RUN)
    ledger.stop_for(mine, SourceUnusable("the source went away at that moment"))
    assert look(raw).state == "cancelling"
    drive(take(ledger))
    assert look(raw).state == "cancelled"
    assert begin(raw, spec(source, out), "next"), "the output is free"


def test_a_purge_does_not_undo_a_cancel(
    source: Path, server: EmbeddedServer, out: Path, raw: "redis.Redis", ledger: Ledger
) -> None:
    begin(raw, spec(source, out))
    work = take(ledger)
    work.step()
    purging.purge(raw, Settings.load(redis_url=server.url), names.BULK_QUEUE)
    runs.cancel(raw, KEYS, RUN)
    drive(work)
    assert look(raw).state == "cancelled"


def test_a_cancel_that_is_known_before_the_last_part_is_heeded(
    source: Path, out: Path, raw: "redis.Redis", ledger: Ledger, start_worker: StartWorker
) -> None:
    start_worker(LANE_ALONE)
    begin(raw, spec(write_rows(source, users(CHUNK)), out))
    work = take(ledger)
    work.step()
    eventually(all_answered(raw), "all is answered")
    runs.cancel(raw, KEYS, RUN)
    drive(work)
    assert look(raw).state == "cancelled"
    assert not [path for path in out.parent.iterdir() if "recs" in path.name]


def test_a_cancel_frees_a_redis_that_is_full(
    source: Path, out: Path, raw: "redis.Redis", ledger: Ledger
) -> None:
    begin(raw, spec(source, out))
    take(ledger).step()
    waiting = sent(raw)
    raw.zadd(KEYS.bulk_due, {RUN: 0})
    raw.config_set("maxmemory", 1)
    runs.cancel(raw, KEYS, RUN)
    drive(take(ledger))
    assert look(raw).state == "cancelled"
    assert all(wire.is_revoked(raw.get(key) or b"") for key in waiting)  # type: ignore[arg-type]


def test_a_run_may_take_longer_than_what_has_ended_is_known(
    source: Path, out: Path, raw: "redis.Redis", ledger: Ledger
) -> None:
    wanted = spec(source, out)
    begin(raw, wanted)
    mine, output = claim(ledger), KEYS.bulk_output(parse_run(wanted).output())
    kept = (KEYS.bulk_run(RUN), output)
    assert [raw.ttl(key) for key in kept] == [-1, -1]
    ledger.stop_for(mine, SourceUnusable("gone"))
    assert raw.ttl(KEYS.bulk_run(RUN)) == pytest.approx(runs.KEPT_S, abs=60)
    runs.resume(raw, KEYS, RUN)
    assert [raw.ttl(key) for key in kept] == [-1, -1]


# ---- Redis, results


def test_a_redis_that_comes_and_goes_is_not_held_against_the_run(
    source: Path,
    server: EmbeddedServer,
    out: Path,
    raw: "redis.Redis",
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(steps, "LOOK_EVERY_S", 0.05)
    caplog.set_level(logging.INFO)
    begin(raw, spec(source, out))
    conductor = Conductor(ledger)
    conductor.start()
    for _ in range(MAX_TRIES + 1):
        eventually(lambda: "taken on" in caplog.text, "it is taken on")
        server.kill()
        eventually(lambda: "Redis is away" in caplog.text, "the worker notices")
        caplog.clear()
        server.start()
    eventually(lambda: len(sent(raw)) == IN_FLIGHT, "it waits for answers")
    assert (look(raw).state, look(raw).trouble) == ("running", None)
    conductor.stop()


def test_answers_outlive_their_time_while_the_sink_is_slow(
    source: Path, out: Path, raw: "redis.Redis", ledger: Ledger, start_worker: StartWorker
) -> None:
    start_worker({**LANE_ALONE, "RECLANE_RESULT_TTL_S": "60"})
    begin(raw, spec(source, out))
    work = take(ledger)
    send_all(raw, work)
    waiting = sent(raw)
    for key in waiting[10:]:
        raw.set(key, PENDING)  # as if these took longer
    assert work.step() != 0.0
    assert all(60 < int(raw.ttl(key)) <= KEPT_RESULT_S for key in waiting[:10])  # type: ignore[arg-type]


def test_what_is_no_answer_fails_the_run_and_is_asked_again_when_resumed(
    source: Path, out: Path, raw: "redis.Redis", ledger: Ledger, start_worker: StartWorker
) -> None:
    start_worker(LANE_ALONE)
    begin(raw, spec(source, out))
    mine = claim(ledger)
    work = Work(ledger, mine)
    send_all(raw, work)
    failure = {"exc_type": "KeyError", "exc_message": ["x"], "exc_module": "builtins"}
    raw.set(sent(raw)[0], json.dumps({"status": "FAILURE", "result": failure}))
    raw.set(sent(raw)[1], '{"status": "SUCCESS", "result": 1}')
    raw.set(sent(raw)[2], '{"status": "SUCCESS"')
    for _ in range(2):
        with pytest.raises(AnswersUnreadable) as raised:
            work.step()
        ledger.stop_for(mine, raised.value)
        assert "resume" in (look(raw).trouble or ("", ""))[1]
        runs.resume(raw, KEYS, RUN)
        mine = claim(ledger)
        work = Work(ledger, mine)
    drive(work)
    assert look(raw).counts["failed"] == CHUNK
    failed = {key for key, record in written(out).items() if record["failure"]}
    assert failed == {f"u{n}" for n in range(CHUNK)}, "as the chunk's result says"
    assert set(written(out)) == {f"u{n}" for n in range(ROWS)}


# ---- others: stock workers, other releases, prefixes, catalogs, odd sources


def test_a_stock_worker_answers_as_the_lane_does(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    begin(raw, spec(write_rows(source, users(3 * CHUNK + 1)), out))
    with without_lane(start_worker, names.TASKS_QUEUE, names.BULK_QUEUE):
        finish(raw)
    assert_exact(out, 3 * CHUNK + 1)


def test_a_run_of_another_release_is_left_to_it(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    begin(raw, spec(source, out))
    key = KEYS.bulk_run(RUN)
    stored: Any = raw.hget(key, "spec")
    newer = {**json.loads(stored), "sink": {"kind": "sql", "url": "mysql://me:geheim@db/x"}}
    raw.hset(key, "spec", json.dumps(newer))
    worker = start_worker()
    eventually(lambda: (look(raw).trouble or ("",))[0] == "other_release", "it says so")
    assert look(raw).state == "running"
    assert [run.id for run in runs.known(raw, KEYS)] == [RUN]
    with pytest.raises(BulkError, match="another release"):
        _ = look(raw).spec
    assert "geheim" not in repr(look(raw)) + worker.log()
    raw.hset(key, "spec", stored)  # as a worker of that release sees it
    finish(raw)
    assert_exact(out)
    begin(raw, spec(source, out), "other")
    raw.hset(KEYS.bulk_run("other"), "spec", json.dumps(newer))
    runs.cancel(raw, KEYS, "other")
    finish(raw, "other", "cancelled")
    assert "geheim" not in worker.log()


def test_runs_keep_to_their_prefix(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    keys = names.Keys("shop-a:")
    worker = start_worker({"RECLANE_KEY_PREFIX": keys.prefix})
    runs.start(raw, keys, RUN, parse_run(spec(source, out)))
    eventually(lambda: runs.read(raw, keys, RUN).over, "the run is over")
    assert_exact(out)
    assert worker.stop() == 0
    assert not [key for key in raw.scan_iter() if not key.startswith(b"shop-a:")]


def test_an_answer_is_compared_with_the_catalog_that_made_it(
    tmp_path: Path, out: Path, raw: "redis.Redis", hash_catalog: Path, start_worker: StartWorker
) -> None:
    start_worker({"RECLANE_CATALOG": f"first={hash_catalog},second={hash_catalog}"})
    rows = users(300)
    for row, catalog in zip(rows, ["first", "second", None] * 100, strict=True):
        row["catalog"] = catalog
    source = write_rows(tmp_path / "users.parquet", rows)
    wanted = spec(source, out, only_changed=True)
    for run_id, unchanged in (("one", 0), ("two", 300)):
        begin(raw, wanted, run_id)
        assert finish(raw, run_id).counts["unchanged"] == unchanged
    rows[2]["catalog"] = "second"  # of no catalog before, which meant the first
    write_rows(source, rows)
    begin(raw, wanted, "three")
    assert finish(raw, "three").counts["answered"] == 1
    assert_exact(out, 300)


@pytest.mark.parametrize("incremental", [False, True])
def test_a_source_without_a_good_row_has_an_empty_result(
    incremental: bool, tmp_path: Path, out: Path, raw: "redis.Redis", ledger: Ledger
) -> None:
    empty, bad = tmp_path / "empty.csv", tmp_path / "bad.csv"
    empty.write_text("user_id,k\n")
    bad.write_text("user_id,k\n" + "u,many\n" * 500)
    for source, count in ((empty, 0), (bad, 500)):
        wanted = spec(source, out)
        if incremental:
            wanted["source"]["changed_since"] = {"column": "user_id", "value": 1}
        begin(raw, wanted, source.stem)
        drive(take(ledger))
        run = look(raw, source.stem)
        assert (run.state, run.counts["read"], run.counts["bad"]) == ("done", 0, count)
        assert json.loads((out / "_manifest.json").read_text())["parts"] == []


def test_too_many_bad_rows_stay_too_many_when_resumed(
    tmp_path: Path, out: Path, raw: "redis.Redis", conducting: None
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("user_id,k\n" + "u,many\n" * 5)
    begin(raw, spec(bad, out, max_bad=4))
    for _ in range(2):
        finish(raw, state="failed")
        runs.resume(raw, KEYS, RUN)
    finish(raw, state="failed")


# ---- everything at once


class Meddler:
    """Does one thing after another to a run, at moments that a seed draws."""

    def __init__(
        self, seed: int, server: EmbeddedServer, workers: list[WorkerProcess], raw: "redis.Redis"
    ) -> None:
        self._random = random.Random(seed)
        self._server = server
        self._workers = workers
        self._raw = raw
        self._faults = [
            *(self.pause, self.kill_worker, self.stop_worker, self.freeze_worker),
            *(self.crash_redis, self.break_connections),
        ]

    def meddle(self, until: Callable[[], bool], seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and not until():
            time.sleep(self._random.uniform(0.0, 1.0))
            self._random.choice(self._faults)()

    def pause(self) -> None:
        with suppress(RunConflict):  # it is done
            runs.pause(self._raw, KEYS, RUN)
            time.sleep(self._random.uniform(0.0, 0.3))
            runs.resume(self._raw, KEYS, RUN)

    def kill_worker(self) -> None:
        self._replace(WorkerProcess.kill)

    def stop_worker(self) -> None:
        self._replace(WorkerProcess.stop)

    def freeze_worker(self) -> None:
        """Until another may have taken over."""
        worker = self._random.choice(self._workers)
        if not worker.ended():
            worker.signal(signal.SIGSTOP)
            time.sleep(self._random.uniform(0.5, 1.5) * LEASE_MS / 1e3)
            worker.signal(signal.SIGCONT)

    def break_connections(self) -> None:
        self._raw.client_kill_filter(_type="normal", skipme=True)

    def crash_redis(self) -> None:
        self._server.kill()
        time.sleep(self._random.uniform(0.0, 0.3))
        self._server.start()

    def _replace(self, end: Callable[[WorkerProcess], Any]) -> None:
        worker = self._random.choice(self._workers)
        end(worker)
        with suppress(ReclaneError):
            worker.start()


@pytest.mark.parametrize("seed", [1])
def test_whatever_happens_each_row_is_written_once(
    seed: int,
    tmp_path: Path,
    server: EmbeddedServer,
    out: Path,
    raw: "redis.Redis",
    start_worker: StartWorker,
) -> None:
    rows = 10_000
    source = write_rows(tmp_path / "users.parquet", users(rows))
    begin(raw, spec(source, out))
    workers = [start_worker(), start_worker()]

    def over() -> bool:
        return look(raw).over

    Meddler(seed, server, workers, raw).meddle(over, seconds=12.0)
    run: Run = finish(raw)
    assert (run.done, run.counts["answered"], run.counts["failed"]) == (rows, rows, 0)
    assert_exact(out, rows)
    manifest = json.loads((out / "_manifest.json").read_text())
    assert sum(part["rows"] for part in manifest["parts"]) == rows
    parts = {path.name for path in out.glob("part-*")}
    assert parts == {part["name"] for part in manifest["parts"]}
    assert_nothing_left(raw)
    assert not sent(raw)
