"""Long items: what they say beyond what the model takes is found by its vectors, too."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reclane.contract import RecommendRequest, parse_request
from reclane.errors import CatalogDamaged
from reclane_worker import manifest as layout
from reclane_worker import passages, retrieval, vectors
from reclane_worker.ablation import gains
from reclane_worker.building import build_catalog
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.changing import compact, delete, upsert
from reclane_worker.cli.info import info
from reclane_worker.encoder import Encoder, SentenceEncoder
from reclane_worker.item_texts import ItemTexts
from reclane_worker.metrics import per_request
from reclane_worker.passages import cut, windows
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings
from reclane_worker.training.judging import encoded_by
from sealing import seal
from small_model import FILLER, make_small_model

DENSE = WorkerSettings(model="hash:384", device="cpu", dense_weight=1.0)
QUERIES = ("harbour lighthouse", "quiet film", "a violin", "nothing of this", "three word27")


def told(name: str, title: str, text: str = "") -> SourceItem:
    return SourceItem(name, title, text, {})


ITEMS = [
    told("short", "harbour", "a boat"),
    told("long", "A quiet film", "People talk. They eat and talk. At last a lighthouse burns."),
    told("endless", "three", " ".join(f"word{n}" for n in range(90))),
    told("other", "violin"),
]


@pytest.fixture(scope="module")
def folder(short_sighted: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long"
    build_catalog(ITEMS, path, short_sighted)
    return path


@pytest.fixture(scope="module")
def catalog(folder: Path, short_sighted: Encoder) -> Catalog:
    return load_catalog("long", folder, short_sighted)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def ask(encoder: Encoder, catalog: Catalog, *requests: dict[str, Any]) -> list[Any]:
    pipeline = Pipeline(encoder, {catalog.name: catalog}, DENSE)
    answers: list[Any] = pipeline.recommend([parse_request(one) for one in requests])
    return [answer["items"] for answer in answers]


# ---- found


def test_what_only_the_end_of_a_long_item_tells_is_found_by_its_vectors(
    short_sighted: Encoder, catalog: Catalog
) -> None:
    (found,) = ask(short_sighted, catalog, {"query": "a lighthouse burns"})
    assert found[0]["id"] == "long"
    without = replace(catalog, passages=None)
    (found,) = ask(short_sighted, without, {"query": "lighthouse burns"})
    assert found[0]["id"] != "long"


def test_an_item_counts_as_its_best_vector(short_sighted: Encoder, catalog: Catalog) -> None:
    pipeline = Pipeline(short_sighted, {"long": catalog}, DENSE)
    requests = [RecommendRequest(query=query) for query in QUERIES]
    batch: Any = pipeline.prepare(requests, [0.0] * len(requests))
    intent, _ = retrieval.intent_vectors(batch, catalog, short_sighted)
    assert catalog.passages
    own, further = intent @ catalog.vectors.T, intent @ catalog.passages.vectors.T
    for item in range(len(catalog)):
        mine = further[:, catalog.passages.owners == item]
        own[:, item] = torch.cat([own[:, item : item + 1], mine], dim=1).amax(1)
    torch.testing.assert_close(retrieval.signs(batch, catalog, intent, 0.0).dense, own)


@pytest.mark.parametrize("cells", [1, 7, retrieval.MAX_CELLS])
def test_answers_in_a_batch_equal_answers_alone_whatever_the_memory_bound(
    short_sighted: Encoder, catalog: Catalog, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[dict[str, Any]] = [{"query": query} for query in QUERIES]
    requests += [{"history": ["long"]}, {"query": "lighthouse", "history": ["other"]}]
    alone = [ask(short_sighted, catalog, one)[0] for one in requests]
    monkeypatch.setattr(retrieval, "MAX_CELLS", cells)
    for ours, theirs in zip(ask(short_sighted, catalog, *requests), alone, strict=True):
        assert [one["id"] for one in ours] == [one["id"] for one in theirs]
        assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in theirs])


def test_a_history_alone_is_matched_with_the_items_own_vectors(
    short_sighted: Encoder, catalog: Catalog
) -> None:
    requests = [{"history": [item]} for item in catalog.ids]
    without = ask(short_sighted, replace(catalog, passages=None), *requests)
    together = ask(short_sighted, catalog, *requests, {"query": "lighthouse"})
    assert together[:-1] == without == ask(short_sighted, catalog, *requests)


def test_a_catalog_without_long_items_has_no_passages(
    short_sighted: Encoder, encoder: Encoder, tmp_path: Path
) -> None:
    for name, model in (("unlimited", encoder), ("short", short_sighted)):
        items = [item for item in ITEMS if name == "unlimited" or item.id in ("short", "other")]
        build_catalog(items, tmp_path / name, model)
        assert load_catalog(name, tmp_path / name, model).passages is None
        with safe_open(tmp_path / name / layout.VECTORS, "np") as file:
            assert list(file.keys()) == ["vectors"]


def test_the_items_own_vectors_are_those_of_their_beginnings(
    short_sighted: Encoder, catalog: Catalog
) -> None:
    texts = [item.title + ". " + item.text for item in ITEMS]
    tokens = short_sighted.tokenise(texts, "document")
    assert torch.equal(catalog.vectors, short_sighted.encode(tokens, "document"))


# ---- cut


def test_passages_begin_with_the_title_and_with_the_sentence_that_was_cut(
    short_sighted: Encoder,
) -> None:
    text = "Sea. One two three. Four five six. Seven. 八九十百千万亿。Eight nine ten"
    assert cut(text, "Sea", short_sighted) == [
        "Sea. Four five six. Seven.",
        "Sea. 八九十百千万亿。",
        "Sea. Eight nine ten",
    ]


def test_a_sentence_longer_than_a_passage_is_cut_at_words(short_sighted: Encoder) -> None:
    words = [f"w{n}" for n in range(20)]
    found = cut(" ".join(words), "", short_sighted)
    assert " ".join(found).split() == words[6:]
    assert max(len(passage.split()) for passage in found) == 6


def test_a_title_of_more_than_half_a_passage_is_left_out_and_so_is_one_that_is_not_encoded(
    short_sighted: Encoder,
) -> None:
    text = "one two three four five six seven"
    assert cut(text, "a b c", short_sighted) == ["a b c. seven"]
    assert cut(text, "a b c d", short_sighted) == ["seven"]
    assert passages.heading("A  film", ("title", "text")) == "A film"
    assert passages.heading("A  film", ("text", "kind")) == ""


def test_an_item_has_a_bounded_number_of_passages(short_sighted: Encoder, catalog: Catalog) -> None:
    assert catalog.passages
    assert torch.bincount(catalog.passages.owners).tolist() == [0, 4, passages.MOST]
    text = "x" * 20_000
    assert len(cut(text, text, short_sighted)) == passages.MOST


def test_a_real_tokenizer_takes_each_passage_whole(tmp_path: Path) -> None:
    model = SentenceEncoder("small", make_small_model(tmp_path / "m"), torch.device("cpu"))
    sentences = [" ".join([*FILLER[n % 5 :], f"hue{n % 8}"]) for n in range(24)]
    assert cut(". ".join(sentences[:2]), "", model) == []
    found = cut(". ".join(sentences), "hue1 form1", model)
    assert len(found) == passages.MOST
    assert all(passage.startswith("hue1 form1. ") for passage in found)
    model.max_tokens = 1_000
    lengths = [len(tokens) for tokens in model.tokenise(found, "document")]
    assert 16 <= min(lengths) <= max(lengths) <= 32


@given(
    pieces=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=30),
    first=st.integers(1, 12),
    other=st.integers(1, 12),
)
def test_windows_hold_every_piece_once_and_end_with_sentences_where_they_can(
    pieces: list[tuple[int, bool]], first: int, other: int
) -> None:
    counts, ends = [count for count, _ in pieces], [end for _, end in pieces]
    found = windows(counts, ends, first, other)
    assert [at for a, b in found for at in range(a, b)] == list(range(len(pieces)))
    for number, (a, b) in enumerate(found):
        room = other if number else first
        assert sum(counts[a:b]) <= room or b == a + 1
        if b < len(counts) and not ends[b - 1]:
            assert not any(ends[at] and 2 * sum(counts[a : at + 1]) >= room for at in range(a, b))
            assert sum(counts[a : b + 1]) > room


# ---- built, changed, refused


def test_passages_are_encoded_in_bounded_portions(
    short_sighted: Encoder, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK", 2)
    monkeypatch.setattr("reclane_worker.building.CHUNK", 3)
    done: list[int] = []
    manifest = build_catalog(ITEMS, tmp_path / "again", short_sighted, progress=done.append)
    assert manifest.version == catalog.version
    assert done == sorted(done)
    assert len(set(done)) > 2
    assert done[-1] == len(ITEMS)


def test_a_changed_item_has_the_passages_of_what_it_says_now(
    short_sighted: Encoder, copy: Path
) -> None:
    def owned() -> list[str]:
        catalog = load_catalog("long", copy, short_sighted)
        owners = catalog.passages.owners.unique().tolist() if catalog.passages else []
        return [catalog.ids[owner] for owner in owners]

    upsert(copy, [replace(ITEMS[3], text="now tells one two three four things")], short_sighted)
    assert owned() == ["long", "endless", "other"]
    upsert(copy, [told("long", "brief")], short_sighted)
    delete(copy, ["endless"])
    assert owned() == ["other"]
    (found,) = ask(
        short_sighted, load_catalog("long", copy, short_sighted), {"query": "four things"}
    )
    assert found[0]["id"] == "other"
    compact(copy)
    assert owned() == ["other"]
    delete(copy, ["other"])
    assert owned() == []


Tensors = dict[str, torch.Tensor]
DAMAGES: list[Callable[[Tensors], Tensors]] = [
    lambda of: {"passages": of["passages"].double()},
    lambda of: {"passages": of["passages"][1:]},
    lambda of: {"passages": of["passages"][:, 1:].contiguous()},
    lambda of: {"passages": of["passages"] / 0},
    lambda of: {"owners": of["owners"].long()},
    lambda of: {"owners": of["owners"].unsqueeze(1)},
    lambda of: {"owners": of["owners"] + 3},
    lambda of: {"owners": of["owners"] - 2},
    lambda of: {"owners": of["owners"].flip(0)},
]


@pytest.mark.parametrize("damage", [*DAMAGES, "passages", "owners"])
def test_passages_that_do_not_fit_the_items_are_refused(
    damage: Any, copy: Path, short_sighted: Encoder
) -> None:
    """Sealed anew, so that no digest tells."""
    tensors = load_file(copy / layout.VECTORS)
    if isinstance(damage, str):
        del tensors[damage]
    else:
        tensors |= damage(tensors)
    save_file(tensors, copy / layout.VECTORS)
    seal(copy)
    with pytest.raises(CatalogDamaged):
        load_catalog("long", copy, short_sighted)


# ---- told and measured


def test_info_tells_how_many_passages_there_are(
    copy: Path, shop_folder: Path, catalog: Catalog, short_sighted: Encoder
) -> None:
    assert catalog.passages

    def described(folder: Path) -> Any:
        result = CliRunner().invoke(info, [str(folder), "--json"], catch_exceptions=False)
        return json.loads(result.stdout).get("passages")

    assert described(copy) == len(catalog.passages)
    upsert(copy, [told("new", "new", "one two three four five six")], short_sighted)
    assert described(copy) == len(catalog.passages) + 1
    shown = CliRunner().invoke(info, [str(copy)], catch_exceptions=False).stdout
    assert "12 of long items" in shown
    assert described(shop_folder) is None


def test_an_ablation_tells_what_passages_gain(short_sighted: Encoder, catalog: Catalog) -> None:
    requests = [parse_request({"query": "a lighthouse burns"})]
    relevant = [frozenset({"long"})]

    def measured(pipeline: Pipeline, put: Sequence[RecommendRequest]) -> dict[str, list[float]]:
        answers: list[Any] = pipeline.recommend(put)
        found = [[item["id"] for item in answer["items"]] for answer in answers]
        return per_request(found, relevant)

    whole = measured(Pipeline(short_sighted, {"long": catalog}, DENSE), requests)
    gained = gains(whole, short_sighted, catalog, DENSE, requests, measured)
    assert gained["passages"]["NDCG@10"].mean > 0
    without = replace(catalog, passages=None)
    assert "passages" not in gains(whole, short_sighted, without, DENSE, requests, measured)


def test_a_trained_model_is_judged_with_passages_of_its_own(
    encoder: Encoder, short_sighted: Encoder, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reclane_worker.training.judging.CHUNK", 2)
    plain = encoded_by(encoder, catalog, ItemTexts(catalog))
    assert plain.passages is None
    again = encoded_by(short_sighted, plain, ItemTexts(plain))
    assert again.passages
    assert catalog.passages
    assert torch.equal(again.vectors, catalog.vectors)
    assert torch.equal(again.centre, catalog.centre)
    assert torch.equal(again.passages.owners, catalog.passages.owners)
    assert torch.equal(again.passages.vectors, catalog.passages.vectors)
