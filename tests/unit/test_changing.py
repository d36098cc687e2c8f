"""Catalogs that change: as if they had been built of what they hold, at the cost of the change."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reclane.contract import RecommendRequest
from reclane.errors import CatalogBusy, CatalogDamaged, CatalogError, CatalogMismatch, ItemsInvalid
from reclane_worker import disk
from reclane_worker import manifest as layout
from reclane_worker.building import build_catalog
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.changing import compact, delete, upsert
from reclane_worker.encoder import Encoder, Role, Tokens, load_encoder
from reclane_worker.hashing import HashEncoder
from reclane_worker.index.lexical import LexicalBuilder
from reclane_worker.intent.schema import Aliases
from reclane_worker.manifest import read_manifest, verify
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings

QUERIES = ("quiet film", "red shoes under 30", "not a film", "news", "科幻电影", "new tag7")
WORDS = st.sampled_from(["quiet", "red", "film", "shoes", "news", "科幻电影", "tag7", "old"])
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["film", "shoes", "news"]),
        "price": st.integers(1, 50) | st.floats(1, 50),
        "tags": st.lists(WORDS, max_size=3),
        "new": st.booleans(),
    },
)


@st.composite
def made_items(draw: st.DrawFn, most: int = 6) -> list[SourceItem]:
    ids = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=most))
    return [
        SourceItem(
            one,
            " ".join(draw(st.lists(WORDS, min_size=1, max_size=3))),
            " ".join(draw(st.lists(WORDS, max_size=9))),
            draw(ATTRIBUTES),
        )
        for one in ids
    ]


CHANGES = st.lists(
    made_items(3) | st.lists(st.sampled_from("abcdefghz"), max_size=3) | st.none(), max_size=6
)


@pytest.fixture
def copy(shop_folder: Path, tmp_path: Path) -> Path:
    """A copy of the shop's folder, to be changed."""
    return Path(shutil.copytree(shop_folder, tmp_path / "copy"))


@pytest.fixture
def answers(encoder: Encoder, settings: WorkerSettings) -> Callable[..., list[Any]]:
    """All that a catalog answers to some requests, its version and times left out."""

    def ask(catalog: Catalog, queries: Sequence[str] = QUERIES) -> list[Any]:
        pipeline = Pipeline(encoder, {catalog.name: catalog}, settings)
        requests = [RecommendRequest(query=query, k=5) for query in queries]
        requests += [RecommendRequest(history=(item,), k=5) for item in catalog.ids[:3]]
        found: list[Any] = pipeline.recommend(requests)
        return [{name: one[name] for name in ("items", "intent", "flags")} for one in found]

    return ask


def item(name: str, title: str = "a quiet film", **attributes: Any) -> SourceItem:
    return SourceItem(name, title, "", attributes)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, by its path."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != disk.LOCK]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Counting(HashEncoder):
    """Knows which texts it encoded."""

    def __init__(self) -> None:
        super().__init__(384, torch.device("cpu"))
        self.texts: list[str] = []

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        self.texts += texts
        return super().tokenise(texts, role)


# ---- whatever is changed


