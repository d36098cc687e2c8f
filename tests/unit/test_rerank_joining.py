"""What a reranker said joins the first scores, and how many candidates time allows. Pure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclane_worker.rerank.joining import joined
from reclane_worker.rerank.spending import TRY_AFTER, Spending, budget_s, steps
from reclane_worker.retrieval import Picked
from reclane_worker.settings import WorkerSettings


def found(scores: list[float], positions: list[int] | None = None, **more: object) -> Picked:
    places = list(range(len(scores))) if positions is None else positions
    return Picked(places, scores, True, **more)  # type: ignore[arg-type]


# ---- joining


def test_alone_the_reranker_orders_the_candidates() -> None:
    picked = joined(found([0.9, 0.8, 0.7, 0.6]), [-1.0, 5.0, 2.0], 1.0)
    assert picked.positions == [1, 2, 0, 3]
    assert picked.scores[0] == 1.0
    assert picked.reranked == 3


def test_the_first_score_keeps_its_share() -> None:
    picked = joined(found([1.0, 0.5, 0.0]), [0.0, 1.0, 0.5], 0.3)
    assert picked.positions == [0, 1, 2]
    assert joined(found([1.0, 0.5, 0.0]), [0.0, 1.0, 0.5], 0.6).positions == [1, 0, 2]


def test_what_was_not_looked_at_keeps_its_place_and_its_score_below() -> None:
    scores = [0.9, 0.5, 0.5, 0.5, 0.4]
    picked = joined(found(scores), [1.0, 2.0], 1.0)
    assert picked.positions == [1, 0, 2, 3, 4]
    assert picked.scores[2:] == scores[2:]
    assert picked.scores[1] > scores[2]


def test_log_odds_that_are_all_alike_leave_the_first_order() -> None:
    picked = joined(found([0.9, 0.8, 0.7]), [3.0, 3.000001, 2.999999], 0.9)
    assert picked.positions == [0, 1, 2]


def test_equal_scores_rank_by_catalog_order() -> None:
    picked = joined(found([0.5, 0.5, 0.5, 0.5], [3, 7, 8, 9]), [0.0, 1.0, 1.0, 0.0], 1.0)
    assert picked.positions == [7, 8, 3, 9]
    assert picked.scores[0] == picked.scores[1]


def test_wishes_count_after_reranking_as_before() -> None:
    """An item that meets a wish worth 1 comes before all that do not, whatever the reranker
    says."""
    bonus = np.array([1.0, 0.0, 1.0, 0.0], dtype=np.float32)
    first = [(0.9 + 1) / 2, (0.2 + 1) / 2, 1.0 / 2, 0.1 / 2]
    picked = joined(found(first, [0, 2, 1, 3], bonus=bonus), [0.0, 1.0, 9.0, 8.0], 1.0)
    assert picked.positions == [2, 0, 1, 3]


candidates = st.lists(
    st.tuples(
        st.floats(0, 1), st.floats(-30, 30), st.sampled_from([0.0, 0.3, 0.6]), st.integers(0, 99)
    ),
    min_size=2,
    max_size=30,
    unique_by=lambda one: one[3],
)


@given(candidates, st.floats(0.01, 1), st.integers(2, 30))
def test_scores_stay_within_0_and_1_and_fall_whatever_was_said(
    rows: list[tuple[float, float, float, int]], weight: float, count: int
) -> None:
    bonus = np.zeros(100, dtype=np.float32)
    for _, _, worth, position in rows:
        bonus[position] = worth
    whole = 1 + float(bonus.max())
    rows = sorted(rows, key=lambda one: -(one[0] + one[2]))
    first = found(
        [(score + worth) / whole for score, _, worth, _ in rows], [one[3] for one in rows]
    )
    first = found(first.scores, first.positions, bonus=bonus)
    picked = joined(first, [odds for _, odds, _, _ in rows[:count]], weight)
    assert sorted(picked.positions[:count]) == sorted(first.positions[:count])
    assert picked.positions[count:] == first.positions[count:]
    assert all(0 <= score <= 1 for score in picked.scores)
    shown = [round(score, 6) for score in picked.scores]
    assert shown == sorted(shown, reverse=True)
    pairs = list(zip(shown[:count], picked.positions[:count], strict=True))
    assert pairs == sorted(pairs, key=lambda one: (-one[0], one[1]))


# ---- what time allows


@pytest.mark.parametrize(
    ("most", "found"), [(50, [3, 6, 12, 25, 50]), (2, [2]), (3, [3]), (16, [2, 4, 8, 16])]
)
def test_candidates_are_halved_until_there_is_no_order(most: int, found: list[int]) -> None:
    assert steps(most) == found


@pytest.mark.parametrize(
    ("settings", "kind", "seconds"),
    [({}, "cpu", 0.5), ({}, "cuda", 0.05), ({}, "mps", 0.5), ({"rerank_ms": 7}, "cuda", 0.007)],
)
def test_the_budget_is_the_devices_unless_set(
    settings: dict[str, float], kind: str, seconds: float
) -> None:
    assert budget_s(WorkerSettings(**settings), kind) == seconds  # type: ignore[arg-type]


def test_batches_one_after_the_other_cost_the_sum_of_what_they_cost() -> None:
    spending = Spending()
    spending.begin_anew([(100, 0.2), (200, 0.3)])
    assert spending.predict_s([300]) == pytest.approx(0.5)
    assert spending.predict_s([300, 300, 300]) == pytest.approx(1.5)
    spending.learn(300, 0.4)
    assert spending.predict_s([400]) == pytest.approx(0.6)


def test_what_could_not_be_afforded_for_long_is_tried_again() -> None:
    spending = Spending()
    tries = [spending.worth_a_try(False) for _ in range(2 * TRY_AFTER)]
    assert [n for n, one in enumerate(tries, start=1) if one] == [TRY_AFTER, 2 * TRY_AFTER]


def test_one_batch_that_could_afford_it_begins_the_count_anew() -> None:
    spending = Spending()
    told = [n % (TRY_AFTER - 1) == 0 for n in range(5 * TRY_AFTER)]
    assert not any(spending.worth_a_try(afforded) for afforded in told)


def test_beginning_anew_forgets_a_slow_spell() -> None:
    spending = Spending()
    for _ in range(64):
        spending.learn(100, 30.0)
    spending.begin_anew([(50, 0.01)])
    assert spending.predict_s([100]) == pytest.approx(0.02)
