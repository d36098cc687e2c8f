"""What the lane's thread does with bulk that waits to be prepared."""

import threading
from typing import Any

import pytest

from reclane_worker.loop import LaneLoop


class Portions:
    """Bulk in portions; notes what happens."""

    def __init__(self, many: int, told: list[str]) -> None:
        self.bulk = list(range(many))
        self._told = told

    def portion(self, leased: Any) -> list[Any]:
        self._told.append(f"portion {self.bulk.pop(0)}")
        return []


class Watch:
    """Something happens before it is asked for this time."""

    def __init__(self, at: int) -> None:
        self.left = at

    def woken(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize(
    ("many", "at", "prepared", "asked"), [(3, 9, 3, 2), (3, 1, 1, 1), (3, 2, 2, 2), (1, 1, 1, 0)]
)
def test_nobody_sleeps_on_what_was_heard_while_bulk_was_prepared(
    many: int, at: int, prepared: int, asked: int
) -> None:
    """Who listens hears of everything once: only while some bulk is left, with which the loop
    goes on at once, may it be heard here."""
    told: list[str] = []
    loop: Any = LaneLoop.__new__(LaneLoop)
    loop._intake = Portions(many, told)
    loop._draining = threading.Event()
    loop._ready = type("Ready", (), {"add": lambda self, batches: None})()
    loop._launch = lambda leased: None
    loop._watch = Watch(at)
    loop._prepare_bulk(None)
    assert len(told) == prepared
    assert loop._watch.left == at - asked
