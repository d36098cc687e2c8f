"""Catalog folders: built whole or not at all, verified on loading."""

import json
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from reclane.contract import RecommendRequest
from reclane.errors import CatalogDamaged, CatalogError, CatalogMismatch, ItemsInvalid, ReclaneError
from reclane_worker import manifest as layout
from reclane_worker.building import build_catalog, indexed_text
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.encoder import Encoder, Role, Tokens, load_encoder
from reclane_worker.hashing import HashEncoder
from reclane_worker.manifest import read_manifest, verify
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import Columns, SourceItem, read_items
from reclane_worker.settings import WorkerSettings
from reclane_worker.text import normalise


@pytest.fixture
def copy(shop_folder: Path, tmp_path: Path) -> Path:
    """A copy of the shop's folder, to be damaged."""
    return Path(shutil.copytree(shop_folder, tmp_path / "copy"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


# ---- build and load


def test_a_catalog_holds_what_it_was_built_from(catalog: Catalog, shop: list[SourceItem]) -> None:
    assert list(catalog.ids) == [item.id for item in shop]
    assert list(catalog.titles) == [item.title for item in shop]
    assert catalog.positions == {item.id: position for position, item in enumerate(shop)}
    assert len(catalog) == 30
    assert catalog.fields(4, ("price", "tags", "text", "absent", "title")) == {
        "price": 14,
        "tags": ["quiet", "even"],
        "text": shop[4].text,
    }


def test_each_vector_is_that_of_its_items_text(
    catalog: Catalog, shop: list[SourceItem], encoder: Encoder
) -> None:
    texts = [indexed_text(item, ("title", "text")) for item in shop]
    expected = encoder.encode(encoder.tokenise(texts, "document"), "document")
    assert catalog.vectors.dtype == torch.float32
    torch.testing.assert_close(catalog.vectors, expected)


def test_the_manifest_says_what_made_it(shop_folder: Path, encoder: Encoder) -> None:
    manifest = read_manifest(shop_folder)
    assert (manifest.model, manifest.model_revision) == (encoder.name, encoder.revision)
    assert (manifest.dim, manifest.items, manifest.fields) == (384, 30, ("title", "text"))
    assert set(manifest.files) == set(layout.FILES)
    verify(shop_folder, manifest)


def test_a_folder_holds_its_files_and_nothing_else(shop_folder: Path) -> None:
    assert {path.name for path in shop_folder.iterdir()} == {*layout.FILES, layout.MANIFEST}
    assert stat.S_IMODE(shop_folder.stat().st_mode) == 0o755


def test_known_leaves_out_ids_that_the_catalog_has_not(catalog: Catalog) -> None:
    assert catalog.known(["i03", "nobody", "i00"]) == [3, 0]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("title", "text"), "Heat. A heist."),
        (("text", "title"), "A heist.. Heat"),
        (("title", "tags", "year"), "Heat. crime, drama. 1995"),
        (("title", "absent", "empty"), "Heat"),
        (("absent",), ""),
        ((), ""),
    ],
)
def test_fields_are_joined_in_their_order(fields: tuple[str, ...], text: str) -> None:
    attributes = {"tags": ["crime", "drama"], "year": 1995, "empty": ""}
    item = SourceItem("1", "Heat", "A  heist.", attributes)  # type: ignore[arg-type]
    assert indexed_text(item, fields) == text


def test_a_long_text_is_cut() -> None:
    assert len(indexed_text(SourceItem("1", "t", "x" * 50_000, {}), ("text",))) == 20_000


def test_an_item_without_words_is_still_found_by_id(make_catalog: Callable[..., Catalog]) -> None:
    catalog = make_catalog([SourceItem("a", "!!!", "", {}), SourceItem("b", "Heat", "", {})])
    assert catalog.known(["a"]) == [0]
    assert bool(torch.isfinite(catalog.vectors).all())


def test_line_ends_inside_texts_do_not_split_items(make_catalog: Callable[..., Catalog]) -> None:
    text = "a\nb\r\nc\u2028d\u0085e\x0bf\x1cg"
    catalog = make_catalog([SourceItem("a", "t", text, {}), SourceItem("b", "t2", "x", {})])
    assert len(catalog) == 2
    assert catalog.fields(0, ("text",)) == {"text": text}


