"""What items have in common by their attributes, and what it makes of a history."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import sparse

from reclane.contract import RecommendRequest
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Encoder
from reclane_worker.index.filters import Attributes
from reclane_worker.intent.learning import learn_schema
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.likeness import WEIGHT, Likeness

CPU = torch.device("cpu")


def of(rows: list[dict[str, object]]) -> Likeness | None:
    schema = learn_schema(
        [{"id": str(n), "title": f"t{n}", "attributes": row} for n, row in enumerate(rows)], None
    )
    return Likeness.of(Attributes(rows, len(rows)), schema, CPU)


def films() -> list[dict[str, object]]:
    """Six dramas and six comedies; one actor is in two of them, another in half of all."""
    rows: list[dict[str, object]] = [
        {"genre": ["drama", "comedy"][n % 2], "cast": [f"a{n}", f"b{n % 2}"]} for n in range(12)
    ]
    rows[0]["cast"] = rows[7]["cast"] = ["rare", "b0"]
    return rows


def scores(likeness: Likeness, history: dict[int, float]) -> list[float]:
    content = torch.zeros(1, len(films()))
    likeness.add(content, [history])
    return content[0].tolist()


@pytest.fixture(scope="module")
def likeness() -> Likeness:
    found = of(films())
    assert found is not None
    return found


def test_what_few_items_share_counts_more(likeness: Likeness) -> None:
    found = scores(likeness, {0: 1.0})
    others = {n: found[n] for n in range(1, 12)}
    assert max(others, key=lambda n: others[n]) == 7  # the rare actor, though of another genre
    assert others[2] > others[1]  # the genre, with nothing else


def test_a_score_worked_out_by_hand(likeness: Likeness) -> None:
    table = likeness.table.toarray()
    assert table.max() == pytest.approx(np.log(12 / 2) / np.log(12))  # the rare actor
    profile = (table[0] + 0.5 * table[3]) / 1.5 - table.mean(0)
    expected = WEIGHT * table @ profile
    np.testing.assert_allclose(scores(likeness, {0: 1.0, 3: 0.5}), expected, atol=1e-6)


def test_how_heavy_a_whole_history_is_changes_nothing(likeness: Likeness) -> None:
    heavy = scores(likeness, {0: 100.0, 3: 50.0})
    assert heavy == pytest.approx(scores(likeness, {0: 1.0, 3: 0.5}), abs=1e-5)
    assert np.isfinite(scores(likeness, {0: 0.0})).all()


def test_what_is_disliked_counts_against_what_is_like_it(likeness: Likeness) -> None:
    assert scores(likeness, {0: -1.0}) == pytest.approx([-s for s in scores(likeness, {0: 1.0})])


def test_a_batch_of_histories_scores_as_each_alone(likeness: Likeness) -> None:
    histories = [{0: 1.0}, {}, {3: 1.0, 4: -0.5}]
    batch = torch.ones(3, 12)
    likeness.add(batch, histories)
    for row, history in zip(batch, histories, strict=True):
        alone = torch.ones(1, 12)
        likeness.add(alone, [history])
        torch.testing.assert_close(row, alone[0], rtol=0, atol=1e-6)
    assert batch[1].tolist() == [1.0] * 12


def test_a_table_of_tastes_scores_as_histories_do(likeness: Likeness) -> None:
    tastes = sparse.csr_array(np.eye(12, dtype=np.float32)[:2])
    found = likeness.scores(tastes)
    assert (WEIGHT * found[1]).tolist() == pytest.approx(scores(likeness, {1: 1.0}))


def test_a_list_that_names_a_value_twice_has_it_once() -> None:
    twice = of([{"tags": ["a", "a"]}, {"tags": ["a", "b"]}, {"tags": ["b"]}] * 4)
    once = of([{"tags": ["a"]}, {"tags": ["a", "b"]}, {"tags": ["b"]}] * 4)
    assert twice is not None
    assert once is not None
    np.testing.assert_allclose(twice.table.toarray(), once.table.toarray())


@pytest.mark.parametrize("rows", [[], [{}], [{"price": 1}, {"price": 2}], [{"a": "x"}, {"a": "y"}]])
def test_where_nothing_is_shared_there_is_no_likeness(rows: list[dict[str, object]]) -> None:
    assert of(rows) is None


def test_the_nearer_two_years_the_more_items_have_in_common() -> None:
    rows: list[dict[str, object]] = [{"year": 1900 + 2 * n, "price": n % 7} for n in range(60)]
    found = of([*rows, {"price": 3}])
    assert found is not None
    np.testing.assert_allclose(np.linalg.norm(found.table.toarray()[:60], axis=1), 0.45, atol=1e-6)
    likes = found.scores(sparse.csr_array(np.eye(61, dtype=np.float32)[30:31]))[0]
    assert int(likes.argmax()) == 30
    near, nearer = likes[[27, 33]], likes[[29, 31]]
    assert nearer.min() > near.max()
    assert near.min() > likes[[0, 10, 50, 59]].max()
    assert likes[60] == 0.0  # nothing is told of its year: neither near nor far


def test_a_year_that_all_share_or_none_has_says_nothing() -> None:
    assert of([{"year": 1999} for _ in range(4)]) is None
    assert of([]) is None


def test_a_value_that_all_share_says_nothing() -> None:
    found = of([{"kind": "film"} for _ in range(4)])
    assert found is not None
    assert found.scores(sparse.csr_array(np.eye(4, dtype=np.float32))).count_nonzero() == 0


def test_a_history_alone_finds_what_shares_its_attributes(
    make_catalog: Callable[..., Catalog], encoder: Encoder, settings: WorkerSettings
) -> None:
    rows = films()
    items = [SourceItem(f"f{n}", f"title {n}", f"text{n}", dict(row)) for n, row in enumerate(rows)]  # type: ignore[arg-type]
    catalog = make_catalog(items)
    pipeline = Pipeline(encoder, {catalog.name: catalog}, settings)
    (answer,) = pipeline.recommend([RecommendRequest(history=("f0",), k=3)])
    assert isinstance(answer, dict)
    assert answer["items"][0]["id"] == "f7"
