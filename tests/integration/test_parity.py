"""Celery features, each observed on a stock Celery worker and on the lane: the README's table.

Every test declares its row, here and in `test_parity_control.py`; `tests/unit/test_readme.py`
holds the table to these tests.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group

from parity import BAD, DIFFERENT, KEPT, NOT_KEPT, SPACE, Side, Sides
from reclane import RequestFailed, names
from reclane.wire import decode_result
from reclane_worker import app as reclane_app
from reclane_worker.app import local_pipeline
from support import DEADLINE_S, KEYS, eventually

row = pytest.mark.parity


# ---- sending and results


@row("positional and keyword arguments", KEPT)
def test_arguments(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        keywords = side.app.send_task(names.RECOMMEND, kwargs=SPACE, queue=names.INTERACTIVE_QUEUE)
        return [
            side.outcome(result) for result in (side.send(SPACE), keywords, side.send(SPACE, 3))
        ]

    positional, keywords, mixed = sides.same(observe)
    assert positional == keywords
    assert len(positional["items"]) == 3
    assert mixed["args"][1] == "malformed_message"


@row("`AsyncResult`: state, `get`, `date_done`, `children`, `forget`", KEPT)
def test_results(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        result = side.send(SPACE)
        seen = [side.outcome(result), sorted(side.meta(result)), result.successful()]
        seen += [result.children, type(result.date_done), result.traceback]
        inner = chain(side.step(SPACE), side.step(SPACE), app=side.app).apply_async()
        inner.get(timeout=DEADLINE_S)
        seen += [sorted(side.meta(inner)), len(inner.parent.children)]
        seen += [side.meta(inner)["parent_id"] == inner.parent.id]
        result.forget()
        return [*seen, result.state, side.raw.exists(KEYS.result(result.id))]

    assert sides.same(observe)[-3:] == [True, "PENDING", 0]


@row("a failure: typed exception, message, `propagate=False`", KEPT)
def test_failures(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        result = side.send(BAD)
        with pytest.raises(RequestFailed) as raised:
            result.get(timeout=DEADLINE_S)
        error = raised.value
        seen = side.outcome(result), sorted(side.meta(result)), result.failed()
        return *seen, str(error), error.code, error.retry

    assert sides.same(observe)[-2:] == ("invalid_request", False)


@row("a task of another name on a lane queue", DIFFERENT)
def test_unknown_tasks(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        result = side.app.send_task("somebody.elses", queue=names.INTERACTIVE_QUEUE)
        outcome = side.outcome(result)
        return outcome["state"], outcome["error"], side.raw.llen(KEYS.dead_letters)

    stock, lane = sides.both(observe)
    assert stock == ("FAILURE", "NotRegistered", 0)
    assert lane == ("FAILURE", "RequestFailed", 1)


@row("`traceback` of a failure", NOT_KEPT)
def test_tracebacks(sides: Sides) -> None:
    def observe(side: Side) -> bool:
        result = side.send(BAD)
        side.outcome(result)
        return bool(result.traceback)

    assert sides.both(observe) == (True, False)


@row("`result_expires`", KEPT)
def test_results_expire(sides: Sides) -> None:
    def observe(side: Side) -> bool:
        result = side.send(SPACE)
        side.outcome(result)
        return 300 < side.raw.ttl(KEYS.result(result.id)) <= 600

    assert sides.same(observe)


@row("`ignore_result`", KEPT)
def test_results_are_ignored(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        ignored = [side.send(wish, ignore_result=True) for wish in (SPACE, BAD)]
        side.outcome(side.send(SPACE))  # one after another: by now both are done
        return [(one.state, side.raw.exists(KEYS.result(one.id))) for one in ignored]

    assert sides.same(observe) == [("PENDING", 0)] * 2


@row("`task_always_eager`", KEPT)
def test_eager(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = sides.all[1].worker
    for name in ("RECLANE_MODEL", "RECLANE_CATALOG", "RECLANE_REDIS_URL"):
        monkeypatch.setenv(name, worker.environment[name])
    local_pipeline.cache_clear()
    reclane_app.conf.task_always_eager = True
    try:
        task = reclane_app.tasks[names.RECOMMEND]
        items = [item["id"] for item in task.delay(SPACE).get()["items"]]
        failure = task.delay(BAD)
    finally:
        reclane_app.conf.task_always_eager = False
        local_pipeline.cache_clear()

    def observe(side: Side) -> Any:
        return [side.outcome(side.send(wish)) for wish in (SPACE, BAD)]

    answer, refusal = sides.same(observe)
    assert items == answer["items"]
    assert (failure.state, failure.result.args) == (refusal["state"], refusal["args"])


# ---- time


@row("`expires`, in seconds and as a date", KEPT)
def test_expiry(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        now = datetime.now(UTC)
        busy = side.run_slow()
        wishes = (
            *(0.001, 60, now - timedelta(seconds=1), now + timedelta(seconds=60)),
            now.replace(tzinfo=None) - timedelta(seconds=1),
        )
        results = [side.send(SPACE, expires=wish) for wish in wishes]
        side.outcome(busy)
        return [side.outcome(result) for result in results]

    seen = sides.same(observe)
    assert [one["state"] for one in seen] == ["REVOKED", "SUCCESS", "REVOKED", "SUCCESS", "REVOKED"]
    assert seen[0]["args"] == ("expired",)


@row("`eta` and `countdown`", KEPT)
def test_schedules(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        due = datetime.now(UTC) + timedelta(seconds=1)
        results = [side.send(SPACE, eta=due), side.send(SPACE, countdown=1), side.send(SPACE)]
        seen = [side.outcome(result) for result in results]
        return seen, [result.date_done.replace(tzinfo=UTC) >= due for result in results]

    assert sides.same(observe)[1] == [True, True, False]


@row("`eta` and `countdown` across a restart of the worker", KEPT)
def test_schedules_outlive_a_restart(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        due = datetime.now(UTC) + timedelta(seconds=5)
        result = side.send(SPACE, eta=due)
        eventually(lambda: side.holding("scheduled", result), "the worker knows of it")
        code = side.restart()
        return code, side.outcome(result), result.date_done.replace(tzinfo=UTC) >= due

    code, outcome, late = sides.same(observe)
    assert (code, outcome["state"], late) == (0, "SUCCESS", True)


@row("priorities 0 to 9, 0 first", KEPT)
def test_priorities(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        code = side.worker.stop()
        sent = {priority: side.send(SPACE, priority=priority) for priority in range(9, -1, -1)}
        side.start()
        for result in sent.values():
            side.outcome(result)
        return code, sorted(sent, key=lambda priority: sent[priority].date_done)

    assert sides.same(observe) == (0, [2, 1, 0, 5, 4, 3, 8, 7, 6, 9])


# ---- canvas


@row("`link`", KEPT)
def test_links(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        result = side.send(SPACE, link=side.listener("links"))
        outcome = side.outcome(result)
        task, (answer,) = side.heard("links")
        again = side.send(SPACE, link=side.step(SPACE))
        side.outcome(again)
        (child,) = again.children
        return outcome, task, [i["id"] for i in answer["items"]], side.outcome(child)

    outcome, task, items, child = sides.same(observe)
    assert (task, items, child) == ("somebody.listens", outcome["items"], outcome)


@row("`link_error`", KEPT)
def test_errbacks(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        result = side.send(BAD, link_error=side.listener("errors"))
        outcome = side.outcome(result)
        task, args = side.heard("errors")
        ignored = side.send(BAD, link_error=side.listener("errors"), ignore_result=True)
        _, ignored_args = side.heard("errors")
        return outcome["error"], task, args == [result.id], ignored_args == [ignored.id]

    assert sides.same(observe) == ("RequestFailed", "somebody.listens", True, True)


@row("chain", KEPT)
def test_chains(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        good = chain(*[side.step(SPACE)] * 3, app=side.app).apply_async()
        broken = chain(side.step(SPACE), side.step(BAD), side.step(SPACE), app=side.app)
        last = broken.apply_async()
        outcomes = [side.outcome(one) for one in (good, good.parent, good.parent.parent)]
        return outcomes, side.outcome(last.parent), last.state

    outcomes, failed, unreached = sides.same(observe)
    assert [one["state"] for one in outcomes] == ["SUCCESS"] * 3
    assert (failed["error"], unreached) == ("RequestFailed", "FAILURE")


@row("group", KEPT)
def test_groups(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        result = group([side.step(SPACE), side.step(BAD), side.step(SPACE)], app=side.app)()
        outcomes = [side.outcome(one) for one in result.results]
        return outcomes, result.completed_count(), result.failed(), grouped(side, result)

    def grouped(side: Side, result: Any) -> bool:
        return all(side.meta(one)["group_id"] == result.id for one in result.results)

    assert sides.same(observe)[1:] == (2, True, True)


@row("chord", KEPT)
def test_chords(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        good = chord([side.step(SPACE)] * 3, app=side.app)(side.listener("chords"))
        task, (answers,) = side.heard("chords")
        broken = chord([side.step(SPACE), side.step(BAD)], app=side.app)(side.step(SPACE))
        errors = [side.outcome(broken)["error"]]
        late = side.step(SPACE, countdown=2, task_id=f"late-{uuid4()}")
        without = chord([side.step(SPACE), late], app=side.app)(side.step(SPACE))
        eventually(lambda: side.holding("scheduled", late), "the worker knows of it")
        side.tell("revoke", late.id)
        errors += [side.outcome(without)["error"]]
        return task, [len(answer["items"]) for answer in answers], good.state, errors

    seen = sides.same(observe)
    assert seen == ("somebody.listens", [3, 3, 3], "PENDING", ["ChordError", "ChordError"])


# ---- revoking


@row("`revoke` before the run", KEPT)
def test_revoking_before_the_run(sides: Sides) -> None:
    def observe(side: Side) -> Any:
        busy = side.run_slow()
        queued, parked = side.send(SPACE), side.send(SPACE, countdown=2)
        side.tell("revoke", [queued.id, parked.id])
        done = side.outcome(busy), side.outcome(queued), side.outcome(parked)
        side.tell("revoke", busy.id)
        flagged = {queued.id, parked.id, busy.id} <= set(side.ask("revoked"))
        return *done, busy.state, flagged

    _, queued, parked, late, flagged = sides.same(observe)
    assert (
        queued == parked == {"state": "REVOKED", "error": "TaskRevokedError", "args": ("revoked",)}
    )
    assert (late, flagged) == ("SUCCESS", True)


@row("`revoke` during the run", DIFFERENT)
def test_revoking_during_the_run(sides: Sides) -> None:
    def observe(side: Side) -> list[str]:
        seen = []
        for terminate in (False, True):
            running = side.run_slow()
            side.app.control.revoke(running.id, terminate=terminate)
            eventually(lambda one=running: one.id in side.ask("revoked"), "it is flagged")
            eventually(lambda one=running: not side.holding("active", one), "its run is over")
            seen.append(running.get(timeout=DEADLINE_S, propagate=False) and running.state)
        return seen

    stock, lane = sides.both(observe)
    assert lane == ["REVOKED", "REVOKED"]
    assert stock[0] == "SUCCESS"


@row("`revoke` across a restart, with `--statedb`", KEPT)
def test_revocations_outlive_a_restart(others: Sides, tmp_path: Path) -> None:
    def observe(side: Side) -> Any:
        database = ["--statedb", str(tmp_path / f"{side.kind}.state")]
        side.start(arguments=database)
        result = side.send(SPACE, countdown=4)
        eventually(lambda: side.holding("scheduled", result), "the worker knows of it")
        side.tell("revoke", result.id)
        stored = result.state
        side.raw.delete(KEYS.result(result.id))  # so that only the database remembers
        side.restart(arguments=database)
        known = result.id in side.ask("revoked")
        eventually(lambda: side.raw.exists(KEYS.result(result.id)), "it has ended once more")
        # Read from the server: the client has heard of the first revocation, and remembers it.
        return stored, known, decode_result(side.raw.get(KEYS.result(result.id))).status

    assert others.same(observe) == ("REVOKED", True, "REVOKED")


@row("`revoke_by_stamped_headers`", NOT_KEPT)
def test_revoking_by_stamps(sides: Sides) -> None:
    def observe(side: Side) -> str:
        side.app.control.revoke_by_stamped_headers({"shop": ["seven"]}, reply=True)
        stamps = {"stamped_headers": ["shop"], "stamps": {"shop": "seven"}}
        state: str = side.outcome(side.send(SPACE, headers=stamps))["state"]
        return state

    assert sides.both(observe) == ("REVOKED", "SUCCESS")
