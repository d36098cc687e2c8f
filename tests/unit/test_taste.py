"""What behaviour says: tables learnt of likes, their weights, and what they are worth served."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from scipy import sparse

from reclane.cli import cli
from reclane.contract import Failure, RecommendRequest, parse_request
from reclane.errors import CatalogDamaged, ItemsInvalid
from reclane_worker import manifest as layout
from reclane_worker.building import build_catalog
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.changing import compact, delete, upsert
from reclane_worker.encoder import Encoder
from reclane_worker.manifest import read_manifest
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import BadRow, SourceItem
from reclane_worker.retrieval import _tastes
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste import neighbours, signals, trial
from reclane_worker.taste.interactions import (
    InteractionColumns,
    Interactions,
    arranged,
    read_interactions,
)
from reclane_worker.taste.learning import add_taste, learn
from reclane_worker.taste.weighing import USUAL, by_content, fit_weights
from sealing import seal

CPU = torch.device("cpu")
LIKES = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1]])


def table(dense: Any) -> sparse.csr_array:
    return sparse.csr_array(np.asarray(dense, dtype=np.float32))


def taste_of(size: int, pairs: dict[tuple[int, int], float], content: float = 1.0) -> signals.Taste:
    """A taste whose item_item table has these pairs, weighed 1."""
    dense = np.zeros((size, size))
    for place, value in pairs.items():
        dense[place] = value
    return signals.make((content, 1.0, 1.0), table(dense), table(np.zeros((size, size))), CPU)


# ---- what is learnt


def test_item_item_is_the_shrunk_cosine_of_who_liked_what() -> None:
    found = neighbours.item_item(table(LIKES)).toarray()
    # Likes of each item: 3, 3, 3, 1. Items 0 and 1 share two users, 0 and 2 one, 2 and 3 one.
    assert found[0, 1] == pytest.approx(2 / (3 + neighbours.SHRINKAGE))
    assert found[0, 2] == pytest.approx(1 / (3 + neighbours.SHRINKAGE))
    assert found[2, 3] == pytest.approx(1 / (3**0.5 + neighbours.SHRINKAGE))
    assert found[0, 3] == 0
    np.testing.assert_array_equal(found, found.T)
    assert not found.diagonal().any()


def test_only_the_strongest_neighbours_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "NEIGHBOURS", 1)
    found = neighbours.item_item(table(LIKES)).toarray()
    assert (found != 0).sum(1).tolist() == [1, 1, 1, 1]
    assert found[0].argmax() == 1


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = neighbours.item_item(table(LIKES)), neighbours.ease(table(LIKES))
    monkeypatch.setattr(neighbours, "_BLOCK_CELLS", 1)
    parts = neighbours.item_item(table(LIKES)), neighbours.ease(table(LIKES))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


def test_ease_is_the_dense_closed_form() -> None:
    chance = np.random.default_rng(1)
    likes = (chance.random((40, 12)) < 0.4).astype(np.float64)
    precision = np.linalg.inv(likes.T @ likes + neighbours.EASE_RIDGE * np.eye(12))
    expected = -precision / np.diag(precision)  # B_ij = -P_ij / P_jj
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(neighbours.ease(table(likes)).toarray(), expected, atol=1e-7)


def test_ease_minimises_its_ridge_regression() -> None:
    """Steck's objective: no step in any direction that keeps the diagonal zero does better."""
    likes = torch.tensor(LIKES, dtype=torch.float64)
    weights = neighbours.closed_form(likes.T @ likes, 2.0).requires_grad_()
    loss = (likes - likes @ weights).square().sum() + 2.0 * weights.square().sum()
    (slope,) = torch.autograd.grad(loss, weights)
    assert slope.fill_diagonal_(0).abs().max() < 1e-9


def test_ease_is_of_the_popular_items_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EASE_ITEMS", 3)
    found = neighbours.ease(table(LIKES)).toarray()
    assert not found[3].any()
    assert not found[:, 3].any()
    assert found[0, 1] > 0


def test_likes_of_nobody_teach_nothing() -> None:
    nothing = table(np.zeros((2, 3)))
    assert neighbours.item_item(nothing).nnz == neighbours.ease(nothing).nnz == 0


# ---- how much each signal counts


