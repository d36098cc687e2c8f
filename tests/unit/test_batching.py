"""Grouping by length within bounds, and predicting what a batch costs."""

import math
import random

import pytest

from reclane_worker.batching import CostLine, Limits, plan, slice_tokens

WIDE = Limits(max_tokens=1_000_000, max_requests=1_000, overhead_tokens=1_000_000)


def lengths_of(groups: list[list[int]], lengths: list[int]) -> list[list[int]]:
    return [[lengths[index] for index in group] for group in groups]


def test_nothing_gives_no_batch() -> None:
    assert plan([], WIDE) == []


@pytest.mark.parametrize("seed", range(20))
def test_every_index_stands_in_exactly_one_batch_within_the_bounds(seed: int) -> None:
    dice = random.Random(seed)
    lengths = [dice.randint(0, 300) for _ in range(dice.randint(1, 200))]
    limits = Limits(dice.randint(16, 2_000), dice.randint(1, 50), dice.randint(0, 100))
    groups = plan(lengths, limits)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        padded = max(1, *(lengths[index] for index in group)) * len(group)
        assert len(group) <= limits.max_requests
        assert padded <= limits.max_tokens or len(group) == 1


def test_similar_lengths_run_together() -> None:
    lengths = [50, 5, 51, 6]
    limits = Limits(1_000, 10, overhead_tokens=8)
    assert lengths_of(plan(lengths, limits), lengths) == [[5, 6], [50, 51]]


def test_padding_that_costs_less_than_a_batch_is_accepted() -> None:
    lengths = [10, 10, 14]  # 14 pads the two by 8 tokens
    assert len(plan(lengths, Limits(1_000, 10, overhead_tokens=8))) == 1
    assert len(plan(lengths, Limits(1_000, 10, overhead_tokens=7))) == 2


def test_a_batch_may_fill_the_token_budget_but_not_pass_it() -> None:
    assert len(plan([10] * 10, Limits(100, 100, 1_000))) == 1
    assert [len(group) for group in plan([10] * 11, Limits(100, 100, 1_000))] == [10, 1]


def test_a_batch_holds_at_most_max_requests() -> None:
    assert [len(group) for group in plan([1] * 7, Limits(1_000, 3, 1_000))] == [3, 3, 1]


def test_a_request_longer_than_the_budget_runs_alone() -> None:
    lengths = [500, 5, 5]
    assert lengths_of(plan(lengths, Limits(100, 10, 1_000)), lengths) == [[5, 5], [500]]


def test_equal_lengths_keep_their_order() -> None:
    assert plan([3, 3, 3, 3], WIDE) == [[0, 1, 2, 3]]


def test_an_empty_text_counts_as_one_token() -> None:
    assert [len(group) for group in plan([0] * 5, Limits(2, 100, 1_000))] == [2, 2, 1]


def test_without_experience_the_cost_is_the_initial_one() -> None:
    assert CostLine(2.5).predict(1_000) == 2.5


def test_a_straight_line_is_found() -> None:
    line = CostLine()
    for tokens in (100, 200, 300):
        line.learn(tokens, 0.5 + tokens * 0.01)
    assert line.predict(150) == pytest.approx(2.0)
    assert line.predict(0) == pytest.approx(0.5)


def test_with_one_size_seen_a_larger_batch_costs_in_proportion_and_a_smaller_the_same() -> None:
    line = CostLine()
    line.learn(100, 0.2)
    assert line.predict(300) == pytest.approx(0.6)
    assert line.predict(10) == pytest.approx(0.2)


def test_a_prediction_is_never_negative() -> None:
    line = CostLine()
    for tokens in (100, 200, 300):
        line.learn(tokens, tokens * 0.01 - 0.9)
    assert line.predict(0) == 0.0


def test_noise_that_falls_with_size_does_not_predict_a_falling_cost() -> None:
    line = CostLine()
    line.learn(100, 0.4)
    line.learn(200, 0.2)
    assert line.predict(10_000) >= line.predict(200) > 0


def test_a_prediction_is_never_below_the_slope_through_the_origin() -> None:
    line = CostLine()
    line.learn(100, 0.1)
    line.learn(200, 0.1)
    assert line.predict(16_384) >= 16_384 * 0.1 / 150


def test_only_recent_batches_count() -> None:
    line = CostLine()
    line.learn(100, 1_000.0)
    for _ in range(64):
        line.learn(100, 1.0)
    assert line.predict(100) == pytest.approx(1.0)


def test_a_batch_of_no_tokens_can_be_learned_and_predicted() -> None:
    line = CostLine()
    line.learn(0, 0.1)
    assert line.predict(0) == pytest.approx(0.1)


def test_the_line_that_is_told_never_falls() -> None:
    line = CostLine()
    line.learn(100, 0.4)
    line.learn(200, 0.2)
    assert line.line() == (0.0, pytest.approx(0.3))
    line.learn(600, 1.5)
    token_s, start_s = line.line()
    assert token_s > 0
    assert line.expect(300) == pytest.approx(300 * token_s + start_s)


def test_tokens_within_a_time_are_those_predicted_to_take_it() -> None:
    line = CostLine()
    for tokens in (100, 200, 300):
        line.learn(tokens, 0.5 + tokens * 0.01)
    for seconds in (1.5, 3.0, 9.0):
        assert line.predict(line.tokens_within(seconds)) == pytest.approx(seconds, rel=0.02)
    assert line.tokens_within(0.001) == 1
    assert CostLine().tokens_within(1.0) > 1_000


def test_a_slice_takes_its_time_and_no_more_than_a_batch_may_hold() -> None:
    line = CostLine()
    for tokens in (100, 200, 300) * 3:
        line.learn(tokens, 0.001 + tokens * 0.01)
    limits = Limits(1_000, 10, overhead_tokens=32)
    assert line.predict(slice_tokens(line, 2.0, limits)) == pytest.approx(2.0, rel=0.02)
    assert slice_tokens(line, 99.0, limits) == 1_000


def test_a_slice_is_never_so_small_that_starting_batches_is_most_of_the_work() -> None:
    line = CostLine()
    for tokens in (100, 200, 300) * 3:
        line.learn(tokens, 0.2 + tokens * 0.01)  # a start is worth 20 tokens
    assert line.start_tokens() == pytest.approx(20.0)
    limits = Limits(1_000, 10, overhead_tokens=32)
    assert slice_tokens(line, 0.001, limits) == pytest.approx(160, abs=1)


def test_where_batches_are_alike_what_a_start_costs_is_not_guessed() -> None:
    alike = CostLine()
    for number in range(64):
        alike.learn(100 + number % 3, 0.2 - number % 3 / 100)
    assert alike.start_tokens() == math.inf
    assert slice_tokens(alike, 0.001, Limits(1_000, 10, overhead_tokens=32)) == 10 * 32