@given(built=made_items(), changes=CHANGES)
@settings(
    max_examples=max(20, settings().max_examples // 2),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_changes_leave_what_a_build_of_the_same_items_makes(
    built: list[SourceItem],
    changes: list[Any],
    short_sighted: Encoder,
    answers: Callable[..., list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Items and their order are those of a dictionary that went through the same; vectors, those of
    passages, word scores, what was understood and every answer are a build's, before and after
    compaction."""
    encoder = short_sighted
    folder = tmp_path_factory.mktemp("any")
    changed, fresh = folder / "changed", folder / "fresh"
    build_catalog(built, changed, encoder)
    expected = {one.id: one for one in built}
    for change in changes:
        if change is None:
            compact(changed)
        elif change and isinstance(change[0], SourceItem):
            upsert(changed, change, encoder)
            expected |= {one.id: one for one in change}
        else:
            delete(changed, change)
            expected = {name: one for name, one in expected.items() if name not in change}
    build_catalog(expected.values(), fresh, encoder)
    theirs = load_catalog("c", fresh, encoder)
    assert_same(load_catalog("c", changed, encoder), theirs, answers)
    compact(changed)
    assert_same(load_catalog("c", changed, encoder), theirs, answers)
    assert read_manifest(changed).version == theirs.version
    shutil.rmtree(folder)


def assert_same(ours: Catalog, theirs: Catalog, answers: Callable[..., list[Any]]) -> None:
    assert list(ours.ids) == list(theirs.ids)
    assert list(ours.lines) == list(theirs.lines)
    assert ours.positions == theirs.positions
    assert torch.equal(ours.vectors, theirs.vectors)
    assert (ours.passages is None) == (theirs.passages is None)
    if ours.passages and theirs.passages:
        assert torch.equal(ours.passages.owners, theirs.passages.owners)
        assert torch.equal(ours.passages.vectors, theirs.passages.vectors)
    assert torch.equal(ours.lexical.scores(QUERIES), theirs.lexical.scores(QUERIES))
    assert answers(ours) == answers(theirs)


def test_an_item_that_is_changed_keeps_its_place_and_one_that_comes_back_is_last(
    copy: Path, encoder: Encoder
) -> None:
    upsert(copy, [item("new"), item("i03", "changed")], encoder)
    delete(copy, ["i05"])
    upsert(copy, [item("i05", "back")], encoder)
    catalog = load_catalog("shop", copy, encoder)
    assert catalog.titles[3] == "changed"
    assert list(catalog.ids[-3:]) == ["i29", "new", "i05"]


def test_what_is_new_can_be_asked_for(
    copy: Path, encoder: Encoder, settings: WorkerSettings
) -> None:
    """New values, new attributes, and numbers out of the range so far, before any compaction."""
    news = [item(f"n{n}", "breaking news", kind="politics", price=900, seats=n) for n in range(9)]
    upsert(copy, news, encoder)
    pipeline = Pipeline(encoder, {"shop": load_catalog("shop", copy, encoder)}, settings)
    for query in ("politics", "seats: at least 5", "over 800 dollars"):
        (answer,) = pipeline.recommend([RecommendRequest(query=query, k=3)])
        assert isinstance(answer, dict)
        assert answer["intent"]["constraints"], query
        assert all(one["id"].startswith("n") for one in answer["items"]), query


def test_aliases_stay(shop: list[SourceItem], encoder: Encoder, tmp_path: Path) -> None:
    named = Aliases(
        attributes={"price": ("fare",)}, values={"kind": {"coffee grinder": ("burr mill",)}}
    )
    build_catalog(shop, tmp_path / "shop", encoder, aliases=named)

    def read() -> list[tuple[str, ...]]:
        reader = load_catalog("shop", tmp_path / "shop", encoder).reader
        return [one.attributes for one in reader.read("a burr mill, fare under 20").constraints]

    before = read()
    assert before == [("kind",), ("price",)]
    upsert(tmp_path / "shop", [item("new", kind="news", price=3)], encoder)
    assert read() == before
    compact(tmp_path / "shop")
    assert read() == before
    delete(tmp_path / "shop", [one.id for one in shop])
    delete(tmp_path / "shop", ["new"])
    assert read() == []


# ---- what it costs


def test_only_what_differs_is_encoded(shop: list[SourceItem], copy: Path) -> None:
    encoder = Counting()
    given = [*shop, item("new", "brand new")]
    given[4] = item("i04", "another title")
    change = upsert(copy, given, encoder)
    assert sorted(encoder.texts) == ["another title", "brand new"]
    tally = change.tally
    assert (tally.added, tally.updated, tally.unchanged) == (1, 1, 29)
    assert change.manifest.items == 31


def test_items_as_they_are_change_nothing(
    shop: list[SourceItem], copy: Path, encoder: Encoder
) -> None:
    before = contents(copy)
    change = upsert(copy, shop, encoder)
    assert (change.tally.unchanged, change.manifest) == (30, read_manifest(copy))
    assert delete(copy, ["nobody"]).tally.absent == 1
    assert contents(copy) == before
    upsert(copy, [item("new")], encoder)
    before = contents(copy)
    assert upsert(copy, [item("new")], encoder).tally.unchanged == 1
    assert contents(copy) == before


def test_a_change_neither_writes_nor_counts_what_it_leaves(
    copy: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copy)
    counted: list[str] = []
    add = LexicalBuilder.add
    monkeypatch.setattr(
        LexicalBuilder, "add", lambda self, text: counted.append(text) or add(self, text)
    )
    upsert(copy, [item("new", "brand new")], encoder)
    delete(copy, ["i00"])
    assert counted == ["brand new"]
    after = contents(copy)
    assert {name: after[name] for name in before if name != layout.MANIFEST} == {
        name: data for name, data in before.items() if name != layout.MANIFEST
    }
    read: list[int] = []
    monkeypatch.setattr(
        "reclane_worker.lookup.from_json", lambda line: read.append(1) or json.loads(line)
    )
    upsert(copy, [item("new", "again")], encoder)
    assert len(read) <= 2


def test_compaction_encodes_nothing(copy: Path) -> None:
    encoder = Counting()
    upsert(copy, [item("new", "brand new")], encoder)
    encoder.texts.clear()
    before = load_catalog("shop", copy, encoder).vectors
    compact(copy)
    assert torch.equal(load_catalog("shop", copy, encoder).vectors, before)
    assert encoder.texts == []


# ---- versions


def test_versions_since_the_compaction_before_can_be_loaded_and_then_are_gone(
    copy: Path, encoder: Encoder
) -> None:
    titles: dict[str, str] = {}

    def change(title: str) -> None:
        upsert(copy, [item("i00", title)], encoder)
        titles[read_manifest(copy).version] = title

    def loaded() -> list[str]:
        held = []
        for version in titles:
            with suppress(CatalogDamaged):
                held.append(load_catalog("shop", copy, encoder, version).titles[0])
        return held

    change("one")
    change("two")
    compact(copy)
    change("three")
    assert loaded() == ["one", "two", "three"]
    compact(copy)
    assert loaded() == ["three"]
    change("four")
    assert loaded() == ["three", "four"]
    with pytest.raises(CatalogDamaged, match="publish one that it holds"):
        load_catalog("shop", copy, encoder, next(iter(titles)))
    assert not (copy / layout.ITEMS).exists()


def test_the_folder_holds_what_its_versions_need_and_no_more(copy: Path, encoder: Encoder) -> None:
    for round_ in range(3):
        for n in range(3):
            upsert(copy, [item("i00", f"{round_} {n}")], encoder)
        compact(copy)
    needed = {layout.MANIFEST, disk.LOCK}
    for path in [copy / layout.MANIFEST, *(copy / layout.VERSIONS).iterdir()]:
        manifest = layout.Manifest.model_validate_json(path.read_bytes())
        verify(copy, manifest)
        needed |= {str(path.relative_to(copy)), *manifest.files}
    assert {*contents(copy), disk.LOCK} == needed
    assert len(list((copy / layout.VERSIONS).iterdir())) <= 6


def test_after_many_changes_the_next_one_compacts(
    copy: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_SEGMENTS", 3)
    for n in range(5):
        assert len(upsert(copy, [item("i00", f"{n}")], encoder).manifest.segments) <= 3
    catalog = load_catalog("shop", copy, encoder)
    assert (len(catalog), catalog.titles[0]) == (30, "4")
    assert read_manifest(copy).base


# ---- damage, other writers, other models


def test_a_damaged_layer_is_refused_by_name_and_not_compacted_away(
    copy: Path, encoder: Encoder
) -> None:
    upsert(copy, [item("new")], encoder)
    whole = contents(copy)
    for path in read_manifest(copy).files:
        data = bytearray(whole[path])
        data[len(data) // 2] ^= 1
        (copy / path).write_bytes(data)
        with pytest.raises(CatalogDamaged, match=path):
            load_catalog("shop", copy, encoder)
        with pytest.raises(CatalogDamaged, match=path):
            compact(copy)
        (copy / path).write_bytes(whole[path])
    load_catalog("shop", copy, encoder)


@pytest.mark.parametrize("content", [b"[1]", b'{"a": 1}', b'"i00"', b"\xff", b"", b"null"])
def test_a_sealed_segment_that_removes_no_list_of_ids_is_refused(
    content: bytes, copy: Path, encoder: Encoder
) -> None:
    manifest = delete(copy, ["i00"]).manifest
    path = f"{manifest.segments[0]}/{layout.REMOVED}"
    (copy / path).write_bytes(content)
    files = manifest.files | {path: layout.file_digest(copy / path)}
    version = layout.version_of(files, "", manifest.segments)
    sealed = manifest.model_copy(update={"files": files, "version": version})
    (copy / layout.MANIFEST).write_text(layout.shown(sealed))
    with pytest.raises(CatalogDamaged, match="cannot be read"):
        load_catalog("shop", copy, encoder)
    with pytest.raises(CatalogDamaged, match="cannot be read"):
        upsert(copy, [item("new")], encoder)


@pytest.mark.parametrize(
    "changes",
    [
        {"segments": ["segment-000001", "segment-000001"]},
        {"segments": ["../shop"]},
        {"segments": []},
        {"base": "base-000009"},
        {"base": "../shop"},
    ],
)
def test_a_manifest_whose_layers_were_altered_is_refused(
    changes: dict[str, Any], copy: Path, encoder: Encoder
) -> None:
    upsert(copy, [item("new")], encoder)
    path = copy / layout.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CatalogDamaged):
        load_catalog("shop", copy, encoder)


def test_one_process_changes_a_folder_at_a_time(copy: Path, encoder: Encoder) -> None:
    before = contents(copy)
    with disk.locked(copy):
        for change in (
            lambda: upsert(copy, [item("new")], encoder),
            lambda: delete(copy, ["i00"]),
            lambda: compact(copy),
            lambda: build_catalog([item("new")], copy, encoder, replace=True),
        ):
            with pytest.raises(CatalogBusy, match="another process"):
                change()
    assert contents(copy) == before
    assert delete(copy, ["i00"]).tally.removed == 1


def test_another_model_may_not_change_a_catalog(copy: Path) -> None:
    other = load_encoder(WorkerSettings(model="hash:256", device="cpu"))
    with pytest.raises(CatalogMismatch):
        upsert(copy, [item("new")], other)
    assert not (copy / disk.LOCK).exists()


def test_a_folder_that_is_no_catalog_is_left_alone(tmp_path: Path, encoder: Encoder) -> None:
    for change in (lambda: upsert(tmp_path, [], encoder), lambda: compact(tmp_path)):
        with pytest.raises(CatalogDamaged, match="reclane catalog build"):
            change()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_says_so(copy: Path, encoder: Encoder) -> None:
    (copy / disk.LOCK).mkdir()  # root may write everywhere else
    with pytest.raises(CatalogError, match="cannot be changed"):
        upsert(copy, [item("new")], encoder)


def test_a_full_disk_leaves_the_catalog_as_it_was(
    copy: Path, encoder: Encoder, small_disk: Path
) -> None:
    shutil.copytree(copy, small_disk / "shop")
    before = contents(small_disk / "shop")
    large = [item(f"n{n}", f"word{n} " * 50) for n in range(200)]
    with pytest.raises(CatalogError, match="cannot be changed"):
        upsert(small_disk / "shop", large, encoder)
    assert contents(small_disk / "shop") == before


@pytest.mark.parametrize("small", [0, 10**9])
def test_items_are_found_however_many_there_are(
    small: int, copy: Path, shop: list[SourceItem], encoder: Encoder, monkeypatch: Any
) -> None:
    monkeypatch.setattr("reclane_worker.lookup._SMALL", small)
    monkeypatch.setattr("reclane_worker.lookup._digest", lambda item: hash(item) % 7)  # they clash
    build_catalog(shop, copy, encoder, replace=True)
    assert upsert(copy, [*shop[:10], item("new")], encoder).tally.unchanged == 10
    assert delete(copy, [*(one.id for one in shop), "new", "nobody"]).tally.removed == 31
    assert len(load_catalog("shop", copy, encoder)) == 0


def test_an_item_that_comes_twice_changes_nothing(copy: Path, encoder: Encoder) -> None:
    before = contents(copy)
    with pytest.raises(ItemsInvalid, match="'new' comes twice"):
        upsert(copy, [item("new", "one"), item("new", "two")], encoder)
    assert contents(copy) == before


def interrupted() -> Iterable[SourceItem]:
    yield item("new")
    raise ItemsInvalid("line 2")


def test_a_change_with_a_bad_item_changes_nothing(copy: Path, encoder: Encoder) -> None:
    before = contents(copy)
    with pytest.raises(ItemsInvalid):
        upsert(copy, interrupted(), encoder)
    assert contents(copy) == before
