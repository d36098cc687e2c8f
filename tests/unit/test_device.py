"""Telling slow from stuck, and the device threads."""

import os
import sys
import threading

import pytest

from reclane_worker.device import Device, Overdue, Running, Stopwatch, bound_s, device_threads
from reclane_worker.settings import WorkerSettings

TICK_S = 1.0


def run(serial: int = 1, bound: float = 10.0, what: str = "a batch") -> Running:
    return Running(what, (bound - 5) / 4, serial)


def first_complaint(overdue: Overdue, running: list[Running], times: list[float]) -> float | None:
    """When `check` first gives a reason, walking through `times`."""
    return next((now for now in times if overdue.check(running, now)), None)


def ticks(start: float, stop: float) -> list[float]:
    return [start + n * TICK_S for n in range(int((stop - start) / TICK_S) + 1)]


# ---- stuck or not


@pytest.mark.parametrize(("predicted", "bound"), [(0.0, 5.0), (1.0, 9.0), (10.0, 45.0)])
def test_the_bound_is_five_seconds_and_four_times_the_prediction(
    predicted: float, bound: float
) -> None:
    assert bound_s(predicted) == bound


def test_nothing_running_is_never_stuck() -> None:
    assert first_complaint(Overdue(TICK_S), [], ticks(0, 1_000)) is None


def test_work_is_stuck_once_past_its_bound_and_not_before() -> None:
    assert first_complaint(Overdue(TICK_S), [run(bound=10.0)], ticks(100, 200)) == 111


def test_the_reason_names_the_work_and_its_bound() -> None:
    overdue = Overdue(TICK_S)
    reasons = [overdue.check([run(bound=6.0, what="the batch")], now) for now in ticks(0, 7)]
    assert reasons[:7] == [None] * 7
    assert reasons[7] == "the batch is stuck: over its bound of 6.0 s"


def test_a_suspended_process_is_not_stuck() -> None:
    overdue = Overdue(TICK_S)
    assert first_complaint(overdue, [run(bound=10.0)], [0, 1, 2, 3_600, 3_601, 3_602]) is None


def test_after_a_suspension_work_may_still_become_stuck() -> None:
    overdue = Overdue(TICK_S)
    assert first_complaint(overdue, [run(bound=10.0)], [0, 1, *ticks(3_600, 3_700)]) == 3_608


def test_ticks_that_come_late_still_count_up_to_twice_their_length() -> None:
    late = [n * 1.8 for n in range(20)]
    stuck_at = first_complaint(Overdue(TICK_S), [run(bound=10.0)], late)
    assert stuck_at == pytest.approx(6 * 1.8)


def test_two_runs_side_by_side_are_timed_apart() -> None:
    overdue = Overdue(TICK_S)
    old, new = run(1, 10.0, "old"), run(2, 10.0, "new")
    for now in ticks(0, 8):
        assert overdue.check([old], now) is None
    assert overdue.check([old, new], 9) is None
    for now in ticks(10, 19):
        assert overdue.check([new], now) is None
    assert "new" in (overdue.check([new], 20) or "")


def test_many_short_runs_one_after_another_are_not_stuck() -> None:
    overdue = Overdue(TICK_S)
    for serial, now in enumerate(ticks(0, 1_000)):
        assert overdue.check([run(serial, 6.0)], now) is None


def test_work_past_its_predicted_end_is_late_long_before_it_is_stuck() -> None:
    overdue, batch = Overdue(TICK_S), [Running("the batch", 20.0, 1)]
    late = []
    for now in ticks(0, 30):
        assert overdue.check(batch, now) is None
        late.append(overdue.late(batch))
    assert late[:23] == [None] * 23
    assert late[23] == (
        "the batch should have ended after 20.0 s; it may be stuck, and ends the process after "
        "85.0 s"
    )
    assert overdue.late([]) is None


# ---- the stopwatch


def test_work_is_running_inside_the_body_only() -> None:
    watch = Stopwatch()
    with watch.watch("a", 1.0):
        (found,) = watch.running()
        assert (found.what, found.predicted_s) == ("a", 1.0)
    assert watch.running() == []


def test_work_that_raises_is_no_longer_running() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.watch("a", 1.0):
        raise KeyError
    assert watch.running() == []


def test_runs_side_by_side_have_serials_of_their_own() -> None:
    watch = Stopwatch()
    with watch.watch("a", 0), watch.watch("b", 0):
        assert len({one.serial for one in watch.running()}) == 2
        assert [one.what for one in watch.running()] == ["a", "b"]


def test_a_serial_is_never_used_again() -> None:
    watch = Stopwatch()
    serials = []
    for _ in range(3):
        with watch.watch("a", 0):
            serials += [one.serial for one in watch.running()]
    assert len(set(serials)) == 3


# ---- the threads


@pytest.mark.parametrize(
    ("given", "kind", "cores", "threads"),
    [
        (None, "cuda", 16, 1),
        (None, "cpu", 2, 2),
        (None, "cpu", 16, 4),
        (3, "cuda", 16, 3),
        (8, "cpu", 2, 8),
    ],
)
def test_threads_follow_the_setting_else_the_device(
    given: int | None, kind: str, cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert device_threads(WorkerSettings(device_threads=given), kind) == threads


def test_work_is_watched_while_it_runs_and_gives_its_result_and_seconds() -> None:
    watch = Stopwatch()
    device = Device(watch, 1)
    result, seconds = device.submit(watch.running, 2.0).result(10)
    device.close()
    assert [one.predicted_s for one in result] == [2.0]
    assert 0 <= seconds < 10
    assert watch.running() == []


def test_work_that_waits_for_a_thread_is_not_yet_watched() -> None:
    watch = Stopwatch()
    device = Device(watch, 1)
    release = threading.Event()
    first = device.submit(lambda: release.wait(10), 1.0)
    second = device.submit(watch.running, 2.0)
    release.set()
    assert first.result(10)[0] is True
    assert [one.predicted_s for one in second.result(10)[0]] == [2.0]
    device.close()


def test_an_error_of_the_work_comes_out_of_its_future() -> None:
    device = Device(Stopwatch(), 1)
    failed = device.submit(lambda: 1 / 0, 1.0)
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    device.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is the whole process's")
def test_the_threads_of_the_device_give_way_to_the_others_of_the_process() -> None:
    device = Device(Stopwatch(), 1)

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    try:
        bulk, _ = device.submit(niceness, 1.0).result(10)
        passing, _ = device.submit(niceness, 1.0, express=True).result(10)
    finally:
        device.close()
    assert bulk > passing == niceness()
