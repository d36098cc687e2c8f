"""Real beats: what is due runs once, whoever of them dies, freezes or loses Redis."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from celery import Celery
from commands import PREFIX, Reclane, environment

import bulk
from reclane import names
from reclane.bulk import runs, schedules
from reclane.bulk.spec import parse_run
from reclane.embedded import EmbeddedServer
from reclane_worker.bulk.beat import BulkScheduler
from schedules import NIGHTLY, plan, rewind, slot_run
from support import DEADLINE_S, StartWorker, eventually, missing

SECRET = "zq:x/p@ss?#%;+&é w"
KEYS = names.Keys(PREFIX)
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Beat:
    """A real `reclane beat` in a process of its own, its log in a file."""

    def __init__(self, url: str, log: Path, prefix: str = PREFIX) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "reclane.cli", "beat", "--max-interval", "1"],
                env=environment(url, prefix),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def says(self, what: str) -> None:
        eventually(lambda: what in self.log() or self.process.poll() is not None, what)
        assert what in self.log()

    def works(self) -> "Beat":
        self.says("Acquired lock")
        return self

    def waits(self) -> "Beat":
        self.says("another beat has the lock")
        self.says("beat: Starting...")
        return self

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start_beat(server: EmbeddedServer, tmp_path: Path) -> Iterator[Callable[..., Beat]]:
    started: list[Beat] = []

    def start(url: str = server.url, **how: str) -> Beat:
        started.append(Beat(url, tmp_path / f"beat-{len(started)}.log", **how))
        return started[-1]

    yield start
    for beat in started:
        beat.kill()


def begun(raw: "redis.Redis") -> list[str]:
    return [run.id for run in runs.known(raw, KEYS)]


def score(raw: "redis.Redis", name: str) -> object:
    return raw.zscore(KEYS.beat_schedule, KEYS.beat_entry(name))


def runs_once(raw: "redis.Redis", name: str) -> None:
    """What is due of a schedule begins, and nothing but that."""
    before = begun(raw)
    run_id = slot_run(rewind(raw, KEYS, name), name)
    eventually(lambda: run_id in begun(raw), f"{run_id} begins")
    assert sorted(begun(raw)) == sorted([*before, run_id])


def test_what_is_added_and_paused_is_seen_while_the_beat_runs(
    raw: "redis.Redis", start_beat: Callable[..., Beat], tmp_path: Path, server: EmbeddedServer
) -> None:
    beat = start_beat().works()
    reclane = Reclane(server.url)
    added = reclane(
        *("schedule", "add", NIGHTLY, "/data/users.csv", "--out", str(tmp_path / "recs")),
        *("--cron", plan("/recs").cron.text),
    )
    assert "no beat" not in added.stderr
    runs_once(raw, NIGHTLY)
    (first,) = begun(raw)
    beat.says(f"schedule {NIGHTLY}: run {first}")

    schedules.add(raw, KEYS, "paused", plan(tmp_path / "paused"))
    schedules.pause(raw, KEYS, "paused")
    rewind(raw, KEYS, "paused")
    schedules.add(raw, KEYS, "later", plan(tmp_path / "later"))
    runs_once(raw, "later")
    eventually(lambda: score(raw, "paused") == -1, "the paused one is looked at, and put aside")
    assert not any(run_id.startswith("paused") for run_id in begun(raw))

    raw.hset(KEYS.bulk_run(first), "state", "paused")
    schedules.add(raw, KEYS, NIGHTLY, plan(tmp_path / "recs"), replace=True)
    rewind(raw, KEYS)
    beat.says(f"run {first} is still paused")
    assert "WARNING" in next(line for line in beat.log().splitlines() if "skipped" in line)
    assert beat.stop() == 0
    assert not raw.exists(KEYS.beat_lock)


def test_a_slot_runs_when_its_time_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The clocks of the server and of the beat stand some seconds before a full minute."""
    if not FAKETIME:
        missing("needs libfaketime: apt-get install faketime")
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME[0]))
    monkeypatch.setenv("FAKETIME", f"+{(54 - time.time()) % 60:.0f}s")
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as raw:
        slot = schedules.add(raw, KEYS, NIGHTLY, plan(tmp_path, "* * * * *")).next()
        beat = Beat(server.url, tmp_path / "beat.log")
        try:
            eventually(lambda: begun(raw), "a slot's run begins", 1.5 * DEADLINE_S)
            (run,) = runs.known(raw, KEYS)
            assert run.id == slot_run(slot)
            assert run.started >= slot
            assert beat.stop() == 0
        finally:
            beat.kill()


