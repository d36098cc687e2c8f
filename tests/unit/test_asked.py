"""What a catalog learns from requests with known answers."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from reclane.cli import cli
from reclane.contract import RecommendRequest
from reclane.errors import CatalogDamaged, ItemsInvalid
from reclane_worker import manifest as layout
from reclane_worker.ablation import Values, gains
from reclane_worker.asked import add_learnt, learn
from reclane_worker.building import build_catalog
from reclane_worker.cases import Case, rankings
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.changing import compact, delete, upsert
from reclane_worker.encoder import Encoder
from reclane_worker.metrics import per_request
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings
from reclane_worker.weights import USUAL, Learnt, Weights
from sealing import seal

WORDS = [f"word{n}" for n in range(80)]


def texts(count: int = 60) -> list[SourceItem]:
    """Items of random words."""
    dice = random.Random(5)
    return [
        SourceItem(f"i{n:02}", f"title{n}", " ".join(dice.sample(WORDS, 8)), {"year": 1950 + n})
        for n in range(count)
    ]


def told(item: SourceItem, dice: random.Random) -> Case:
    """A request with some words of an item and as many of none."""
    words = dice.sample(item.text.split(), 3) + dice.sample(WORDS, 3)
    return Case(" ".join(words), frozenset([item.id]), "told")


@pytest.fixture(scope="module")
def items() -> list[SourceItem]:
    return texts()


@pytest.fixture
def catalog(make_catalog: Callable[..., Catalog], items: list[SourceItem]) -> Catalog:
    return make_catalog(items)


def first(pipeline: Pipeline, **request: object) -> str:
    (answer,) = pipeline.recommend([RecommendRequest.model_validate(request)])
    assert isinstance(answer, dict)
    return str(answer["items"][0]["id"])


def test_what_is_asked_for_often_gains_weight(
    catalog: Catalog, items: list[SourceItem], encoder: Encoder, settings: WorkerSettings
) -> None:
    dice = random.Random(6)
    favourites = [told(items[n], dice) for _ in range(30) for n in (3, 7)]
    spread = [told(one, dice) for one in items for _ in range(2)]
    loved = learn(favourites + spread[:20], catalog, encoder, settings)
    even = learn(spread, catalog, encoder, settings)
    assert loved.weights.demand > 4 * even.weights.demand
    assert loved.asked["i03"] >= 30
    assert even.requests == 120


def test_a_request_does_not_foretell_itself(
    catalog: Catalog, items: list[SourceItem], encoder: Encoder, settings: WorkerSettings
) -> None:
    dice = random.Random(7)
    once = learn([told(one, dice) for one in items[:40]], catalog, encoder, settings)
    assert once.weights.demand == pytest.approx(0, abs=0.01)


def test_few_requests_leave_the_usual_weights(
    catalog: Catalog, items: list[SourceItem], encoder: Encoder, settings: WorkerSettings
) -> None:
    found = learn([told(items[0], random.Random(8))], catalog, encoder, settings).weights
    assert found.vector == pytest.approx(USUAL.vector, abs=0.05)
    assert found.wishes == pytest.approx(USUAL.wishes, abs=0.05)


def test_words_that_say_nothing_lose_weight(
    make_catalog: Callable[..., Catalog], encoder: Encoder, settings: WorkerSettings
) -> None:
    """All items have the same words but for one that no request says: vectors alone tell them."""
    items = [SourceItem(f"i{n}", f"title{n}", "same words", {}) for n in range(20)]
    catalog = make_catalog(items)
    cases = [Case(f"title{n} same words", frozenset([f"i{n}"]), f"r{n}") for n in range(20)] * 5
    blind = Case("same words", frozenset(["i3"]), "blind")
    found = learn([*cases, blind], catalog, encoder, settings)
    assert 0 < found.weights.vector < 1


def test_requests_that_the_catalog_cannot_answer_teach_nothing(
    catalog: Catalog, encoder: Encoder, settings: WorkerSettings
) -> None:
    with pytest.raises(ItemsInvalid, match="none of 1 requests is answered by an item"):
        learn([Case("word1", frozenset(["elsewhere"]), "r")], catalog, encoder, settings)


@pytest.fixture
def taught(
    tmp_path: Path, items: list[SourceItem], encoder: Encoder, settings: WorkerSettings
) -> Path:
    """A catalog that was built with requests, most of which ask for i05."""
    dice = random.Random(9)
    cases = [told(items[5], dice) for _ in range(40)] + [told(one, dice) for one in items[10:20]]
    build_catalog(
        items,
        tmp_path / "taught",
        encoder,
        learn=[lambda folder: add_learnt(folder, cases, encoder, settings)],
    )
    return tmp_path / "taught"


def test_what_was_learnt_serves_requests_with_a_text_alone(
    taught: Path, encoder: Encoder, settings: WorkerSettings
) -> None:
    catalog = load_catalog("taught", taught, encoder)
    pipeline = Pipeline(encoder, {"taught": catalog}, settings)
    assert catalog.weights.demand > 0
    assert first(pipeline, query="unheard of") == "i05"  # all else being equal
    assert first(pipeline, history=["i00"]) != "i05"


def test_what_was_learnt_outlives_changes_and_compaction(taught: Path, encoder: Encoder) -> None:
    before = load_catalog("taught", taught, encoder)
    assert before.demand is not None
    delete(taught, ["i00"])
    upsert(taught, [SourceItem("new", "new", "new words", {})], encoder)
    changed = load_catalog("taught", taught, encoder)
    compact(taught)
    compacted = load_catalog("taught", taught, encoder)
    for after in (changed, compacted):
        assert after.weights == before.weights
        assert after.demand is not None
        assert after.demand[after.positions["i05"]] == before.demand[before.positions["i05"]] == 1
        assert after.demand[after.positions["new"]] == 0


def test_a_setting_passes_over_the_share_that_was_learnt(
    taught: Path, encoder: Encoder, settings: WorkerSettings
) -> None:
    catalog = load_catalog("taught", taught, encoder)
    query = "word1 word2"

    def scores(**changes: float) -> list[float]:
        told = settings.model_copy(update=changes)
        (answer,) = Pipeline(encoder, {"t": catalog}, told).recommend(
            [RecommendRequest(query=query)]
        )
        assert isinstance(answer, dict)
        return [item["score"] for item in answer["items"]]

    assert scores() == scores(dense_weight=catalog.weights.vector)
    assert scores() != scores(dense_weight=0.0)


def test_an_ablation_tells_what_requests_taught(
    taught: Path, items: list[SourceItem], encoder: Encoder, settings: WorkerSettings
) -> None:
    catalog = load_catalog("taught", taught, encoder)
    cases = [Case("unheard of", frozenset(["i05"]), "r"), told(items[30], random.Random(3))]
    relevant = [case.relevant for case in cases]

    def measured(pipeline: Pipeline, requests: Sequence[RecommendRequest]) -> Values:
        return per_request(list(rankings(pipeline, requests)), relevant)

    requests = [case.request for case in cases]
    whole = measured(Pipeline(encoder, {catalog.name: catalog}, settings), requests)
    found = gains(whole, encoder, catalog, settings, requests, measured)
    assert found["what requests taught"]["P@5"].mean > 0
    assert set(found) == {
        "reading the request",
        "mending misspelt words",
        "word scores",
        "stems, and weight of rare words",
        "vectors",
        "what requests taught",
    }


@pytest.mark.parametrize(
    "learnt", ["{}", '{"weights": {"demand": -1}, "requests": 1, "asked": {}}', "not json"]
)
def test_damage_to_what_was_learnt_is_refused(taught: Path, encoder: Encoder, learnt: str) -> None:
    (taught / layout.LEARNT).write_text(learnt)
    seal(taught)
    with pytest.raises(CatalogDamaged, match="cannot be read"):
        load_catalog("taught", taught, encoder)


def test_demand_is_one_for_what_is_asked_for_most() -> None:
    learnt = Learnt(weights=Weights(demand=0.5), requests=4, asked={"a": 3, "b": 1, "gone": 3})
    assert learnt.demand({"a": 0, "b": 1, "c": 2}).tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_build_takes_requests_and_info_tells_the_weights(
    tmp_path: Path, items: list[SourceItem]
) -> None:
    lines = [json.dumps({"id": i.id, "title": i.title, "text": i.text}) for i in items]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    dice = random.Random(1)
    asked = [told(one, dice) for one in items]
    rows = [{"query": one.request.query, "relevant": [*one.relevant]} for one in asked]
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, rows)))
    built = [str(tmp_path / "items.jsonl"), "--out", str(tmp_path / "made"), "--model", "hash:64"]
    done = CliRunner().invoke(
        cli, ["catalog", "build", *built, "--requests", str(tmp_path / "requests.jsonl")]
    )
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(cli, ["catalog", "info", str(tmp_path / "made"), "--json"])
    assert set(json.loads(shown.stdout)["weights"]) == {"vector", "wishes", "demand"}
