"""Fusion, ties, exclusion and diversity, worked out by hand."""

import pytest
import torch

from reclane_worker import ranking


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def fused(
    dense: torch.Tensor, lexical: torch.Tensor, share: float, eligible: torch.Tensor | None = None
) -> list[float]:
    weight = torch.full((len(dense),), share)
    scores: list[float] = ranking.fuse(dense, lexical, weight, eligible)[0].tolist()
    return scores


def best(scores: torch.Tensor, count: int) -> list[int]:
    positions: list[int] = ranking.top(scores, count)[1][0].tolist()
    return positions


# ---- shares


@pytest.mark.parametrize(
    ("certainty", "weight", "share"),
    [(1, 0.6, 0.6), (0, 0.6, 0), (1, 0, 0), (1, 1, 1), (0.5, 1, 1), (0.5, 0.6, 0.3 / 0.7)],
)
def test_the_dense_share_follows_certainty(certainty: float, weight: float, share: float) -> None:
    found = ranking.dense_share(torch.tensor([float(certainty)]), weight)
    assert found.tolist() == pytest.approx([share])


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.6, 1.0])
def test_the_dense_share_rises_with_certainty_and_stays_within_0_and_1(weight: float) -> None:
    shares = ranking.dense_share(torch.linspace(0, 1, 11), weight)
    assert float(shares.diff().min()) >= -1e-6
    assert float(shares.min()) >= 0
    assert float(shares.max()) <= 1 + 1e-6


# ---- fusion


def test_fusion_by_hand() -> None:
    found = fused(row(0.2, 0.4, 0.6), row(0, 10, 5), 0.6)
    assert found == pytest.approx([0.0, 0.6 * 0.5 + 0.4, 0.6 + 0.4 * 0.5])


def test_each_row_is_normalised_alone_and_has_its_own_share() -> None:
    dense = torch.tensor([[0.0, 1.0], [0.0, 100.0]])
    lexical = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = ranking.fuse(dense, lexical, torch.tensor([1.0, 0.25]))
    assert found.tolist() == [[0.0, 1.0], [0.75, 0.25]]


def test_scores_are_normalised_over_eligible_items_only() -> None:
    eligible = torch.tensor([[True, True, False]])
    found = fused(row(0.0, 1.0, 1_000.0), row(0.0, 2.0, -50.0), 0.5, eligible)
    assert found == [0.0, 1.0, -torch.inf]


def test_equal_scores_fuse_to_zero_rather_than_to_nan() -> None:
    assert fused(row(0.5, 0.5), row(0, 0), 0.5) == [0.0, 0.0]


def test_without_an_eligible_item_every_score_is_minus_infinity() -> None:
    found = fused(row(1, 2), row(3, 4), 0.5, torch.zeros(1, 2, dtype=torch.bool))
    assert found == [-torch.inf, -torch.inf]


def test_nan_in_one_row_leaves_the_others_alone() -> None:
    dense = torch.tensor([[torch.nan, 1.0], [0.0, 1.0]])
    found = ranking.fuse(dense, torch.zeros(2, 2), torch.tensor([1.0, 1.0]))
    assert found[1].tolist() == [0.0, 1.0]


def test_rounding_noise_between_equal_items_is_not_stretched() -> None:
    one = torch.tensor(0.5)
    noisy = torch.stack([one, torch.nextafter(one, torch.tensor(1.0))]).unsqueeze(0)
    assert max(fused(noisy, row(0, 0), 1.0)) < 0.01


# ---- the best


def test_the_best_come_first() -> None:
    scores, positions = ranking.top(row(0.1, 0.9, 0.5), 2)
    assert positions.tolist() == [[1, 2]]
    assert scores.tolist() == [pytest.approx([0.9, 0.5])]


def test_ties_rank_by_catalog_order() -> None:
    assert best(row(0.5, 1.0, 0.5, 1.0, 0.5), 5) == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("count", [1, 2, 7, 999])
def test_ties_at_the_cut_keep_the_first_of_the_catalog(count: int) -> None:
    assert best(torch.full((1, 1_000), 0.25), count) == list(range(count))


def test_a_difference_in_the_sixth_decimal_beats_catalog_order() -> None:
    scores = torch.full((1, 1_000), 0.25)
    scores[0, -1] += 1e-6
    assert best(scores, 2) == [999, 0]


def test_a_difference_that_may_be_rounding_does_not_beat_catalog_order() -> None:
    scores = torch.full((1, 1_000), 0.25)
    scores[0, -1] = torch.nextafter(torch.tensor(0.25), torch.tensor(2.0))
    assert best(scores, 2) == [0, 1]


def test_more_than_there_is_gives_all() -> None:
    assert best(row(0.1, 0.2), 10) == [1, 0]


def test_an_ineligible_item_is_never_among_the_eligible() -> None:
    scores = row(0.9, 0.1, 0.8).masked_fill(torch.tensor([[True, False, False]]), -torch.inf)
    found, positions = ranking.top(scores, 3)
    assert positions[0, :2].tolist() == [2, 1]
    assert torch.isfinite(found[0]).tolist() == [True, True, False]


# ---- diversity

RELEVANCE = torch.tensor([1.0, 0.9, 0.8, 0.1])
VECTORS = torch.nn.functional.normalize(
    torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]), dim=1
)


def test_without_diversity_relevance_alone_decides() -> None:
    assert ranking.diversify(RELEVANCE, VECTORS, 0.0, 4) == [0, 1, 2, 3]


def test_diversity_puts_a_duplicate_vector_last() -> None:
    assert ranking.diversify(RELEVANCE, VECTORS, 0.9, 4) == [0, 2, 3, 1]


def test_diversity_by_hand() -> None:
    # At 0.5: the duplicate gains 0.45 - 0.5, the third 0.4, the fourth 0.05.
    assert ranking.diversify(RELEVANCE, VECTORS, 0.5, 3) == [0, 2, 3]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [0, 1, 3, 4, 9])
def test_diversity_takes_each_candidate_once_and_at_most_k(diversity: float, k: int) -> None:
    found = ranking.diversify(RELEVANCE, VECTORS, diversity, k)
    assert len(found) == min(k, 4)
    assert len(set(found)) == len(found)


def test_a_longer_list_begins_with_the_shorter() -> None:
    generator = torch.Generator().manual_seed(0)
    relevance = torch.rand(40, generator=generator).sort(descending=True).values
    vectors = torch.nn.functional.normalize(torch.randn(40, 8, generator=generator), dim=1)
    longest = ranking.diversify(relevance, vectors, 0.4, 40)
    assert ranking.diversify(relevance, vectors, 0.4, 10) == longest[:10]


@pytest.mark.parametrize("levels", [2, 30, 1_000_000])
@pytest.mark.parametrize("blocked", [0.0, 0.5, 0.999])
def test_top_finds_what_sorting_every_item_finds(levels: int, blocked: float) -> None:
    """Few levels make many equal scores, also beyond those that are looked at first."""
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(0, levels, (20, 900), generator=generator) / levels
    scores += torch.rand(20, 900, generator=generator) * 1e-8  # rounding
    scores[torch.rand(20, 900, generator=generator) < blocked] = -torch.inf
    scores[0] = -torch.inf
    found, positions = ranking.top(scores, 10)
    for row, row_found, row_positions in zip(scores, found, positions, strict=True):
        shown = (row.double() * 1e6).round().tolist()
        expected = sorted(range(900), key=lambda at: (-shown[at], at))[:10]
        passing = [at for at in expected if shown[at] > -torch.inf]
        assert row_positions.tolist()[: len(passing)] == passing
        assert torch.equal(row_found, row[row_positions])
