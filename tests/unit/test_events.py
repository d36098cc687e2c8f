"""Task events are best effort: whatever is wrong with their channel, the lane goes on."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from reclane import wire
from reclane.contract import Failure
from reclane_worker.celery_side.events import MAX_WAITING, Outcome, TaskEvents
from reclane_worker.lane import Entry
from reclane_worker.triage import Job, Triage
from support import DEADLINE_S, eventually


class Dispatcher(SimpleNamespace):
    enabled = True
    groups: set[str]


def worker(connect: Any = None, **dispatcher: Any) -> Any:
    """As much of a Celery worker as its events look at."""
    app = Celery("events", broker="memory://", set_as_current=False)
    if connect:
        app.connection_for_write = connect
    consumer = SimpleNamespace(event_dispatcher=Dispatcher(**{"groups": set(), **dispatcher}))
    return SimpleNamespace(app=app, hostname="w@here", consumer=consumer)


def message(task_id: str = "t-1") -> wire.Message:
    args = [{"query": "secretword"}]
    return wire.Message(task_id, "reclane.recommend", args, {}, {}, {}, {}, None, None, None)


def job(task_id: str = "t-1") -> Job:
    entry = Entry(task_id, "reclane.interactive", b"", 0)
    request: Any = None
    return Job(entry, message(task_id), request, 0.0)


def waiting(events: TaskEvents) -> list[str]:
    """What was left for the thread, as task id and type."""
    lists = [events._lists.get_nowait() for _ in range(events._lists.qsize())]
    return [f"{e['uuid']} {e['type']}" for one in lists if one for e in one]


def test_a_broken_channel_costs_events_and_nothing_else() -> None:
    tried = threading.Semaphore(0)

    def broken() -> Any:
        tried.release()
        raise OSError("no route")

    events = TaskEvents(worker(broken))
    events.start()
    for _ in range(3):
        events.started([message()])
    for _ in range(3):
        assert tried.acquire(timeout=DEADLINE_S)
    events.started([message(), message()])
    eventually(lambda: events.dropped == 5, "all are counted as dropped")
    events.stop()
    assert not events.is_alive()


def test_a_stalled_channel_drops_what_is_over_the_bound() -> None:
    events = TaskEvents(worker())  # nobody takes from it: the thread does not run
    for _ in range(MAX_WAITING + 2):
        events.started([message(), message()])
    assert events.dropped == 4
    assert len(waiting(events)) == 2 * MAX_WAITING


@pytest.mark.parametrize(
    ("dispatcher", "wanted"),
    [
        ({"groups": set()}, True),
        ({"groups": {"worker", "task"}}, True),
        ({"groups": {"worker"}}, False),
        ({"enabled": False}, False),
    ],
)
def test_nothing_is_kept_unless_task_events_are_enabled(
    dispatcher: dict[str, Any], wanted: bool
) -> None:
    events = TaskEvents(worker(**dispatcher))
    events.received(Triage(jobs=[job()]))
    assert bool(waiting(events)) is wanted


def test_nothing_is_kept_before_celerys_consumer_is_there() -> None:
    for early in (SimpleNamespace(), SimpleNamespace(consumer=SimpleNamespace())):
        events = TaskEvents(early)
        events.started([message()])
        assert waiting(events) == []


def test_each_outcome_of_a_run_has_its_event() -> None:
    events = TaskEvents(worker())
    failure = Failure(code="x", message="y")
    outcomes: list[tuple[wire.Message, Outcome]] = [
        (message("a"), {"items": []}),
        (message("b"), failure),
        (message("c"), "revoked"),
    ]
    events.finished(outcomes, 0.5)
    assert waiting(events) == ["a task-succeeded", "b task-failed", "c task-revoked"]


def test_what_ends_without_a_run_starts_only_where_it_failed() -> None:
    events = TaskEvents(worker())
    broken = Failure(code="invalid_request", message="k: too small")
    events.ended([(message("late"), "expired"), (message("bad"), broken)])
    assert waiting(events) == ["late task-revoked", "bad task-started", "bad task-failed"]


def test_no_event_holds_request_text() -> None:
    events = TaskEvents(worker())
    events.received(Triage(jobs=[job()]))
    events.finished([(message(), {"items": [{"title": "secretword"}]})], 0.5)
    lists = [events._lists.get_nowait() for _ in range(2)]
    assert "secretword" not in str(lists)
