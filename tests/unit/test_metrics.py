"""Ranking and its measures, against values worked out by hand."""

import math

import numpy as np
import pytest

from reclane.errors import InvalidSettings, ItemsInvalid, RequestFailed
from reclane_worker.metrics import Estimate, measure, rank_ids

# b and a are relevant and stand at ranks 1 and 3.
RANKING = ["b", "c", "a"]
RELEVANT = {"a", "b"}


def test_measures_of_one_request_match_hand_computed_values() -> None:
    found = measure([RANKING], [RELEVANT])
    assert {name: estimate.mean for name, estimate in found.items()} == pytest.approx(
        {
            "R@1": 1 / 2,
            "P@1": 1.0,
            "Success@1": 1.0,
            "R@5": 1.0,
            "P@5": 2 / 5,
            "Success@5": 1.0,
            "R@10": 1.0,
            "P@10": 2 / 10,
            "Success@10": 1.0,
            "RR": 1.0,
            "NDCG@10": (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3)),
        }
    )


def test_reciprocal_rank_is_that_of_the_first_relevant_item() -> None:
    assert measure([["x", "y", "a", "b"]], [["a", "b"]])["RR"].mean == pytest.approx(1 / 3)


def test_ndcg_stops_at_rank_ten() -> None:
    ranking = [f"x{number}" for number in range(10)] + ["a"]
    found = measure([ranking], [["a"]])
    assert found["NDCG@10"].mean == 0
    assert found["RR"].mean == pytest.approx(1 / 11)


def test_cutoffs_come_in_any_order_and_number() -> None:
    found = measure([RANKING], [RELEVANT], ks=(100, 2, 3))
    assert found["R@2"].mean == 1 / 2
    assert found["P@3"].mean == pytest.approx(2 / 3)
    assert found["P@100"].mean == pytest.approx(2 / 100)
    assert "R@10" not in found


def test_the_order_given_is_kept_whatever_the_ids_are() -> None:
    for ranking in (["a", "z"], ["z", "a"]):
        found = measure([ranking], [["a"]], ks=(1,))
        assert found["Success@1"].mean == (ranking[0] == "a")


def test_an_empty_ranking_counts_as_zero() -> None:
    found = measure([RANKING, []], [RELEVANT, ["a"]])
    assert found["R@1"].mean == pytest.approx((1 / 2 + 0) / 2)
    assert all(estimate.n == 2 for estimate in found.values())
    assert measure([[]], [["a"]])["NDCG@10"] == Estimate(mean=0.0, stderr=0.0, n=1)


def test_standard_error_is_the_sample_deviation_over_root_n() -> None:
    # Success@1 is 1, 0, 0, 1: mean 1/2, sample variance 4 * 1/4 / 3 = 1/3.
    rankings = [["a"], ["b"], ["b"], ["a"]]
    found = measure(rankings, [["a"]] * 4, ks=(1,))["Success@1"]
    assert found.mean == 0.5
    assert found.stderr == pytest.approx(math.sqrt(1 / 3) / 2)
    assert found.n == 4


def test_standard_error_of_one_request_is_zero() -> None:
    assert measure([RANKING], [RELEVANT])["R@1"].stderr == 0


def test_a_request_without_relevant_items_is_named() -> None:
    with pytest.raises(ItemsInvalid, match="request 2 has no relevant items"):
        measure([RANKING, RANKING], [RELEVANT, []])


def test_a_ranking_with_an_item_twice_is_refused() -> None:
    with pytest.raises(ItemsInvalid, match="request 1 has an item twice"):
        measure([["a", "a"]], [["a"]])


@pytest.mark.parametrize(("rankings", "relevant"), [([], []), ([["a"]], [["a"], ["b"]])])
def test_no_or_unpaired_requests_are_refused(
    rankings: list[list[str]], relevant: list[list[str]]
) -> None:
    with pytest.raises(ItemsInvalid, match="rankings for"):
        measure(rankings, relevant)


def test_a_cutoff_below_one_is_refused_before_trec_eval_aborts() -> None:
    with pytest.raises(InvalidSettings, match="at least 1, not 0"):
        measure([RANKING], [RELEVANT], ks=(10, 0))


def test_items_rank_by_score_and_equal_scores_in_catalog_order() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.1, 0.9], dtype=np.float32)
    assert rank_ids(scores, ["z", "y", "a", "x", "b"], depth=4) == ["y", "b", "z", "a"]


def test_a_depth_beyond_the_catalog_gives_all_of_it() -> None:
    assert rank_ids(np.array([0.1, 0.2]), ["a", "b"], depth=10) == ["b", "a"]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(RequestFailed, match="1 of 3 scores") as caught:
        rank_ids(np.array([0.1, score, 0.3]), ["a", "b", "c"], depth=3)
    assert caught.value.code == "non_finite"
