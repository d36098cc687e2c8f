"""Whose turn it is on the device."""

from typing import Any

from reclane_worker.ready import Batch, Ready, places_kept


def batch(size: int, bulk: bool = False) -> Batch:
    nothing: list[Any] = [None] * size
    return Batch(nothing, nothing, bulk)


def test_interactive_batches_come_all_at_once_and_in_order() -> None:
    ready = Ready()
    first, second = batch(1), batch(2)
    ready.add([first, batch(3, bulk=True), second])
    assert ready.interactive() == [first, second]
    assert ready.interactive() == []


def test_bulk_runs_where_there_is_room_in_order() -> None:
    ready = Ready()
    slices = [batch(5, bulk=True), batch(6, bulk=True)]
    ready.add(slices)
    assert ready.bulk_requests == 11
    assert ready.bulk(room=False, beside=False) is None
    assert [ready.bulk(room=True, beside=False), ready.bulk(room=True, beside=False)] == slices
    assert ready.bulk(room=True, beside=False) is None
    assert not ready


def test_beside_a_flood_bulk_gets_a_tenth_though_there_is_never_room() -> None:
    ready = Ready()
    run = 0
    ready.add([batch(7, bulk=True) for _ in range(1_000)])
    for _ in range(1_000):
        ready.add([batch(30)])
        ready.interactive()
        while (one := ready.bulk(room=False, beside=False)) is not None:
            run += len(one)
    assert 0.99 * 3_000 <= run <= 1.01 * 3_000


def test_bulk_that_is_on_the_device_has_its_floor() -> None:
    ready = Ready()
    ready.add([batch(5, bulk=True), batch(30)])
    ready.interactive()
    assert ready.bulk(room=False, beside=True) is None
    assert ready.bulk(room=False, beside=False) is not None


def test_a_flood_before_any_bulk_came_gives_bulk_no_claim() -> None:
    ready = Ready()
    ready.add([batch(500)])
    ready.interactive()
    assert ready.bulk(room=False, beside=False) is None
    ready.add([batch(5, bulk=True)])
    assert ready.bulk(room=False, beside=False) is None


def test_what_was_recovered_by_others_is_forgotten() -> None:
    ready = Ready()
    ready.add([batch(1), batch(1, bulk=True)])
    ready.clear()
    assert not ready


def test_a_tenth_of_a_lease_is_kept_and_one_place_at_least() -> None:
    assert [places_kept(n) for n in (1, 2, 19, 20, 256)] == [0, 1, 1, 2, 25]
