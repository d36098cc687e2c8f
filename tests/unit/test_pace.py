"""Pace is measured only while work waits."""

import pytest

from reclane_worker.pace import Pace


def test_nothing_done_is_no_pace() -> None:
    pace = Pace()
    assert pace.per_second() is None
    pace.landed(10, 1.0, True)
    assert pace.per_second() is None  # nobody knows since when it worked on these


def test_it_is_requests_by_the_time_between_batches() -> None:
    pace = Pace()
    for second in range(5):
        pace.landed(20, second * 0.5, True)
    assert pace.per_second() == pytest.approx(40.0)


def test_idle_time_does_not_count() -> None:
    pace = Pace()
    pace.landed(10, 0.0, True)
    pace.landed(10, 1.0, False)
    pace.landed(1, 100.0, False)
    pace.landed(1, 200.0, True)
    pace.landed(10, 201.0, False)
    assert pace.per_second() == pytest.approx(10.0)


def test_only_recent_batches_count() -> None:
    pace = Pace()
    pace.landed(1, 0.0, True)
    pace.landed(1, 1_000.0, True)
    for second in range(64):
        pace.landed(5, 1_001.0 + second, True)
    assert pace.per_second() == pytest.approx(5.0)
