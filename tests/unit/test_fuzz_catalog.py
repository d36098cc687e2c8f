"""A catalog folder that is not what a build made: a typed error, or a catalog that answers."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fuzzing import bytes_like, changed, damaged
from reclane.contract import Failure, RecommendRequest
from reclane.errors import CatalogDamaged, CatalogError
from reclane_worker import manifest as layout
from reclane_worker.building import build_catalog
from reclane_worker.catalog import load_catalog
from reclane_worker.encoder import Encoder
from reclane_worker.manifest import read_manifest
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings
from sealing import seal

ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
MANIFEST = {
    **{"format": 1, "version": "a", "model": "m", "model_revision": "r", "pooling": "mean"},
    **{"dim": 384, "items": 2, "fields": ["kind"], "created": "-", "files": {"items.jsonl": "0"}},
}


@pytest.fixture(scope="session")
def small(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "small"
    items = [SourceItem("a", "film", "a quiet film", {"kind": "x", "year": 1999})]
    items += [SourceItem("b", "shoes", "red running shoes", {"kind": ["y"], "new": True})]
    build_catalog(items, folder, encoder)
    return folder


@pytest.fixture
def load(encoder: Encoder, small: Path, tmp_path: Path) -> Callable[[str, bytes], None]:
    """Replaces one file of a folder, seals that anew, and uses what is loaded of it."""
    shutil.copytree(small, tmp_path / "copy")
    settings = WorkerSettings(model="hash:384", device="cpu")

    def replaced(name: str, content: bytes) -> None:
        folder = tmp_path / "copy"
        shutil.copytree(small, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(content)
        seal(folder)
        with suppress(CatalogError):
            catalog = load_catalog("c", folder, encoder)
            (answer,) = Pipeline(encoder, {"c": catalog}, settings).recommend(
                [RecommendRequest(query="red film", k=2, fields=["kind", "text"])]
            )
            assert not isinstance(answer, Failure)

    return replaced


@given(content=bytes_like(MANIFEST))
@ONE_FOLDER
def test_any_manifest_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / layout.MANIFEST).write_bytes(content)
    with suppress(CatalogDamaged):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", layout.FILES)
def test_a_sealed_folder_with_a_damaged_file_is_refused_or_answers(
    name: str, small: Path, load: Callable[[str, bytes], None]
) -> None:
    valid = (small / name).read_bytes()

    @given(content=damaged(valid) | st.binary(max_size=100))
    @settings(max_examples=max(10, settings().max_examples // 3))
    def check(content: bytes) -> None:
        load(name, content)

    check()


@given(data=st.data())
@settings(ONE_FOLDER, max_examples=max(10, settings().max_examples // 3))
@example(data=None)
def test_sealed_items_of_any_json_are_refused_or_answer(
    data: Any, small: Path, load: Callable[[str, bytes], None]
) -> None:
    rows = [json.loads(line) for line in (small / layout.ITEMS).read_bytes().splitlines()]
    if data is None:
        rows[0]["title"] = None
    else:
        rows = data.draw(changed(rows))
    lines = rows if isinstance(rows, list) else [rows]
    load(layout.ITEMS, b"\n".join(json.dumps(row).encode() for row in lines))


@pytest.mark.parametrize("name", [layout.MANIFEST, *layout.FILES])
def test_a_folder_in_a_file_s_place_is_a_damaged_catalog(
    name: str, small: Path, tmp_path: Path, encoder: Encoder
) -> None:
    copy = Path(shutil.copytree(small, tmp_path / "copy"))
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(CatalogDamaged):
        load_catalog("c", copy, encoder)
