"""Histories of real users: what they liked last, foreseen from what they liked before."""

import csv
import gzip
import os
from pathlib import Path

import pytest

from reclane.contract import RecommendRequest
from reclane_worker.building import build_catalog
from reclane_worker.catalog import load_catalog
from reclane_worker.encoder import load_encoder
from reclane_worker.metrics import gain
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste import trial
from reclane_worker.taste.interactions import InteractionColumns, read_interactions
from reclane_worker.taste.learning import add_taste

NAMED = InteractionColumns(user="userId", item="movieId")

pytestmark = [
    pytest.mark.data,
    pytest.mark.timeout(400),
    pytest.mark.skipif("RECLANE_DATA_DIR" not in os.environ, reason="RECLANE_DATA_DIR is not set"),
]


def rows(name: str) -> list[dict[str, str]]:
    path = Path(os.environ["RECLANE_DATA_DIR"]) / "movielens" / name
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def test_the_joined_signals_foresee_what_users_like_next(tmp_path: Path) -> None:
    ratings = rows("ratings.csv.gz")
    seen = tmp_path / "ratings.csv"
    with seen.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ratings[0]))
        writer.writeheader()
        writer.writerows(ratings)
    films = [
        SourceItem(row["movieId"], row["title"], "", {"genres": [*row["genres"].split("|")]})
        for row in rows("movies.csv.gz")
    ]
    settings = WorkerSettings.load(model="hash:384")
    encoder = load_encoder(settings)
    build_catalog(
        films,
        tmp_path / "films",
        encoder,
        fields=("title", "genres"),
        learn=[lambda folder: add_taste(folder, seen, NAMED, pytest.fail)],
    )
    catalog = load_catalog("films", tmp_path / "films", encoder)

    interactions = read_interactions(seen, NAMED, catalog.ids, pytest.fail)
    found = trial.run(next(trial.splits(interactions)), interactions, catalog, encoder, settings)
    recall = {system: values["R@10"] for system, values in found.values.items()}
    means = {system: sum(values) / len(values) for system, values in recall.items()}
    assert found.users == 608
    assert means["popularity"] == pytest.approx(0.043, abs=0.001)  # as measured elsewhere
    assert means["reclane"] > 0.117  # a hand-tuned sum of the same signals
    for system in ("popularity", "content", "item_item"):
        assert gain(recall["reclane"], recall[system]).low > 0

    pipeline = Pipeline(encoder, {"films": catalog}, settings)
    history = ("260", "1196")  # two of Star Wars; 1210 is the third
    (answer,) = pipeline.recommend([RecommendRequest(history=history, k=10)])
    assert isinstance(answer, dict)
    assert "1210" in [item["id"] for item in answer["items"]]
