"""Workers as monitors and operators see them: a stock Celery worker beside the lane.

The second half of the README's table; the first is in `test_parity.py`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TimeoutError as NotYet
from celery.result import AsyncResult

from parity import BAD, DIFFERENT, KEPT, NOT_KEPT, SLOW, SPACE, STOCK, Side, Sides, Watching
from reclane import names
from support import DEADLINE_S, KEYS, eventually

row = pytest.mark.parity


@pytest.fixture
def watching(sides: Sides) -> Iterator[dict[str, Watching]]:
    made = {side.kind: Watching(side) for side in sides.all}
    for side in sides.all:
        eventually(partial(len, made[side.kind].events), "a heartbeat")
        side.tell("enable_events")
    yield made
    for side in sides.all:
        side.tell("disable_events")
        made[side.kind].close()


# ---- inspect


@row("`inspect ping`, `registered`", KEPT)
def test_ping_and_registered(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        return side.ask("ping"), side.ask("registered"), side.ask("scheduled")

    assert sides.same(observe) == ({"ok": "pong"}, [names.BULK_START, *names.LANE_TASKS], [])


@row("`inspect active`, `reserved`, `query_task`", DIFFERENT)
def test_what_a_worker_holds(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        side.tell("cancel_consumer", names.INTERACTIVE_QUEUE)
        side.outcome(side.send(SPACE, queue=names.BULK_QUEUE))  # a fetch was under way
        running, waiting = side.send(SLOW), side.send(SLOW)
        side.tell("add_consumer", names.INTERACTIVE_QUEUE)
        eventually(lambda: side.holding("active", running), "the worker has one")
        eventually(lambda: side.holding("reserved", waiting), "the worker has another")
        shown = [*side.ask("active"), *side.ask("reserved")]
        ids = [running.id, waiting.id, "unknown"]
        states = {ids.index(i): state for i, (state, _) in side.ask("query_task", ids).items()}
        for result in (running, waiting):
            side.outcome(result)
        eventually(lambda: not side.ask("active"), "it is known to have ended")
        return [comparable(one, running, waiting) for one in shown], states, shown

    stock, lane = sides.both(observe)
    assert lane[:2] == stock[:2]
    assert [one["id"] for one in lane[0]] == ["first", "second"]
    assert lane[1] == {0: "active", 1: "reserved"}
    for one in lane[2]:  # differently: request text is hidden, and nothing is let go early
        assert (one["args"], one["kwargs"], one["acknowledged"]) == ("-", "-", False)


def comparable(info: dict[str, Any], *results: AsyncResult) -> dict[str, Any]:
    """A request's information without what differs from run to run, or on purpose."""
    labels = dict(zip([result.id for result in results], ["first", "second"], strict=False))
    dropped = ("args", "kwargs", "acknowledged")
    plain = {key: value for key, value in info.items() if key not in dropped}
    plain |= {"id": labels[info["id"]], "hostname": bool(info["hostname"])}
    return plain | {key: bool(info[key]) for key in ("time_start", "worker_pid")}


