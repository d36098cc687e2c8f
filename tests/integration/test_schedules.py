"""Schedules: edited by the command and in Redis; what a turn begins, and what it leaves out."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from commands import PREFIX, Reclane

from reclane import names
from reclane.bulk import runs, schedules
from reclane.bulk.schedules import Turn
from reclane.embedded import EmbeddedServer
from reclane.errors import InvalidRequest, RunConflict, ScheduleConflict, UnknownSchedule
from schedules import DAY_S, NIGHTLY, daily, end, plan, rewind, slot_run

KEYS = names.Keys(PREFIX)
OUT = "/recommendations"


@pytest.fixture
def reclane(server: EmbeddedServer) -> Reclane:
    return Reclane(server.url)


def give_turn(raw: "redis.Redis", name: str = NIGHTLY) -> Turn:
    return schedules.turn(raw, KEYS, name)


def look(raw: "redis.Redis", name: str = NIGHTLY) -> schedules.Schedule:
    return schedules.read(raw, KEYS, name)


def begun(raw: "redis.Redis") -> list[str]:
    return [run.id for run in runs.known(raw, KEYS)]


def due(raw: "redis.Redis", name: str = NIGHTLY) -> Any:
    return raw.zscore(KEYS.beat_schedule, KEYS.beat_entry(name))


# ---- what a turn does


def test_a_new_schedule_waits_for_its_next_slot(raw: "redis.Redis") -> None:
    added = schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    turn = give_turn(raw)
    assert (turn.run, turn.skipped) == (None, None)
    assert 10 * 3_600 < turn.wait_s <= 12 * 3_600
    assert due(raw) == added.next()
    assert begun(raw) == []


def test_the_newest_slot_runs_once_however_many_were_missed(raw: "redis.Redis") -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    slot = rewind(raw, KEYS, days=5)
    turn = give_turn(raw)
    assert turn.run == slot_run(slot)
    assert 10 * 3_600 < turn.wait_s <= 12 * 3_600
    assert begun(raw) == [turn.run]
    one = look(raw)
    assert (one.run, one.since, due(raw)) == (turn.run, slot, slot + DAY_S)
    assert give_turn(raw).run is None
    assert begun(raw) == [turn.run]


def test_turns_given_at_once_begin_one_run(server: EmbeddedServer, raw: "redis.Redis") -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    run_id = slot_run(rewind(raw, KEYS))
    barrier = threading.Barrier(8)

    def give(_: int) -> Turn:
        with redis.Redis.from_url(server.url) as own:
            own.ping()
            barrier.wait(10)
            return give_turn(own)

    with ThreadPoolExecutor(8) as pool:
        turns = list(pool.map(give, range(8)))
    assert {turn.run for turn in turns} <= {run_id, None}
    assert all(turn.skipped is None for turn in turns)
    assert begun(raw) == [run_id]


def test_who_dies_after_beginning_a_run_is_followed_by_a_turn_that_begins_none(
    raw: "redis.Redis",
) -> None:
    one = schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    run_id = slot_run(rewind(raw, KEYS))
    assert runs.start(raw, KEYS, run_id, one.plan.spec)
    turn = give_turn(raw)
    assert (turn.run, turn.skipped) == (run_id, None)
    assert begun(raw) == [run_id]
    assert look(raw).run == run_id


def test_who_dies_before_the_run_has_begun_leaves_the_slot_due(
    raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    slot = rewind(raw, KEYS)

    def die(*_: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "start", die)
        with pytest.raises(KeyboardInterrupt):
            give_turn(raw)
    assert give_turn(raw).run == slot_run(slot)


@pytest.mark.parametrize("state", ["running", "paused", "cancelling"])
def test_a_slot_is_skipped_while_an_earlier_run_is_not_over(raw: "redis.Redis", state: str) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    earlier = schedules.run_now(raw, KEYS, NIGHTLY)
    raw.hset(KEYS.bulk_run(earlier), "state", state)
    # Elsewhere by now: the lock on the output would not tell.
    one = schedules.add(raw, KEYS, NIGHTLY, plan("/elsewhere"), replace=True)
    slot = rewind(raw, KEYS)
    turn = give_turn(raw)
    assert turn.run is None
    assert turn.skipped == schedules.Skip(slot, f"run {earlier} is still {state}")
    assert look(raw).skipped == turn.skipped
    assert begun(raw) == [earlier]
    assert due(raw) == slot + DAY_S
    end(raw, KEYS, one, earlier)
    assert give_turn(raw).run is None, "what was skipped is not made up for"
    rewind(raw, KEYS)
    assert give_turn(raw).run == slot_run(slot)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_run_that_ended_badly_keeps_no_later_one_from_beginning(
    raw: "redis.Redis", state: str
) -> None:
    one = schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    earlier = schedules.run_now(raw, KEYS, NIGHTLY)
    end(raw, KEYS, one, earlier)
    raw.hset(KEYS.bulk_run(earlier), "state", state)
    slot = rewind(raw, KEYS)
    assert give_turn(raw).run == slot_run(slot)


def test_a_run_that_was_forgotten_keeps_no_later_one_from_beginning(raw: "redis.Redis") -> None:
    one = schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    earlier = schedules.run_now(raw, KEYS, NIGHTLY)
    end(raw, KEYS, one, earlier)
    raw.delete(KEYS.bulk_run(earlier))
    assert give_turn(raw).run is None
    slot = rewind(raw, KEYS)
    assert give_turn(raw).run == slot_run(slot)


def test_a_slot_is_skipped_while_a_run_of_somebody_else_writes_to_the_output(
    raw: "redis.Redis",
) -> None:
    one = schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    assert runs.start(raw, KEYS, "by-hand", one.plan.spec)
    slot = rewind(raw, KEYS)
    skipped = give_turn(raw).skipped
    assert skipped is not None
    assert skipped.slot == slot
    assert "by-hand" in skipped.reason
    assert begun(raw) == ["by-hand"]


def test_what_is_too_late_waits_for_the_next_slot_where_that_is_wanted(raw: "redis.Redis") -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT, within_s=3_600))
    slot = rewind(raw, KEYS)
    skipped = give_turn(raw).skipped
    assert skipped is not None
    assert skipped.slot == slot
    assert "within 3600 s" in skipped.reason
    assert begun(raw) == []
    assert due(raw) == slot + DAY_S
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT, within_s=14 * 3_600), replace=True)
    rewind(raw, KEYS)
    assert give_turn(raw).run == slot_run(slot)


# ---- what is edited while a beat runs


def test_a_paused_schedule_begins_nothing_and_makes_up_for_nothing(raw: "redis.Redis") -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    schedules.pause(raw, KEYS, NIGHTLY)
    assert due(raw) == -1
    rewind(raw, KEYS)  # a beat that had seen it before it was paused
    assert give_turn(raw).run is None
    assert due(raw) == -1
    schedules.resume(raw, KEYS, NIGHTLY)
    assert give_turn(raw).run is None
    assert due(raw) == look(raw).next()
    assert begun(raw) == []
    slot = rewind(raw, KEYS)
    schedules.resume(raw, KEYS, NIGHTLY)  # it was not paused: what was missed stays due
    assert give_turn(raw).run == slot_run(slot)


def test_a_replaced_plan_counts_from_now_and_keeps_what_became_of_the_last(
    raw: "redis.Redis",
) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT, daily(2)))
    run_id = slot_run(rewind(raw, KEYS))
    assert give_turn(raw).run == run_id
    with pytest.raises(ScheduleConflict, match="--replace"):
        schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT, daily(1)), replace=True)
    assert give_turn(raw).run is None, "the slot an hour ago was before it was replaced"
    one = look(raw)
    assert (one.run, one.plan.cron.text) == (run_id, daily(1))
    schedules.pause(raw, KEYS, NIGHTLY)
    assert schedules.add(raw, KEYS, NIGHTLY, plan(OUT), replace=True).paused
    assert due(raw) == -1


def test_who_replaces_a_plan_during_a_turn_has_the_last_word(
    raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its due time is the new plan's; the old one's may be a month away."""
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    slot = rewind(raw, KEYS)
    start = runs.start

    def start_slowly(*arguments: Any) -> bool:
        began = start(*arguments)
        schedules.add(raw, KEYS, NIGHTLY, plan(OUT, "* * * * *"), replace=True)
        return began

    monkeypatch.setattr(runs, "start", start_slowly)
    assert give_turn(raw).run == slot_run(slot)
    one = look(raw)
    assert one.run == slot_run(slot)
    assert due(raw) == one.next() < slot + DAY_S


