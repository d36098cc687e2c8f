"""Bulk is prepared a portion at a time, and grouped only when all of it is."""

from typing import Any

from reclane import wire
from reclane.contract import RecommendRequest
from reclane_worker.lane import Entry
from reclane_worker.portions import PORTION, Portions
from reclane_worker.triage import Job

MESSAGE = wire.Message("t-1", "reclane.recommend", [{}], {}, {}, {}, {}, None, None, None)


def job(letters: int) -> Job:
    request = RecommendRequest(query="x" * letters)
    return Job(Entry("1:1:1", "reclane.bulk", b"", 0), MESSAGE, request, 0.0)


def prepared(jobs: list[Job]) -> list[tuple[Job, Any]]:
    return [(one, None) for one in jobs]


def test_portions_hold_every_request_once_and_in_order() -> None:
    jobs = [job(10 + n) for n in range(200)]
    portions = Portions()
    portions.add(jobs)
    taken = []
    while portion := portions.take():
        taken.append(portion)
    assert [one for portion in taken for one in portion] == jobs
    assert len(taken) > 3


def test_a_portion_ends_with_the_text_that_fills_it() -> None:
    portions = Portions()
    portions.add([job(PORTION), job(1), job(1)])
    assert [len(portions.take()), len(portions.take()), len(portions.take())] == [1, 2, 0]


def test_nothing_is_grouped_before_the_last_portion() -> None:
    portions = Portions()
    jobs = [job(PORTION), job(PORTION)]
    portions.add(jobs)
    portions.put(prepared(portions.take()))
    assert portions.whole() == []
    assert len(portions) == 2
    portions.put(prepared(portions.take()))
    assert portions.whole() == prepared(jobs)
    assert not portions


def test_what_was_recovered_by_others_is_forgotten() -> None:
    portions = Portions()
    portions.add([job(PORTION), job(1)])
    portions.put(prepared(portions.take()))
    portions.clear()
    assert not portions
    assert portions.take() == []
    assert portions.whole() == []