@row("`inspect scheduled`", DIFFERENT)
def test_what_is_scheduled(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        due = datetime.now(UTC) + timedelta(seconds=2)
        result = side.send(SPACE, eta=due)
        eventually(lambda: side.holding("scheduled", result), "the worker knows of it")
        (shown,) = side.ask("scheduled")
        ((state, _),) = side.ask("query_task", [result.id]).values()
        near = abs(datetime.fromisoformat(shown["eta"]) - due) < timedelta(milliseconds=2)
        side.outcome(result)
        after = side.ask("scheduled")
        shared = shown["request"]
        return near, state, shown["priority"], comparable(shared, result), after, shared["args"]

    stock, lane = sides.both(observe)
    assert lane[:-1] == stock[:-1]
    assert lane[:2] == (True, "scheduled")
    assert lane[-1] == "-"


@row("`inspect stats`", KEPT)
def test_statistics(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        def total() -> int:
            return int(side.ask("stats")["total"].get(names.RECOMMEND, 0))

        before = total()
        for wish in (SPACE, BAD, SPACE):
            side.outcome(side.send(wish))
        side.outcome(side.send(SPACE, expires=-1))  # not counted
        side.outcome(side.send(SPACE, queue=names.TASKS_QUEUE))
        return total() - before, sorted(set(side.ask("stats")) - {"reclane"})

    assert sides.same(observe)[0] == 4
    assert sides.all[1].ask("stats")["reclane"]["queues"] == list(names.LANE_QUEUES)


# ---- queues


@row("`inspect active_queues`", KEPT)
def test_queues_are_shown(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        return sorted(side.ask("active_queues"), key=lambda queue: str(queue["name"]))

    assert len(sides.same(observe)) == 3


@row("`cancel_consumer`, `add_consumer`", KEPT)
def test_queues_are_paused_and_resumed(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        said = [side.tell("cancel_consumer", names.INTERACTIVE_QUEUE)]
        eventually(lambda: len(side.ask("active_queues")) == 2, "one queue less is taken")
        side.outcome(side.send(SPACE, queue=names.BULK_QUEUE))  # a fetch was under way
        paused = side.send(SPACE)
        side.outcome(side.send(SPACE, queue=names.BULK_QUEUE))
        states = [paused.state, side.raw.llen(names.INTERACTIVE_QUEUE)]
        said += [side.tell("add_consumer", names.INTERACTIVE_QUEUE)]
        outcome = side.outcome(paused)
        said += [side.tell("add_consumer", "others")]
        # one at a time: Celery keeps no order among what is pending
        eventually(lambda: len(side.ask("active_queues")) == 4, "one queue more is taken")
        said += [side.tell("cancel_consumer", "others")]
        eventually(lambda: len(side.ask("active_queues")) == 3, "all are taken again")
        return said, states, outcome["state"]

    said, states, after = sides.same(observe)
    assert (states, after) == (["PENDING", 1], "SUCCESS")
    assert said[0] == {"ok": "no longer consuming from reclane.interactive"}


def test_a_paused_queue_does_not_wake_the_lane(sides: Sides) -> None:
    side = sides.all[1]
    for queue in names.LANE_QUEUES:
        side.tell("cancel_consumer", queue)
    eventually(lambda: len(side.ask("active_queues")) == 1, "no lane queue is taken")
    side.outcome(side.send(SPACE, queue=names.TASKS_QUEUE))

    def scripts() -> int:
        return int(side.raw.info("commandstats")["cmdstat_evalsha"]["calls"])

    before = scripts()
    results = [side.send(SPACE) for _ in range(100)]
    assert scripts() - before < 50  # renewals and idle looks only
    for queue in names.LANE_QUEUES:
        side.tell("add_consumer", queue)
    assert {side.outcome(result)["state"] for result in results} == {"SUCCESS"}


# ---- the worker


@pytest.mark.parametrize("how", ["SIGTERM", "remote"])
@row("warm shutdown by SIGTERM, and remote `shutdown`", KEPT)
def test_warm_shutdown(sides: Sides, how: str) -> None:
    def observe(side: Side) -> Any:
        running = side.run_slow()
        waiting = [side.send(SPACE) for _ in range(4)]
        if how == "remote":
            side.app.control.shutdown()
            code = side.worker.wait()
        else:
            code = side.worker.stop()
        seen = code, running.state, [result.state for result in waiting]
        left = side.raw.llen(names.INTERACTIVE_QUEUE)
        side.start()
        return *seen, left, [side.outcome(result)["state"] for result in waiting]

    assert sides.same(observe) == (0, "SUCCESS", ["PENDING"] * 4, 4, ["SUCCESS"] * 4)


@row("`acks_late`", DIFFERENT)
def test_acknowledging_late(sides: Sides) -> None:
    """A stock worker lets go of a message when it starts on it; the lane, with its result."""

    def observe(side: Side) -> Any:
        running = side.run_slow()
        if side.kind == STOCK:
            eventually(lambda: not side.raw.exists("unacked"), "it is acknowledged")
        side.worker.kill()
        held = sum(side.raw.hlen(key) for key in side.raw.scan_iter(KEYS.inflight("*")))
        held += side.raw.llen(names.INTERACTIVE_QUEUE)
        side.start()
        if held:
            side.outcome(running)
        return held, running.state

    assert sides.both(observe) == ((0, "PENDING"), (1, "SUCCESS"))


@row("`rate_limit`", NOT_KEPT)
def test_rate_limits(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        said = side.tell("rate_limit", names.RECOMMEND, "1/h")
        results = [side.send(SPACE) for _ in range(2)]
        side.outcome(results[0])
        try:
            results[1].get(timeout=2 if side.kind == STOCK else DEADLINE_S)
            held = False
        except NotYet:
            held = True
        side.restart()  # lifting the limit would leave it where it waits
        return said, held, side.outcome(results[1])["state"]

    stock, lane = sides.both(observe)
    assert stock[0] == lane[0]
    assert (stock[1], lane[1]) == (True, False)


@row("time limits: without effect, as on every threads pool", KEPT)
def test_time_limits(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        said = side.tell("time_limit", names.RECOMMEND, 0.2, 0.1)
        states = [side.outcome(side.send(SLOW, time_limit=0.2, soft_time_limit=0.1))["state"]]
        side.tell("time_limit", names.RECOMMEND, None, None)
        return said, states

    assert sides.same(observe)[1] == ["SUCCESS"]


@row("`pool_restart`, `pool_grow`, `pool_shrink`, `autoscale`: of Celery's own pool", KEPT)
def test_pools(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        said = [side.tell(name, 1) for name in ("pool_grow", "pool_shrink")]
        return said, side.tell("pool_restart"), side.tell("autoscale", 2, 1)

    assert "error" in sides.same(observe)[1]


# ---- settings of the app


@row("`result_extended`", KEPT)
@row("`task_track_started`", NOT_KEPT)
def test_extended_results(others: Sides) -> None:
    others.start(app="configured_worker")

    def observe(side: Side) -> Any:
        stored = []
        for wish in (SPACE, BAD):
            result = side.send(wish)
            side.outcome(result)
            found = side.meta(result)
            stored.append({key: found[key] for key in ("name", "args", "kwargs", "queue")})
            stored.append(dict.fromkeys(found))
        return stored

    assert others.same(observe)[0]["name"] == names.RECOMMEND

    def started(side: Side) -> bool:
        running = side.run_slow()
        seen = running.state == "STARTED"
        side.outcome(running)
        return seen

    assert others.both(started) == (True, False)


# ---- signals and events


@row("signals: received, prerun, postrun, success, failure, revoked; their sender", KEPT)
def test_signals(others: Sides, tmp_path: Path) -> None:
    def observe(side: Side) -> Any:
        seen = tmp_path / f"{side.kind}.signals"
        seen.touch()
        side.start(app="listening_worker", environment={"SIGNALS_SEEN": str(seen)})
        results = [side.send(SPACE), side.send(BAD), side.send(SPACE, expires=-1)]
        outcomes = [side.outcome(result) for result in results]
        revoked = side.send(SPACE, countdown=2)
        eventually(lambda: side.holding("scheduled", revoked), "the worker knows of it")
        side.tell("revoke", revoked.id)
        last = f"revoked {revoked.id}"
        eventually(lambda: last in seen.read_text(), "the last signal")
        lines = [line.split() for line in seen.read_text().splitlines()]
        ids = [result.id for result in (*results, revoked)]
        return [[(n, known) for n, i, known in lines if i == one] for one in ids], outcomes

    signals, _ = others.same(observe)
    names_ = [[name for name, _ in of_one] for of_one in signals]
    assert names_ == [
        ["received", "prerun", "success", "postrun-SUCCESS"],
        ["received", "prerun", "failure-RequestFailed", "postrun-FAILURE"],
        ["expired"],
        ["received", "revoked"],
    ]
    assert {known for of_one in signals for _, known in of_one} == {"True"}


@row("task events, as Flower and `celery events` read them", DIFFERENT)
def test_task_events(sides: Sides, watching: dict[str, Watching]) -> None:
    def observe(side: Side) -> Any:
        monitor = watching[side.kind]
        results = [side.send(SPACE), side.send(BAD), side.send(SPACE, expires=-1)]
        revoked = side.send(SPACE, countdown=2)
        eventually(lambda: side.holding("scheduled", revoked), "the worker knows of it")
        side.tell("revoke", revoked.id)
        kinds = ("succeeded", "failed", "revoked", "revoked")
        pairs = zip([*results, revoked], kinds, strict=True)
        return [monitor.until(result, kind) for result, kind in pairs]

    stock, lane = sides.both(observe)
    vary = {"uuid", "timestamp", "local_received", "clock", "hostname", "pid", "root_id", "eta"}
    vary |= {"runtime"}
    hidden = {"args", "kwargs", "result", "traceback"}

    def comparable(seen: Any) -> Any:
        return [
            [{k: bool(v) if k in vary else v for k, v in e.items() if k not in hidden} for e in one]
            for one in seen
        ]

    assert comparable(lane) == comparable(stock)
    assert [sorted(event) for one in lane for event in one] == [
        sorted(event) for one in stock for event in one
    ]
    assert [[event["type"].removeprefix("task-") for event in one] for one in lane] == [
        ["received", "started", "succeeded"],
        ["received", "started", "failed"],
        ["revoked"],
        ["received", "revoked"],
    ]
    shown = [event[key] for one in lane for event in one for key in hidden & set(event)]
    assert set(shown) == {"-", ""}  # differently: no request text, and there is no traceback
    assert all(event["hostname"].startswith("w") for one in lane for event in one)


@row("a monitor's view: `celery.events.State`, counts in heartbeats", KEPT)
def test_a_monitors_view(sides: Sides, watching: dict[str, Watching]) -> None:
    def observe(side: Side) -> Any:
        monitor = watching[side.kind]

        def processed() -> int:
            return max(int(event.get("processed", 0)) for event in monitor.events)

        side.outcome(side.send(SPACE))  # in a process of its own, this test runs first
        eventually(processed, "a heartbeat with counts")
        before, running = processed(), side.run_slow()
        eventually(lambda: any(e.get("active") for e in monitor.events), "an active one")
        eventually(lambda: processed() > before, "one more was taken on")
        monitor.until(running, "succeeded")
        state = side.app.events.State()
        for event in list(monitor.events):
            state.event(dict(event))
        task, (worker,) = state.tasks[running.id], state.workers.values()
        times = task.received <= task.started <= task.succeeded
        return task.name, task.state, times, worker.alive, task.worker is worker

    assert sides.same(observe) == (names.RECOMMEND, "SUCCESS", True, True, True)


@row("`enable_events`, `disable_events`", KEPT)
def test_events_are_switched(sides: Sides, watching: dict[str, Watching]) -> None:
    def observe(side: Side) -> Any:
        monitor = watching[side.kind]
        said = [side.tell("disable_events")]
        silent = side.send(SPACE)
        side.outcome(silent)
        side.outcome(side.send(SPACE))  # by then, what was due of the one before has been sent
        said += [side.tell("enable_events")]
        heard_ = side.send(SPACE)
        monitor.until(heard_, "succeeded")
        return said, len(monitor.of(silent))

    assert sides.same(observe)[1] == 0