def foreseen(by: int) -> np.ndarray[Any, Any]:
    """Weights learnt where one signal of content, item_item, ease foresees 200 users' likes."""
    chance = np.random.default_rng(0)
    items, users = 60, 200
    vectors = torch.nn.functional.normalize(torch.randn(items, 16), dim=1).numpy()
    history = chance.integers(0, items, users)
    tastes = table(np.eye(items)[history])
    next_to = np.roll(np.arange(items), 1)
    truth, noise = (np.zeros((items, items)) for _ in range(2))
    truth[np.arange(items), next_to] = 0.3
    noise[np.arange(items), chance.permutation(items)] = 0.3
    targets = next_to[history]
    if by == 0:
        cosines = vectors @ vectors.T - 2 * np.eye(items)
        targets = cosines.argmax(1)[history]
    tables = [table(truth if signal == by else noise) for signal in (1, 2)]
    content = by_content(vectors, None)
    return fit_weights(tastes, tastes, targets.astype(np.int32), content, tables)


@pytest.mark.parametrize("signal", [0, 1, 2])
def test_only_the_signal_that_foresees_gains_weight(signal: int) -> None:
    torch.manual_seed(0)
    gained = foreseen(by=signal) / USUAL
    assert gained[signal] > 1
    assert (np.delete(gained, signal) < 1).all(), gained


def test_content_that_misleads_still_carries_new_items() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(40, 8), dim=1).numpy()
    farthest = (vectors @ vectors.T).argmin(1).astype(np.int32)
    nothing, seen = table(np.zeros((40, 40))), table(np.eye(40))
    found = fit_weights(seen, seen, farthest, by_content(vectors, None), [nothing, nothing])
    assert found[0] == pytest.approx(USUAL[0] / 10)


def test_without_likes_to_foresee_the_usual_weights_stay() -> None:
    none = table(np.zeros((0, 4)))
    content = by_content(np.ones((4, 2), np.float32), None)
    found = fit_weights(none, none, np.zeros(0, np.int32), content, [none] * 2)
    np.testing.assert_allclose(found, USUAL)


@pytest.mark.parametrize("liked", [[False, False, False], [True, False, True]])
def test_who_likes_nothing_or_one_thing_leaves_the_usual_weights(liked: list[bool]) -> None:
    seen = arranged([0, 0, 1], [0, 1, 2], liked, [1, 2, 3], 4)
    taste = learn(seen, by_content(np.eye(4, dtype=np.float32), None), CPU)
    assert taste.weights == pytest.approx(tuple(USUAL))
    assert taste.joined.widest == 0


# ---- reading


def written(tmp_path: Path, text: str, name: str = "seen.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def read(path: Path, ids: str = "abc", **columns: Any) -> Interactions:
    return read_interactions(path, InteractionColumns(**columns), list(ids), pytest.fail)


def test_ratings_say_what_was_liked_and_times_in_what_order(tmp_path: Path) -> None:
    path = written(tmp_path, "who,what,stars,at\n1,b,4,20\n2,c,3.5,1\n1,a,5,10\n1,x,5,1\n")
    found = read(path, user="who", item="what", rating="stars", time="at")
    assert found.users.tolist() == [0, 0, 1]
    assert found.items.tolist() == [0, 1, 2]
    assert found.liked.tolist() == [True, True, False]


def test_without_ratings_and_times_all_is_liked_in_the_order_of_the_rows(tmp_path: Path) -> None:
    text = '{"user": 1, "item": "c"}\n{"user": 1, "item": "a"}\n'
    found = read(written(tmp_path, text, "seen.jsonl"))
    assert found.items.tolist() == [2, 0]
    assert found.liked.all()


def test_of_a_repeated_pair_the_newest_counts(tmp_path: Path) -> None:
    found = read(written(tmp_path, "user,item,rating,timestamp\nu,a,5,9\nu,b,5,5\nu,a,1,10\n"))
    assert (found.items.tolist(), found.liked.tolist()) == ([1, 0], [True, False])


def test_dates_are_times_too(tmp_path: Path) -> None:
    text = "user,item,timestamp\nu,a,2024-01-02T00:00:00Z\nu,b,2024-01-01\n"
    text += "u,c,2024-01-02T00:30:00+01:00\n"
    assert read(written(tmp_path, text)).items.tolist() == [1, 2, 0]


def test_dates_of_parquet_are_times_too(tmp_path: Path) -> None:
    days = pa.array([date(2024, 1, 2), date(2024, 1, 1)], pa.date32())
    path = tmp_path / "likes.parquet"
    parquet.write_table(pa.table({"user": ["u"] * 2, "item": ["a", "b"], "timestamp": days}), path)
    assert read(path).items.tolist() == [1, 0]


@pytest.mark.parametrize("row", ["u,a,good,1", ",a,5,1", "u,,5,1", "u,a,5,soon"])
def test_a_row_that_says_nothing_is_reported_by_its_line(row: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"user,item,rating,timestamp\nu,b,5,1\n{row}\n")
    bad: list[BadRow] = []
    found = read_interactions(path, InteractionColumns(), ["a", "b"], bad.append)
    assert (len(found), [one.line for one in bad]) == (1, [3])


def test_a_file_without_known_items_or_without_the_column_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "user,item\nu,z\n")
    with pytest.raises(ItemsInvalid, match="no interaction is with an item of the catalog"):
        read(path)
    with pytest.raises(ItemsInvalid, match="no column film"):
        read(path, item="film")