def test_more_items_than_a_chunk_keep_their_order(
    make_catalog: Callable[..., Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [SourceItem(f"i{n}", f"w{n} " * (n % 7 + 1), "", {}) for n in range(50)]
    whole = make_catalog(items, "whole")
    monkeypatch.setattr("reclane_worker.building.CHUNK", 8)
    parts = make_catalog(items, "parts")
    assert list(parts.ids) == list(whole.ids)
    torch.testing.assert_close(parts.vectors, whole.vectors)
    assert parts.version == whole.version


def test_progress_counts_up_to_all_items(
    shop: list[SourceItem], encoder: Encoder, tmp_path: Path
) -> None:
    seen: list[int] = []
    build_catalog(shop, tmp_path / "out", encoder, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 30


def test_an_empty_items_file_builds_and_answers(
    encoder: Encoder, settings: WorkerSettings, tmp_path: Path
) -> None:
    (tmp_path / "items.jsonl").touch()
    items = read_items(tmp_path / "items.jsonl", Columns(), pytest.fail)
    assert build_catalog(items, tmp_path / "empty", encoder).items == 0
    catalog = load_catalog("empty", tmp_path / "empty", encoder)
    pipeline = Pipeline(encoder, {"empty": catalog}, settings)
    (answer,) = pipeline.recommend([RecommendRequest(query="shoes")])
    assert isinstance(answer, dict)
    assert answer["items"] == []
    assert answer["flags"][0]["code"] == "nothing_fits"


# ---- versions


def test_the_same_items_give_the_same_version(
    shop: list[SourceItem], shop_folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    again = build_catalog(iter(shop), tmp_path / "again", encoder)
    assert again.version == read_manifest(shop_folder).version
    assert len(again.version) == 12


@pytest.mark.parametrize("change", ["title", "order", "fewer", "fields"])
def test_other_items_give_another_version(
    change: str, shop: list[SourceItem], shop_folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    items, fields = list(shop), ("title", "text")
    if change == "title":
        items[0] = SourceItem(items[0].id, "other", items[0].text, items[0].attributes)
    elif change == "order":
        items.reverse()
    elif change == "fewer":
        items.pop()
    else:
        fields = ("text", "title")
    other = build_catalog(items, tmp_path / "other", encoder, fields=fields)
    assert other.version != read_manifest(shop_folder).version


# ---- damage


@pytest.mark.parametrize("place", [0, -1, 100])
@pytest.mark.parametrize("name", layout.FILES)
def test_a_file_with_one_bit_flipped_is_refused_by_name(
    name: str, place: int, copy: Path, encoder: Encoder
) -> None:
    flip(copy / name, place)
    with pytest.raises(CatalogDamaged, match=name):
        load_catalog("shop", copy, encoder)


@pytest.mark.parametrize("name", layout.FILES)
def test_a_file_cut_short_is_refused_by_name(name: str, copy: Path, encoder: Encoder) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(CatalogDamaged, match=name):
        load_catalog("shop", copy, encoder)


@pytest.mark.parametrize("name", [*layout.FILES, layout.MANIFEST])
def test_a_file_removed_is_refused_by_name(name: str, copy: Path, encoder: Encoder) -> None:
    (copy / name).unlink()
    with pytest.raises(CatalogDamaged, match=name):
        load_catalog("shop", copy, encoder)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"format": 1}'])
def test_a_manifest_that_cannot_be_read_is_refused_by_name(
    data: bytes, copy: Path, encoder: Encoder
) -> None:
    (copy / layout.MANIFEST).write_bytes(data)
    with pytest.raises(CatalogDamaged, match=layout.MANIFEST):
        load_catalog("shop", copy, encoder)


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / layout.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_manifest_that_names_no_digest_is_refused(copy: Path, encoder: Encoder) -> None:
    change_manifest(copy, files={})
    with pytest.raises(CatalogDamaged, match="was altered"):
        load_catalog("shop", copy, encoder)


def test_a_newer_format_is_refused(copy: Path, encoder: Encoder) -> None:
    change_manifest(copy, format=4)
    with pytest.raises(CatalogDamaged, match="format 4, this reclane reads 3"):
        load_catalog("shop", copy, encoder)


@pytest.mark.parametrize("changes", [{"version": "000000000000"}, {"items": 31}])
def test_a_manifest_altered_by_hand_is_refused(
    changes: dict[str, object], copy: Path, encoder: Encoder
) -> None:
    change_manifest(copy, **changes)
    with pytest.raises(CatalogDamaged):
        load_catalog("shop", copy, encoder)


@pytest.mark.parametrize("changes", [{"model_revision": "2"}, {"dim": 256}])
def test_vectors_of_another_model_are_refused(
    changes: dict[str, object], copy: Path, encoder: Encoder
) -> None:
    change_manifest(copy, **changes)
    with pytest.raises(CatalogMismatch, match="build it again or set RECLANE_MODEL"):
        load_catalog("shop", copy, encoder)


def test_another_encoder_refuses_the_catalog(shop_folder: Path) -> None:
    other = load_encoder(WorkerSettings(model="hash:256", device="cpu"))
    with pytest.raises(CatalogMismatch, match="hash:384@1"):
        load_catalog("shop", shop_folder, other)


def test_a_folder_that_is_no_catalog_says_how_to_make_one(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(CatalogDamaged, match="reclane catalog build"):
        load_catalog("shop", tmp_path, encoder)


# ---- building is atomic


def test_an_existing_folder_is_kept_without_the_flag(
    shop: list[SourceItem], copy: Path, encoder: Encoder
) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(CatalogError, match="--replace"):
        build_catalog(shop[:3], copy, encoder)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_replace_puts_the_new_folder_in_place_of_the_old(
    shop: list[SourceItem], copy: Path, encoder: Encoder
) -> None:
    build_catalog(shop[:3], copy, encoder, replace=True)
    assert len(load_catalog("shop", copy, encoder)) == 3
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def interrupted(shop: list[SourceItem], error: BaseException) -> Iterator[SourceItem]:
    yield from shop[:5]
    raise error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ItemsInvalid("line 6"), OSError("disk full"), SystemExit(1)]
)
def test_an_interrupted_build_leaves_nothing_behind(
    error: BaseException, shop: list[SourceItem], encoder: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        build_catalog(interrupted(shop, error), tmp_path / "out", encoder)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_keeps_the_old_folder(
    shop: list[SourceItem], copy: Path, encoder: Encoder
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_catalog(interrupted(shop, KeyboardInterrupt()), copy, encoder, replace=True)
    assert len(load_catalog("shop", copy, encoder)) == 30
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_replace_works_where_the_folder_is_a_link(
    shop: list[SourceItem], copy: Path, encoder: Encoder
) -> None:
    link = copy.parent / "current"
    link.symlink_to(copy)
    build_catalog(shop[:3], link, encoder, replace=True)
    assert len(load_catalog("shop", link, encoder)) == 3
    assert {path.name for path in copy.parent.iterdir()} == {"copy", "current"}


def test_replace_refuses_a_file_and_keeps_it(
    shop: list[SourceItem], encoder: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CatalogError):
        build_catalog(shop[:3], tmp_path / "notes.txt", encoder, replace=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_replace_refuses_a_folder_that_is_no_catalog(
    shop: list[SourceItem], encoder: Encoder, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.jpg").write_bytes(b"mine")
    with pytest.raises(CatalogError):
        build_catalog(shop[:3], photos, encoder, replace=True)
    assert (photos / "one.jpg").read_bytes() == b"mine"


class _NanEncoder(HashEncoder):
    def encode(self, tokens: list[Tokens], role: Role) -> torch.Tensor:  # type: ignore[override]
        return super().encode(tokens, role) * torch.nan


def test_a_model_that_gives_nan_builds_no_catalog(shop: list[SourceItem], tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="not numbers"):
        build_catalog(shop, tmp_path / "out", _NanEncoder(8, torch.device("cpu")))
    assert list(tmp_path.iterdir()) == []


# ---- the stand-in model


def test_the_stand_in_gives_unit_vectors_that_depend_on_the_text_alone(encoder: Encoder) -> None:
    texts = ["running shoes", "Running  SHOES", "科幻电影", ""]
    vectors = encoder.encode(encoder.tokenise(texts, "query"), "query")
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert torch.equal(vectors[0], vectors[1])
    alone = encoder.encode(encoder.tokenise([normalise("running shoes")], "document"), "document")
    assert torch.equal(alone[0], vectors[0])


@pytest.mark.parametrize("model", ["hash:", "hash:abc", "hash:0", "hash:-1"])
def test_a_stand_in_without_a_usable_dimension_is_refused(model: str) -> None:
    with pytest.raises(ReclaneError):
        load_encoder(WorkerSettings(model=model, device="cpu"))
