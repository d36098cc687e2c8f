"""Long items under real weights: what comes after all that the model takes is found."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reclane.contract import RecommendRequest
from reclane_worker import multilingual
from reclane_worker.building import build_catalog
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.demo import MODEL
from reclane_worker.encoder import Encoder, load_encoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings

BEGINNING = (
    "The accountant reads another report and signs it. Then he has a coffee at his desk. " * 25
)
END = (
    "On the last day a whale is stranded on the beach. Fishermen pour water over the whale, "
    "children sing to it, and at high tide it swims away. "
) * 3
ITEMS = [
    SourceItem("office", "The Office Year", BEGINNING + END, {}),
    SourceItem("fish", "Cooking Fish", "Recipes for cod, herring and salmon.", {}),
    SourceItem("sand", "By the Sea", "Children swim and find shells on the beach.", {}),
    SourceItem("ledger", "The Ledger", "A clerk finds a mistake in the books of a bank.", {}),
]


@pytest.mark.parametrize("model", [MODEL, multilingual.NAME])
def test_what_comes_after_the_models_limit_is_found(model: str, tmp_path: Path) -> None:
    encoder = load_encoder(WorkerSettings.load(model=model))
    build_catalog(ITEMS, tmp_path / "long", encoder)
    catalog = load_catalog("long", tmp_path / "long", encoder)
    assert catalog.passages
    assert set(catalog.passages.owners.tolist()) == {0}
    assert first(encoder, catalog) == "office"
    assert first(encoder, replace(catalog, passages=None)) != "office"


def first(encoder: Encoder, catalog: Catalog) -> str:
    """What comes first by vectors alone."""
    settings = WorkerSettings.load(model=encoder.name, dense_weight=1.0)
    pipeline = Pipeline(encoder, {catalog.name: catalog}, settings)
    answers: list[Any] = pipeline.recommend([RecommendRequest(query="a whale lies on the beach")])
    return str(answers[0]["items"][0]["id"])