def test_the_last_like_is_that_of_users_with_several() -> None:
    liked = [True, True, False, True, True, True]
    found = arranged([0, 0, 0, 1, 2, 2], [0, 1, 2, 0, 1, 2], liked, [1, 2, 3, 1, 2, 1], 3)
    assert found.users[found.last_liked()].tolist() == [0, 2]
    assert found.items[found.last_liked()].tolist() == [1, 1]


# ---- serving


def answered(pipeline: Pipeline, **fields: Any) -> list[str]:
    (answer,) = pipeline.recommend([parse_request(fields)])
    assert isinstance(answer, dict), answer
    return [item["id"] for item in answer["items"]]


@pytest.fixture
def tasted(catalog: Catalog, encoder: Encoder, settings: WorkerSettings) -> Callable[..., Pipeline]:
    """A pipeline over the shop with a taste of these pairs."""

    def make(pairs: dict[tuple[int, int], float], **more: Any) -> Pipeline:
        known = replace(catalog, taste=taste_of(len(catalog), pairs, **more))
        return Pipeline(encoder, {"shop": known}, settings)

    return make


def test_what_goes_together_comes_first(tasted: Callable[..., Pipeline]) -> None:
    pipeline = tasted({(0, 7): 9.0, (0, 13): 8.0})
    assert answered(pipeline, history=["i00"], k=2) == ["i07", "i13"]


def test_what_goes_with_a_disliked_item_sinks(tasted: Callable[..., Pipeline]) -> None:
    pipeline = tasted({(0, 7): 9.0, (1, 7): 9.5, (0, 13): 8.0})
    ranking = answered(pipeline, history=[["i01", -1.0], "i00"], k=28)
    assert ranking[0] == "i13"
    assert ranking.index("i07") > 0


def test_content_moves_away_from_a_disliked_item(pipeline: Pipeline, catalog: Catalog) -> None:
    wanted = RecommendRequest(history=("i00",), k=29)
    (liked,) = pipeline.recommend([wanted])
    assert isinstance(liked, dict)
    scores = {item["id"]: item["score"] for item in liked["items"]}
    first = answered(pipeline, history=[["i00", -1.0]], k=29)[0]
    assert scores[first] == min(scores.values())


def test_seen_items_never_come_back_whatever_their_weight(
    tasted: Callable[..., Pipeline],
) -> None:
    pipeline = tasted({(0, 1): 9.0, (1, 0): 9.0, (0, 0): 9.0})
    ranking = answered(pipeline, history=["i00", ["i01", -0.5]], k=30)
    assert len(ranking) == 28
    assert not {"i00", "i01"} & set(ranking)


def test_a_new_item_and_a_history_of_new_items_rank_by_content(
    tasted: Callable[..., Pipeline], pipeline: Pipeline
) -> None:
    known = tasted({(0, 7): 9.0}, content=3.0)
    history = ["i05", "i10"]  # nobody has interacted with these
    assert answered(known, history=history, k=28) == answered(pipeline, history=history, k=28)
    rest = [one for one in answered(known, history=["i00"], k=29) if one != "i07"]
    assert rest == [one for one in answered(pipeline, history=["i00"], k=29) if one != "i07"]


def test_a_new_user_with_a_query_is_answered_as_without_interactions(
    tasted: Callable[..., Pipeline], pipeline: Pipeline
) -> None:
    asked = {"query": "quiet running shoes", "history": ["unknown"]}
    assert answered(tasted({(0, 7): 9.0}), **asked) == answered(pipeline, **asked)
    (nothing,) = tasted({(0, 7): 9.0}).recommend([parse_request({"history": ["unknown"]})])
    assert isinstance(nothing, Failure)
    assert nothing.code == "unknown_items"


