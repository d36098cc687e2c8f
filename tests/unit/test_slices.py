"""How long a batch of bulk may take: longer only where nobody is made to wait by it."""

import pytest

from reclane_worker.slices import LONGER, QUIET_S, Slices


def test_bulk_runs_in_longer_batches_until_an_interactive_request_comes() -> None:
    slices = Slices(0.05, beside=True)
    assert slices.seconds(100.0) == pytest.approx(LONGER * 0.05)
    slices.came(100.0)
    assert slices.seconds(100.0) == 0.05
    assert slices.seconds(99.9 + QUIET_S) == 0.05
    assert slices.seconds(100.1 + QUIET_S) == pytest.approx(LONGER * 0.05)


def test_the_last_request_that_came_counts() -> None:
    slices = Slices(0.05, beside=True)
    slices.came(100.0)
    slices.came(105.0)
    assert slices.seconds(100.1 + QUIET_S) == 0.05


def test_where_requests_wait_for_the_batch_on_the_device_it_is_never_longer() -> None:
    assert Slices(0.01, beside=False).seconds(1e9) == 0.01
