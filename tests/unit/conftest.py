"""Fixtures for unit tests: a clean environment, a stand-in encoder, a small shop of items."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from reclane_worker.building import build_catalog
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.encoder import Encoder, Role, Tokens, load_encoder
from reclane_worker.hashing import HashEncoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings

_KINDS = ("running shoes", "space film", "piano record", "coffee grinder", "science news")
_MOODS = ("quiet", "bright", "classic", "modern", "small", "wide")
_CHINESE = ("跑步鞋", "科幻电影", "钢琴音乐", "咖啡", "科学新闻")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the RECLANE_* variables of whoever runs it."""
    for name in os.environ:
        if name.startswith("RECLANE_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def settings() -> WorkerSettings:
    return WorkerSettings(model="hash:384", device="cpu")


@pytest.fixture(scope="session")
def encoder(settings: WorkerSettings) -> Encoder:
    return load_encoder(settings)


class ShortSighted(HashEncoder):
    """Reads no more than six words of an item."""

    max_tokens = 6

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        whole = super().tokenise(texts, role)
        return whole if role == "query" else [tokens[: self.max_tokens] for tokens in whole]


@pytest.fixture(scope="session")
def short_sighted() -> Encoder:
    return ShortSighted(384, torch.device("cpu"))


@pytest.fixture(scope="session")
def shop() -> list[SourceItem]:
    """30 items, no two alike: i00 to i29, five kinds by turns."""
    items = []
    for number in range(30):
        kind, mood = _KINDS[number % 5], _MOODS[number // 5]
        attributes = {
            "kind": kind,
            "price": 10 + number,
            "tags": [mood, "odd" if number % 2 else "even"],
            "new": number >= 20,
        }
        if number % 3 == 0:
            attributes["stars"] = number / 10
        text = f"number{number} {_CHINESE[number % 5]} for every day {number * 7}"
        items.append(SourceItem(f"i{number:02}", f"{mood} {kind}", text, attributes))
    return items


@pytest.fixture(scope="session")
def shop_folder(
    shop: list[SourceItem], encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    build_catalog(shop, folder, encoder)
    return folder


@pytest.fixture(scope="session")
def catalog(shop_folder: Path, encoder: Encoder) -> Catalog:
    return load_catalog("shop", shop_folder, encoder)


@pytest.fixture(scope="session")
def pipeline(encoder: Encoder, catalog: Catalog, settings: WorkerSettings) -> Pipeline:
    return Pipeline(encoder, {"shop": catalog}, settings)


@pytest.fixture
def make_catalog(tmp_path: Path, encoder: Encoder) -> Callable[..., Catalog]:
    """Builds and loads a catalog from items; by default under the stand-in encoder."""

    def make(items: list[SourceItem], name: str = "made", model: Encoder = encoder) -> Catalog:
        build_catalog(items, tmp_path / name, model)
        return load_catalog(name, tmp_path / name, model)

    return make
