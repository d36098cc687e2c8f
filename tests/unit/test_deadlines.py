"""Who is urgent, and who is given up: the clock and the cost are passed in."""

import math
import random

import pytest

from reclane_worker.deadlines import Overrun, rounds, too_late

NOW = 1_700_000_000.0


def second_each(tokens: int) -> float:
    return float(tokens)


def test_without_deadlines_all_are_one_part_in_their_order() -> None:
    assert rounds([math.inf] * 4, [9, 1, 5, 3], NOW, 1, second_each) == [[0, 1, 2, 3]]
    assert rounds([], [], NOW, 1, second_each) == []


def test_where_even_the_most_urgent_can_wait_for_all_lengths_alone_group() -> None:
    assert len(rounds([NOW + 4, NOW + 9], [2, 2], NOW, 1, second_each)) == 1
    assert rounds([NOW + 9, NOW + 3.9], [2, 2], NOW, 1, second_each) == [[1], [0]]


def test_what_fits_one_batch_is_never_cut() -> None:
    assert len(rounds([NOW + 9, NOW + 1], [2, 2], NOW, 4, second_each)) == 1


def test_urgent_ones_do_not_wait_behind_the_rest() -> None:
    """Half are urgent; they are a part of their own, and the others are not cut further."""
    expires = [NOW + 1 if n % 2 else math.inf for n in range(64)]
    assert rounds(expires, [1] * 64, NOW, 8, second_each) == [
        list(range(1, 64, 2)),
        list(range(0, 64, 2)),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_every_index_stands_in_one_part_and_no_part_is_more_urgent_than_an_earlier_one(
    seed: int,
) -> None:
    dice = random.Random(seed)
    count = dice.randint(1, 200)
    expires = [dice.choice([math.inf, NOW + dice.uniform(0, 50)]) for _ in range(count)]
    parts = rounds(expires, [dice.randint(0, 9) for _ in range(count)], NOW, 20, second_each)
    assert sorted(index for part in parts for index in part) == list(range(count))
    latest = [max(expires[index] for index in part) for part in parts]
    earliest = [min(expires[index] for index in part) for part in parts]
    assert all(before <= after for before, after in zip(latest, earliest[1:], strict=False))


def late(expires: list[float | None], tokens: list[int], begin: float = NOW) -> list[int]:
    """A batch takes a second for each padded token."""
    return too_late(
        expires, begin, lambda left: float(max(tokens[index] for index in left) * len(left))
    )


def test_what_can_be_done_in_time_is_kept() -> None:
    assert late([NOW + 3, None, NOW + 3], [1, 1, 1]) == []
    assert late([None, None], [1, 1]) == []


def test_one_that_cannot_is_given_up_alone() -> None:
    assert late([NOW + 2.9, None, NOW + 3], [1, 1, 1]) == [0]


def test_the_batch_begins_when_it_begins() -> None:
    assert late([NOW + 3], [1], NOW + 2.5) == [0]


def test_giving_up_the_longest_saves_the_others_their_padding() -> None:
    assert late([NOW + 2, NOW + 3, NOW + 3], [9, 1, 1]) == [0]


def test_all_are_given_up_where_none_can_be_saved() -> None:
    assert sorted(late([NOW - 1, NOW, NOW - 9], [1, 1, 1])) == [0, 1, 2]


def test_an_overrun_is_what_nine_in_ten_batches_keep_to() -> None:
    noisy = Overrun()
    assert noisy.factor() == 1.0
    for number in range(64):
        noisy.learn(2.0, 2.0 + number % 4 / 2)
    assert noisy.factor() == pytest.approx(1.75)


def test_an_overrun_is_bounded_and_never_a_reason_to_cut_it_fine() -> None:
    slow, fast = Overrun(), Overrun()
    for _ in range(64):
        slow.learn(1.0, 50.0)
        fast.learn(1.0, 0.1)
        fast.learn(0.0, 1.0)
    assert (slow.factor(), fast.factor()) == (2.0, 1.0)


def test_one_batch_that_was_stuck_for_a_while_does_not_make_all_look_late() -> None:
    overrun = Overrun()
    for number in range(64):
        overrun.learn(1.0, 50.0 if number == 30 else 1.0)
    assert overrun.factor() == pytest.approx(1.0)