def test_a_turn_in_the_middle_of_another_change_is_not_undone(
    raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    slot = rewind(raw, KEYS)
    start, turns = runs.start, []

    def start_slowly(*arguments: Any) -> bool:
        began = start(*arguments)
        monkeypatch.setattr(runs, "start", start)
        turns.append(give_turn(raw))
        return began

    monkeypatch.setattr(runs, "start", start_slowly)
    run_id = schedules.run_now(raw, KEYS, NIGHTLY)
    assert [bool(turn.skipped) for turn in turns] == [True]
    one = look(raw)
    assert (one.run, one.since, due(raw)) == (run_id, slot, slot + DAY_S)


def test_what_is_removed_during_a_turn_stays_removed(
    raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    rewind(raw, KEYS)
    start = runs.start

    def start_slowly(*arguments: Any) -> bool:
        schedules.remove(raw, KEYS, NIGHTLY)
        return start(*arguments)

    monkeypatch.setattr(runs, "start", start_slowly)
    assert give_turn(raw).run is not None
    assert list(raw.scan_iter(KEYS.beat_entry("*"))) == []
    for act in (schedules.read, schedules.remove, schedules.pause, schedules.resume):
        with pytest.raises(UnknownSchedule, match="schedule list"):
            act(raw, KEYS, NIGHTLY)


def test_run_now_obeys_what_runs_and_leaves_the_cron_alone(raw: "redis.Redis") -> None:
    one = schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    before = due(raw)
    run_id = schedules.run_now(raw, KEYS, NIGHTLY)
    assert run_id.startswith(f"{NIGHTLY}-")
    assert (look(raw).run, due(raw), look(raw).since) == (run_id, before, one.since)
    with pytest.raises(RunConflict, match="still running"):
        schedules.run_now(raw, KEYS, NIGHTLY)
    assert begun(raw) == [run_id]


# ---- what is stored


def test_a_plan_is_stored_whole_and_its_password_is_not_shown(raw: "redis.Redis") -> None:
    source = {"kind": "sql", "url": "postgresql://me:zqsecret@db/shop", "table": "users"}
    sink = {"kind": "redis", "url": "redis://:zqsecret@cache/0", "ttl_s": 60}
    spec = schedules.parse_run({"source": source, "sink": sink, "max_bad": 3})
    told = schedules.Plan(schedules.cron.parse("0 3 * * *", "Europe/Berlin"), spec, 7_200)
    schedules.add(raw, KEYS, NIGHTLY, told)
    assert look(raw).plan == told
    assert "zqsecret" not in repr(told)


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"cron": "0 3 * * *", "zone": "Mars/Base"}'])
def test_a_schedule_that_cannot_be_read_can_be_removed_and_replaced(
    raw: "redis.Redis", damage: str
) -> None:
    schedules.add(raw, KEYS, NIGHTLY, plan(OUT))
    raw.hset(KEYS.beat_entry(NIGHTLY), "definition", damage)
    for act in (schedules.turn, schedules.pause, schedules.run_now):
        with pytest.raises(ScheduleConflict, match=f"schedule rm {NIGHTLY}"):
            act(raw, KEYS, NIGHTLY)
    assert schedules.add(raw, KEYS, NIGHTLY, plan(OUT), replace=True).plan == plan(OUT)
    raw.hset(KEYS.beat_entry(NIGHTLY), "definition", damage)
    schedules.remove(raw, KEYS, NIGHTLY)
    assert schedules.known(raw, KEYS) == []


@pytest.mark.parametrize("name", ["", "a b", "a:b", ":lock", "x" * 41, "é", "a\n"])
def test_a_name_that_fits_no_id_of_a_run_is_refused(raw: "redis.Redis", name: str) -> None:
    with pytest.raises(InvalidRequest, match="up to 40"):
        schedules.add(raw, KEYS, name, plan(OUT))


def test_the_longest_name_makes_ids_that_runs_can_have(raw: "redis.Redis") -> None:
    name = "x" * 40
    one = schedules.add(raw, KEYS, name, plan(OUT))
    run_id = schedules.run_now(raw, KEYS, name)
    end(raw, KEYS, one, run_id)
    rewind(raw, KEYS, name)
    assert give_turn(raw, name).run is not None


def test_there_is_a_most_to_how_many_there_are(
    raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "MAX_SCHEDULES", 2)
    for name in ("a", "b"):
        schedules.add(raw, KEYS, name, plan(OUT))
    with pytest.raises(ScheduleConflict, match="there are 2"):
        schedules.add(raw, KEYS, "c", plan(OUT))
    schedules.add(raw, KEYS, "b", plan(OUT), replace=True)


# ---- the command


def test_a_schedule_from_add_to_rm(reclane: Reclane, raw: "redis.Redis", tmp_path: Path) -> None:
    spec = ("/data/users.csv", "--out", str(tmp_path / "recs"), "--set", "k=20")
    when = ("--cron", "30 2 * * *", "--tz", "Europe/Berlin", "--within", "2h")
    added = reclane("schedule", "add", NIGHTLY, *spec, *when)
    assert "02:30 Europe/Berlin" in added.stdout
    assert "no beat is running" in added.stderr
    assert "--replace" in reclane("schedule", "add", NIGHTLY, *spec, *when, code=1).stderr
    (listed,) = reclane.json("schedule", "list")
    assert (listed["name"], listed["cron"], listed["tz"]) == (
        NIGHTLY,
        "30 2 * * *",
        "Europe/Berlin",
    )
    assert (listed["within_s"], listed["paused"], listed["run"]) == (7_200, False, None)
    assert listed["spec"]["source"]["defaults"] == {"k": 20}
    assert listed["next_local"].partition("+")[0].endswith("T02:30:00")

    assert "paused" in reclane("schedule", "pause", NIGHTLY).stdout
    assert "paused" in reclane("schedule", "list").stdout
    assert "02:30" in reclane("schedule", "resume", NIGHTLY).stdout

    run_id = reclane("schedule", "run-now", NIGHTLY).stdout.strip()
    assert begun(raw) == [run_id]
    assert "still running" in reclane("schedule", "run-now", NIGHTLY, code=1).stderr
    rewind(raw, KEYS)
    assert give_turn(raw).skipped
    shown = reclane("schedule", "list").stdout
    for part in (run_id, "running", "skipped", "Europe/Berlin", "02:30"):
        assert part in shown

    assert "--yes" in reclane("schedule", "rm", NIGHTLY, code=2).stderr
    reclane("schedule", "rm", NIGHTLY, "--yes")
    assert reclane.json("schedule", "list") == []
    assert begun(raw) == [run_id]
    assert "schedule list" in reclane("schedule", "pause", NIGHTLY, code=1).stderr


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--cron", "0 25 * * *"), 65, "Bad hour"),
        (("--cron", "0 3 * * *", "--tz", "Europe/Berln"), 65, "write Europe/Berlin"),
        (("--cron", "0 3 * * *", "--within", "2"), 2, "write 90s"),
        (("--cron", "0 3 * * *", "--within", "5s"), 65, "60 s is the least"),
        (("--cron", "0 3 * * *", "--ttl", "5"), 2, "--out is no Redis"),
        ((), 2, "--cron"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    reclane: Reclane, raw: "redis.Redis", options: tuple[str, ...], code: int, told: str
) -> None:
    arguments = ("schedule", "add", NIGHTLY, "/data/users.csv", "--out", "/recs", *options)
    assert told in reclane(*arguments, code=code).stderr
    assert raw.keys() == []


def test_the_list_shows_no_password(reclane: Reclane) -> None:
    source = ("postgresql://me:zqsecret@db/shop", "--from-table", "users")
    sink = ("--out", "redis://:zqsecret@cache/0", "--ttl", "60")
    told = reclane("schedule", "add", NIGHTLY, *source, *sink, "--cron", "0 3 * * *", "--json")
    assert json.loads(told.stdout)["spec"]["sink"]["kind"] == "redis"
    listed = reclane("schedule", "list", "--json").stdout
    assert "zqsecret" not in told.stdout + listed + reclane("schedule", "list").stdout
