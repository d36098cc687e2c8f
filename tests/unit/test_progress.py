"""How a run's progress is told where there is no terminal."""

from typing import Any

import pytest

from reclane.bulk.runs import COUNTS, Run
from reclane.cli import progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(done: int, state: Any = "running", total: int | None = 10_000, **more: Any) -> Run:
    counts = {**dict.fromkeys(COUNTS, 0), **more.pop("counts", {})}
    trouble = more.get("trouble")
    return Run("r", state, "", 0.0, None, total, done, counts, trouble, read_whole=False)


def told(capsys: pytest.CaptureFixture[str], *looks: tuple[float, Run]) -> list[str]:
    clock = Clock()
    with progress.shown("r", clock) as show:
        for clock.now, one in looks:
            show(one)
    return capsys.readouterr().err.splitlines()


def test_a_line_comes_at_first_when_the_state_changes_and_every_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks = [(float(n), run(100 * n)) for n in range(21)]
    assert told(capsys, *looks, (21.0, run(2_100, "paused"))) == [
        "r: 0 of 10,000 rows",
        "r: 1,000 of 10,000 rows, 100/s, eta 90.0 s",
        "r: 2,000 of 10,000 rows, 100/s, eta 80.0 s",
        "r: 2,100 of 10,000 rows, 100/s, eta 79.0 s, paused",
    ]


def test_the_rate_is_that_of_the_last_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    slow = [(float(n), run(n)) for n in range(0, 100, 10)]
    fast = [(100.0 + n, run(1_000 * n)) for n in range(0, 50, 10)]
    assert "1,000/s" in told(capsys, *slow, *fast)[-1]


def test_without_a_total_there_is_a_rate_and_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    looks = [(0.0, run(0, total=None)), (10.0, run(500, total=None))]
    assert told(capsys, *looks)[-1] == "r: 500 rows, 50/s"


def test_failures_bad_rows_and_trouble_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"failed": 3, "bad": 2}
    full = run(500, counts=counts, trouble=("sink_full", "no room"))
    assert told(capsys, (0.0, full)) == [
        "r: 500 of 10,000 rows, 3 failed, 2 bad, no room [sink_full]"
    ]