def test_beside_a_query_a_history_works_as_without_interactions(
    tasted: Callable[..., Pipeline], pipeline: Pipeline
) -> None:
    asked = {"query": "coffee", "intent": {}, "history": ["i00"]}
    assert answered(tasted({(0, 7): 99.0}), **asked) == answered(pipeline, **asked)


def test_rows_of_a_batch_do_not_mix(
    tasted: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tasted({(n, (7 * n + 3) % 30): 5.0 for n in range(30)})
    requests = [parse_request({"history": [f"i{n:02}"], "k": 30}) for n in range(30)]
    requests += [parse_request({"query": "coffee", "history": ["i03"], "k": 30})]
    together = pipeline.recommend(requests)
    monkeypatch.setattr(signals, "_POSTINGS", 1)
    alone = [pipeline.recommend([one])[0] for one in requests]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        scores = {item["id"]: item["score"] for item in one["items"]}
        assert scores == pytest.approx({i["id"]: i["score"] for i in other["items"]}, abs=2e-6)


def test_how_heavy_a_whole_history_is_changes_nothing() -> None:
    taste = taste_of(4, {(0, 1): 0.5, (2, 3): 0.25})
    one, other = torch.zeros(1, 4), torch.zeros(1, 4)
    taste.add(one, [{0: 1.0, 2: 0.5}])
    taste.add(other, [{0: 1e6, 2: 5e5}])
    torch.testing.assert_close(one, other)
    assert one[0, 1] == pytest.approx(0.5 / 1.25**0.5)
    taste.add(other, [{0: 0.0}])
    assert other.isfinite().all()


def test_a_mean_of_a_history_is_centred(catalog: Catalog) -> None:
    (found,) = _tastes([{0: 1.0, 5: 0.5}], catalog)
    centred = catalog.vectors - catalog.vectors.mean(0)
    expected = torch.nn.functional.normalize(centred[0] + 0.5 * centred[5], dim=0)
    torch.testing.assert_close(found, expected)


# ---- what a catalog keeps


@pytest.fixture(scope="module")
def behaved(
    shop: list[SourceItem], encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The shop, and 40 users who each like items 3 apart."""
    folder = tmp_path_factory.mktemp("behaved")
    rows = [f"u{user},i{(user + 3 * n) % 30:02},5,{n}" for user in range(40) for n in range(5)]
    seen = written(folder, "user,item,rating,timestamp\n" + "\n".join(rows))
    build_catalog(
        shop,
        folder / "shop",
        encoder,
        learn=[lambda made: add_taste(made, seen, InteractionColumns(), pytest.fail)],
    )
    return folder


def test_a_catalog_built_with_interactions_serves_them(
    behaved: Path, encoder: Encoder, settings: WorkerSettings
) -> None:
    manifest = read_manifest(behaved / "shop")
    assert layout.TASTE in manifest.files
    catalog = load_catalog("shop", behaved / "shop", encoder)
    assert catalog.taste is not None
    assert answered(Pipeline(encoder, {"shop": catalog}, settings), history=["i00", "i03"])[0] in (
        "i06",
        "i27",
    )


def test_info_shows_the_weights(behaved: Path, shop_folder: Path) -> None:
    shown = CliRunner().invoke(cli, ["catalog", "info", str(behaved / "shop")]).output
    assert "item_item" in shown
    as_json = CliRunner().invoke(cli, ["catalog", "info", str(behaved / "shop"), "--json"]).output
    assert json.loads(as_json)["taste"].keys() == set(signals.SIGNALS)
    without = CliRunner().invoke(cli, ["catalog", "info", str(shop_folder)]).output
    assert "item_item" not in without


def test_what_is_stored_comes_back(behaved: Path) -> None:
    stored = load_file(behaved / "shop" / layout.TASTE)
    again = signals.tensors_of(signals.restore(stored, 30, CPU))
    assert again.keys() == stored.keys()
    for name, tensor in stored.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0)


def test_a_taste_goes_with_the_ids_of_a_catalog_that_changes(
    behaved: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """What goes with a history does, by the same score; items that came since have none."""
    folder = Path(shutil.copytree(behaved / "shop", tmp_path / "shop"))

    def worth(history: str) -> dict[str, float]:
        """What each item gains by one in a history."""
        catalog = load_catalog("shop", folder, encoder)
        assert catalog.taste is not None
        scores = torch.zeros(1, len(catalog))
        catalog.taste.add(scores, [{catalog.positions[history]: 1.0}])
        return dict(zip(catalog.ids, scores[0].tolist(), strict=True))

    before = worth("i06")
    assert before["i09"] > 0
    new = [SourceItem(one, f"title of {one}", "", {}) for one in ("new", "i03", "i00")]
    upsert(folder, new, encoder)
    delete(folder, ["i01", "i09", "i29"])
    upsert(folder, [SourceItem("i01", "back", "", {})], encoder)
    expected = {one: worth for one, worth in before.items() if one not in ("i09", "i29")}
    assert worth("i06") == pytest.approx(expected | {"new": 0.0})
    assert set(worth("new").values()) == {0.0}
    compact(folder)
    assert worth("i06") == pytest.approx(expected | {"new": 0.0})
    told = json.loads(CliRunner().invoke(cli, ["catalog", "info", str(folder), "--json"]).output)
    assert told["taste"].keys() == set(signals.SIGNALS)


@pytest.mark.parametrize("change", ["removed", "flipped", "unsealed"])
def test_a_damaged_taste_is_refused_by_name(
    change: str, behaved: Path, encoder: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(behaved / "shop", folder)
    path = folder / layout.TASTE
    if change == "removed":
        path.unlink()
    elif change == "flipped":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        manifest = json.loads((folder / layout.MANIFEST).read_text())
        del manifest["files"][layout.TASTE]
        (folder / layout.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CatalogDamaged, match="taste" if change != "unsealed" else "manifest"):
        load_catalog("shop", folder, encoder)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("weights", torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)),
        ("weights", torch.tensor([1.0, 1.0], dtype=torch.float64)),
        ("weights", torch.tensor([1.0, torch.nan, 1.0], dtype=torch.float64)),
        ("ease.starts", torch.zeros(4, dtype=torch.int64)),
        ("item_item.others", torch.full((150,), 30, dtype=torch.int32)),
        ("item_item.others", torch.full((150,), -1, dtype=torch.int32)),
    ],
)
def test_a_taste_that_does_not_fit_is_refused(
    name: str, tensor: torch.Tensor, behaved: Path
) -> None:
    stored = load_file(behaved / "shop" / layout.TASTE)
    if name == "item_item.others":
        tensor = tensor[:1].repeat(len(stored[name]))
    with pytest.raises(ValueError, match=r"weights|does not fit"):
        signals.restore(stored | {name: tensor}, 30, CPU)


def test_a_sealed_taste_of_another_shape_is_refused(
    behaved: Path, encoder: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(behaved / "shop", folder)
    save_file({"weights": torch.ones(3)}, folder / layout.TASTE)
    seal(folder)
    with pytest.raises(CatalogDamaged, match="cannot be read"):
        load_catalog("shop", folder, encoder)


# ---- measuring


def test_what_is_held_out_is_not_learnt(
    catalog: Catalog, encoder: Encoder, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[Interactions] = []

    def watched(interactions: Interactions, *rest: Any) -> signals.Taste:
        taught.append(interactions)
        return learn(interactions, *rest)

    monkeypatch.setattr(trial, "learn", watched)
    users = [user for user in range(12) for _ in range(4)]
    items = [(user + 3 * n) % 30 for user in range(12) for n in range(4)]
    seen = arranged(users, items, [True] * 48, [n % 4 for n in range(48)], 30)
    last, by_time = trial.splits(seen)
    found = trial.run(last, seen, catalog, encoder, settings)
    assert found.users == 12
    assert len(taught[0]) == 36
    assert taught[0].times.max() == 2
    assert set(found.values) == {"popularity", "content", "item_item", "ease", "reclane"}
    trial.run(by_time, seen, catalog, encoder, settings)
    assert taught[1].times.max() == 2


def test_eval_takes_interactions_instead_of_requests(behaved: Path) -> None:
    folder, seen = str(behaved / "shop"), str(behaved / "seen.csv")
    options = ["eval", folder, "--interactions", seen, "--model", "hash:384"]
    done = CliRunner().invoke(cli, options)
    assert done.exit_code == 0, done.output
    assert "popularity" in done.output
    for wrong in (["eval", folder], [*options, "--ablate"]):
        assert CliRunner().invoke(cli, wrong).exit_code == 2
