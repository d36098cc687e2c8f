"""A bulk run: state in Redis, taken on by whichever worker lives, losing nothing."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest
import redis
from celery import Celery
from commands import Reclane
from pyarrow import parquet

from bulk import (
    RUN,
    answered,
    begin,
    finish,
    ids,
    look,
    spec,
    users,
    without_lane,
    write_rows,
    written,
)
from reclane import Client, RequestFailed, names
from reclane.bulk import runs
from reclane.embedded import EmbeddedServer
from reclane.errors import RunConflict, UnknownRun
from reclane.operations import purging
from reclane.settings import Settings
from support import (
    DEADLINE_S,
    KEYS,
    StartWorker,
    assert_nothing_left,
    eventually,
    mount_memory,
    statistics_of_all,
)

ROWS = 12_000  # enough to be met in the middle


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "users.parquet", users(ROWS))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "recs"


@pytest.fixture
def reclane(server: EmbeddedServer) -> Reclane:
    return Reclane(server.url, prefix="")


def assert_whole(raw: "redis.Redis", out: Path, rows: int = ROWS) -> None:
    """Every row has an answer, once, and Redis holds nothing of the run but what it became."""
    assert set(written(out)) == {f"u{n}" for n in range(rows)}
    assert all(record["items"] for record in written(out).values())
    assert not raw.exists(KEYS.bulk_chunks(RUN))
    assert_nothing_left(raw)


def test_every_row_holds_what_a_single_request_gives(
    tmp_path: Path, out: Path, raw: "redis.Redis", client: Client, start_worker: StartWorker
) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": "words", "query": "想看一部好看的科幻电影"},
        {"user_id": "seen", "history": ["film/alien", "film/dune"]},
        {"user_id": "both", "query": "jazz", "history": ["film/alien"]},
        {"user_id": "elsewhere", "query": "film", "catalog": "unknown"},
        {"user_id": "wrong", "query": "film", "k": 0},
        {"query": "film"},
    ]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    start_worker()
    begin(raw, spec(lines, out))
    run = finish(raw)
    assert run.counts == {
        **dict.fromkeys(runs.COUNTS, 0),
        **{"read": 4, "bad": 2, "answered": 3, "failed": 1},
    }
    found = written(out)
    for row in rows[:3]:
        key = row.pop("user_id")
        alone = client.recommend(timeout=DEADLINE_S, **row)
        assert [(i["id"], i["title"]) for i in found[key]["items"]] == [
            (i.id, i.title) for i in alone.items
        ]
        assert [i["score"] for i in found[key]["items"]] == pytest.approx(
            [i.score for i in alone.items], abs=1e-5
        )
    assert found["elsewhere"]["failure"]["code"] == "unknown_catalog"
    assert [bad.place for bad in runs.bad_rows(raw, KEYS, RUN)] == ["rows.jsonl:5", "rows.jsonl:6"]
    counted = duckdb.sql(f"SELECT count(*) FROM '{out}/*.parquet'").fetchall()
    assert counted == [(4,)]


def test_a_run_without_one_answer_fails_and_leaves_the_earlier_result(
    tmp_path: Path,
    out: Path,
    raw: "redis.Redis",
    reclane: Reclane,
    start_worker: StartWorker,
) -> None:
    start_worker()
    lines = tmp_path / "rows.jsonl"
    lines.write_text(
        "".join(json.dumps({"user_id": f"u{n}", "seen": "x"}) + "\n" for n in range(3))
    )
    mapped = spec(lines, out)
    mapped["source"]["columns"] = {"query": "seen"}
    begin(raw, mapped, "good")
    finish(raw, "good")
    before = written(out)
    begin(raw, spec(lines, out))
    with pytest.raises(AssertionError, match="nothing_answered"):
        finish(raw)
    run = runs.read(raw, KEYS, RUN)
    assert (run.state, run.failures) == ("failed", {"unknown_user": 3})
    assert written(out) == before
    shown = reclane("bulk", "status", RUN).stdout
    assert "no request was answered (unknown_user 3)" in shown
    assert "failed with" in shown


def assert_no_results(raw: "redis.Redis") -> None:
    assert not list(raw.scan_iter(KEYS.result("*")))


def test_a_worker_killed_in_the_middle_loses_and_repeats_nothing(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    begin(raw, spec(source, out))
    for part in (1, 2):
        worker = start_worker()
        answered(raw, part * 3_200)
        worker.kill()
    start_worker()
    finish(raw)
    assert_whole(raw, out)


def test_redis_killed_in_the_middle_loses_nothing(
    server: EmbeddedServer, source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    begin(raw, spec(source, out))
    answered(raw, 1)
    server.kill()
    server.start()
    finish(raw)
    assert_whole(raw, out)


def test_two_workers_take_over_from_each_other(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    first, second = start_worker(), start_worker()
    begin(raw, spec(source, out))
    answered(raw, 1)
    holder = first if f"{RUN}: taken on" in first.log() else second
    assert holder.stop() == 0
    finish(raw)
    other = second if holder is first else first
    assert f"{RUN}: taken on" in other.log()
    assert_whole(raw, out)


def test_a_worker_that_came_back_late_can_save_nothing(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """Frozen past its claim, in whatever step."""
    first = start_worker()
    begin(raw, spec(source, out))
    answered(raw, 1)
    first.signal(signal.SIGSTOP)
    second = start_worker()
    eventually(lambda: f"{RUN}: taken on" in second.log(), "the other has taken the run on")
    first.signal(signal.SIGCONT)
    finish(raw)
    assert_whole(raw, out)


def test_who_watches_may_die(
    source: Path, out: Path, raw: "redis.Redis", reclane: Reclane, start_worker: StartWorker
) -> None:
    arguments = ("bulk", "run", str(source), "--out", str(out), "--id", RUN)
    with reclane.running(*arguments) as watcher:
        start_worker()
        answered(raw, 1)
        watcher.kill()
    finish(raw)
    assert_whole(raw, out)
    again = reclane.json(*arguments)
    assert (again["state"], again["done"]) == ("done", ROWS)


def test_ctrl_c_says_how_to_follow_the_run_that_goes_on(
    source: Path, out: Path, raw: "redis.Redis", reclane: Reclane
) -> None:
    with reclane.running("bulk", "run", str(source), "--out", str(out), "--id", RUN) as watcher:
        assert watcher.stderr
        assert b"nightly-1: 0 rows" in watcher.stderr.readline()
        watcher.send_signal(signal.SIGINT)
        said = watcher.stderr.read().decode()
        assert watcher.wait(DEADLINE_S) == 130
    assert f"`reclane bulk watch {RUN}` follows it" in said
    assert "Traceback" not in said
    assert look(raw).state == "running"


def test_one_id_runs_once_and_one_output_has_one_run(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    wanted = spec(source, out)
    assert begin(raw, wanted)
    assert not begin(raw, wanted)
    with pytest.raises(RunConflict, match=RUN):
        begin(raw, spec(source, out), "nightly-2")
    assert begin(raw, spec(source, out.with_name("elsewhere")), "elsewhere")
    start_worker()
    finish(raw)
    finish(raw, "elsewhere")
    first = look(raw)
    assert not begin(raw, wanted)
    assert look(raw) == first
    assert begin(raw, wanted, "nightly-2")
    finish(raw, "nightly-2")
    assert_whole(raw, out)


def test_the_task_starts_a_run_once(
    source: Path, out: Path, raw: "redis.Redis", stock: Celery, start_worker: StartWorker
) -> None:
    start_worker()
    sent = [
        stock.send_task(
            names.BULK_START,
            args=[spec(source, out)],
            kwargs={"run_id": RUN},
            queue=names.TASKS_QUEUE,
        )
        for _ in range(2)
    ]
    told = [one.get(timeout=DEADLINE_S) for one in sent]
    assert sorted(one["begun"] for one in told) == [False, True]
    assert {one["run"] for one in told} == {RUN}
    with pytest.raises(RequestFailed, match="source"):
        stock.send_task(names.BULK_START, args=[{}], queue=names.TASKS_QUEUE).get(
            timeout=DEADLINE_S
        )
    finish(raw)
    assert_whole(raw, out)


def test_a_pause_lasts_until_it_is_resumed(
    source: Path, out: Path, raw: "redis.Redis", reclane: Reclane, start_worker: StartWorker
) -> None:
    start_worker()
    begin(raw, spec(source, out))
    answered(raw, 1)
    runs.pause(raw, KEYS, RUN)  # at once: a command takes as long as the run
    eventually(lambda: not raw.zcard(KEYS.bulk_due), "the worker has let go")
    assert_nothing_left(raw)
    paused = look(raw)
    assert (paused.state, paused.over) == ("paused", False)
    assert 0 < paused.done < ROWS
    assert paused.done == paused.counts["answered"]
    assert "paused" in reclane("bulk", "status").stdout
    reclane("bulk", "resume", RUN)
    finish(raw)
    assert_whole(raw, out)
    for command in ("pause", "resume"):
        assert "done" in reclane("bulk", command, RUN, code=1).stderr


def test_a_cancelled_run_leaves_the_earlier_result(
    source: Path,
    tmp_path: Path,
    out: Path,
    raw: "redis.Redis",
    reclane: Reclane,
    start_worker: StartWorker,
) -> None:
    start_worker()
    begin(raw, spec(write_rows(tmp_path / "few.parquet", users(3)), out), "earlier")
    finish(raw, "earlier")
    begin(raw, spec(source, out))
    answered(raw, 1)
    reclane("bulk", "cancel", RUN, "--yes")
    finish(raw, state="cancelled")
    assert set(written(out)) == {"u0", "u1", "u2"}
    assert len([path for path in out.parent.iterdir() if path.name.startswith(".recs")]) == 1
    eventually(lambda: not raw.llen(KEYS.list(names.BULK_QUEUE)), "what waited is dropped")
    assert begin(raw, spec(source, out), "later")
    finish(raw, "later")


def test_what_is_purged_pauses_the_run_and_is_sent_again_when_resumed(
    source: Path, server: EmbeddedServer, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    # One that takes runs on, but nothing from the lane's queues.
    start_worker().stop()
    with without_lane(start_worker):
        begin(raw, spec(source, out))
        eventually(lambda: raw.llen(KEYS.list(names.BULK_QUEUE)) == 32, "all that may is sent")
        settings = Settings.load(redis_url=server.url)
        assert purging.purge(raw, settings, names.BULK_QUEUE).ended == 32
        eventually(lambda: look(raw).state == "paused", "the run is paused")
        trouble = look(raw).trouble
        assert trouble
        assert trouble[0] == "requests_revoked"
        runs.resume(raw, KEYS, RUN)
        start_worker()
        finish(raw)
    assert_whole(raw, out)


def test_answers_that_outlived_their_time_are_asked_for_again(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    begin(raw, spec(source, out))
    answered(raw, 1)
    lost = list(raw.scan_iter(KEYS.result("*")))
    assert lost
    raw.delete(*lost)
    finish(raw)
    assert_whole(raw, out)


def test_bad_rows_are_fatal_only_where_asked(
    tmp_path: Path, out: Path, raw: "redis.Redis", reclane: Reclane, start_worker: StartWorker
) -> None:
    rows = [
        *users(5),
        {"user_id": "a", "query": "x", "k": 0},
        {"user_id": "", "query": "x", "k": 3},
    ]
    source = write_rows(tmp_path / "some.parquet", rows)
    start_worker()
    arguments = ("bulk", "run", str(source), "--out", str(out), "--max-bad")
    failed = reclane(*arguments, "1", "--id", "strict", code=1)
    assert "too_many_bad_rows" in failed.stderr
    assert "some.parquet row 6" in failed.stdout
    assert not out.exists()
    done = reclane.json(*arguments, "2", "--id", "lenient")
    assert [bad["place"] for bad in done["bad_rows"]] == [
        "some.parquet row 6",
        "some.parquet row 7",
    ]
    assert len(written(out)) == 5


def test_a_source_that_changes_fails_the_run(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    begin(raw, spec(source, out))
    answered(raw, 1)
    write_rows(source, users(ROWS + 1))
    run = finish(raw, state="failed")
    assert run.trouble
    assert run.trouble[0] == "source_changed"
    assert not out.exists()
    assert begin(raw, spec(source, out), "again"), "a failed run holds no output"
    finish(raw, "again")
    with pytest.raises(RunConflict, match="newer run"):
        runs.resume(raw, KEYS, RUN)


def test_a_mistake_is_told_by_the_run_and_can_be_mended(
    tmp_path: Path, out: Path, raw: "redis.Redis", reclane: Reclane, start_worker: StartWorker
) -> None:
    start_worker()
    source = tmp_path / "late.parquet"
    failed = reclane("bulk", "run", str(source), "--out", str(out), "--id", RUN, code=1)
    assert "there is no such file" in failed.stderr
    write_rows(source, users(3))
    reclane("bulk", "resume", RUN)
    finish(raw)
    assert set(written(out)) == {"u0", "u1", "u2"}
    with pytest.raises(UnknownRun):
        look(raw, "unknown")
    for command in ("status", "watch", "pause"):
        assert "there is no run unknown" in reclane("bulk", command, "unknown", code=66).stderr


def test_a_full_disk_stops_the_run_until_there_is_room(
    small_disk: Path, source: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    out = small_disk / "recs"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 180_000)
    start_worker()
    begin(raw, spec(source, out))
    eventually(lambda: (look(raw).trouble or ("",))[0] == "sink_full", "the run says so")
    assert look(raw).state == "running"
    assert not out.exists()
    ballast.unlink()
    assert mount_memory(small_disk, "remount,size=64m")
    finish(raw)
    assert_whole(raw, out)


def test_a_full_redis_stops_the_run_until_there_is_room(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    begin(raw, spec(source, out))
    answered(raw, 1)
    raw.config_set("maxmemory", 1)
    eventually(lambda: (look(raw).trouble or ("",))[0] == "redis_full", "the run says so")
    raw.config_set("maxmemory", 0)
    start_worker()  # Celery's own consumer may have ended the first
    finish(raw)
    assert_whole(raw, out)


def test_several_runs_share_a_worker(
    tmp_path: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    source = write_rows(tmp_path / "users.parquet", users(500))
    for n in range(3):
        begin(raw, spec(source, tmp_path / f"recs-{n}"), f"run-{n}")
    start_worker()
    for n in range(3):
        finish(raw, f"run-{n}")
        assert len(written(tmp_path / f"recs-{n}")) == 500
    assert [run.id for run in runs.known(raw, KEYS)] == ["run-2", "run-1", "run-0"]


def test_nothing_is_computed_twice_when_nothing_fails(
    source: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    begin(raw, spec(source, out))
    finish(raw)

    def computed() -> int:
        return sum(int(one.get("requests", 0)) for one in statistics_of_all(raw).values())

    eventually(lambda: computed() >= ROWS, "the worker has published its counts")
    assert computed() == ROWS
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["counts"]["answered"] == ROWS
    assert sum(part["rows"] for part in manifest["parts"]) == ROWS
    assert parquet.read_table(out).num_rows == ROWS
    assert_no_results(raw)
    assert ids(written(out)["u0"])


def test_only_what_changed_is_asked_again(
    tmp_path: Path,
    out: Path,
    raw: "redis.Redis",
    hash_catalog: Path,
    start_worker: StartWorker,
) -> None:
    rows = users(3_000)
    source = write_rows(tmp_path / "users.parquet", rows)
    worker = start_worker()
    begin(raw, spec(source, out, only_changed=True), "first")
    assert finish(raw, "first").counts["answered"] == 3_000  # nothing stood there
    first = written(out)
    for n in (5, 1_500, 2_999):
        rows[n]["query"] = "jazz"
    rows += [{"user_id": "new", "query": "film", "k": 3}]
    write_rows(source, rows)
    begin(raw, spec(source, out, only_changed=True), "second")
    counts = finish(raw, "second").counts
    assert (counts["unchanged"], counts["answered"]) == (2_997, 4)
    second = written(out)
    changed = {"u5", "u1500", "u2999", "new"}
    assert second.keys() == first.keys() | {"new"}
    assert {key for key in first if second[key] != first[key]} == changed - {"new"}
    worker.stop()
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(hash_catalog), str(other)], check=True)
    start_worker({"RECLANE_CATALOG": f"renamed={other}"})
    begin(raw, spec(source, out, only_changed=True), "third")
    assert finish(raw, "third").counts["answered"] == 3_001  # another catalog answers


def test_rows_that_changed_since_are_added_to_the_earlier_result(
    tmp_path: Path, out: Path, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    rows = [{**row, "at": n} for n, row in enumerate(users(1_000))]
    source = write_rows(tmp_path / "users.parquet", rows)
    start_worker()
    begin(raw, spec(source, out), "whole")
    finish(raw, "whole")
    write_rows(source, [{**row, "query": "jazz"} for row in rows[500:]])
    wanted = spec(source, out)
    wanted["source"]["changed_since"] = {"column": "at", "value": 900}
    begin(raw, wanted, "since")
    assert finish(raw, "since").counts["answered"] == 100
    found = written(out)
    assert len(found) == 1_000
    jazz = ids(found["u900"])
    assert all(ids(found[f"u{n}"]) == jazz for n in range(900, 1_000))
    assert ids(found["u899"]) != jazz