def test_a_beat_sleeps_until_the_next_slot_and_no_longer(
    server: EmbeddedServer, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(server.url).items():
        monkeypatch.setenv(name, value)
    schedules.add(raw, KEYS, NIGHTLY, plan("/recs", "* * * * *"))
    with Celery(set_as_current=False) as app:
        scheduler = BulkScheduler(app, max_interval=60)
        sleep_s = scheduler.tick()
        woken = time.time() + sleep_s
        assert woken < schedules.read(raw, KEYS, NIGHTLY).next() + 1
        scheduler.close()
        scheduler._client.close()


def test_of_two_beats_one_works_and_the_other_takes_over_when_it_is_killed(
    raw: "redis.Redis", start_beat: Callable[..., Beat]
) -> None:
    for name in ("one", "two"):
        schedules.add(raw, KEYS, name, plan(f"/recs/{name}"))
    first = start_beat().works()
    second = start_beat().waits()
    assert start_beat().waits().stop() == 0  # one may wait no longer
    runs_once(raw, "one")
    first.says("schedule one")
    first.kill()
    runs_once(raw, "two")
    second.says("schedule two")
    third = start_beat().waits()
    assert second.stop() == 0  # it gives the lock back: no waiting for it to lapse
    third.works()


def test_a_beat_that_was_frozen_runs_nothing_twice_and_waits_for_its_turn(
    raw: "redis.Redis", start_beat: Callable[..., Beat]
) -> None:
    for name in ("one", "two", "three"):
        schedules.add(raw, KEYS, name, plan(f"/recs/{name}"))
    first = start_beat().works()
    second = start_beat().waits()
    first.process.send_signal(signal.SIGSTOP)
    second.works()
    runs_once(raw, "one")
    first.process.send_signal(signal.SIGCONT)
    first.says("another beat took over")
    runs_once(raw, "two")
    second.says("schedule one")
    second.says("schedule two")
    assert "schedule" not in first.log().partition("Acquired lock")[2]
    assert second.stop() == 0
    runs_once(raw, "three")
    first.says("schedule three")


def test_a_beat_outlives_redis(
    server: EmbeddedServer, raw: "redis.Redis", start_beat: Callable[..., Beat]
) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan("/recs"))
    beat = start_beat().works()
    server.kill()
    beat.says("Redis cannot be reached")
    server.start()
    runs_once(raw, NIGHTLY)
    server.kill()
    assert beat.stop() == 0
    assert "Traceback" not in beat.log()


def test_one_schedule_that_cannot_be_read_keeps_no_other_from_running(
    raw: "redis.Redis", start_beat: Callable[..., Beat]
) -> None:
    for days, name in enumerate(("whole", "gone", "damaged"), start=2):  # the last is due first
        schedules.add(raw, KEYS, name, plan(f"/recs/{name}"))
        rewind(raw, KEYS, name, days)
    raw.hset(KEYS.beat_entry("damaged"), "definition", '{"cron": "zqsecret"}')
    raw.delete(KEYS.beat_entry("gone"))
    beat = start_beat()
    eventually(lambda: begun(raw), "the one that can be read runs")
    beat.says("schedule rm damaged")
    beat.says("there is no schedule gone")
    assert "zqsecret" not in beat.log()
    assert score(raw, "damaged") is not None


def test_a_full_redis_delays_a_run(raw: "redis.Redis", start_beat: Callable[..., Beat]) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan("/recs"))
    beat = start_beat().works()
    beat.process.send_signal(signal.SIGSTOP)
    run_id = slot_run(rewind(raw, KEYS))
    raw.config_set("maxmemory", 1)
    beat.process.send_signal(signal.SIGCONT)
    beat.says("maxmemory")
    assert begun(raw) == []
    raw.config_set("maxmemory", 0)
    eventually(lambda: begun(raw) == [run_id], "it runs once there is room")


def test_a_beat_without_redis_says_so_in_a_line(start_beat: Callable[..., Beat]) -> None:
    beat = start_beat("redis://:zqsecret@127.0.0.1:1/0")
    assert beat.process.wait(DEADLINE_S) == 69
    assert beat.log().startswith("reclane: Redis cannot be reached")
    assert beat.log().count("\n") == 1


def test_a_beat_that_lacks_a_right_ends_with_a_reason_and_no_password(
    server: EmbeddedServer, raw: "redis.Redis", start_beat: Callable[..., Beat]
) -> None:
    rules = ("on", f">{SECRET}", "~*", "&*", "+@all", "-zrangebyscore")
    raw.execute_command("ACL", "SETUSER", "be:at", *rules)
    beat = start_beat(server.url.replace("//", f"//be%3Aat:{quote(SECRET, safe='')}@"))
    assert beat.process.wait(DEADLINE_S) == 69
    assert "Ways to Redis" in beat.log()
    assert SECRET not in beat.log()
    assert quote(SECRET, safe="") not in beat.log()


def test_what_is_scheduled_is_written_by_workers(
    raw: "redis.Redis",
    start_beat: Callable[..., Beat],
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    start_worker()
    start_beat(prefix="")
    source = bulk.write_rows(tmp_path / "users.parquet", bulk.users(7))
    wanted = parse_run(bulk.spec(source, tmp_path / "recs"))
    schedules.add(raw, bulk.KEYS, NIGHTLY, schedules.Plan(plan("/recs").cron, wanted))
    slot = rewind(raw, bulk.KEYS)
    eventually(lambda: raw.exists(bulk.KEYS.bulk_run(slot_run(slot))), "the run begins")
    bulk.finish(raw, slot_run(slot))
    assert set(bulk.written(tmp_path / "recs")) == {f"u{n}" for n in range(7)}
    again = schedules.run_now(raw, bulk.KEYS, NIGHTLY)
    bulk.finish(raw, again)
