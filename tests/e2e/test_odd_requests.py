"""What is no good request: a sensible answer that says so, or a failure that does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reclane import Client, RecommendRequest
from reclane.contract import MAX_QUERY_BYTES, Failure, parse_request
from reclane.embedded import EmbeddedServer
from reclane.errors import InvalidRequest, RequestFailed
from reclane_worker.building import build_catalog
from reclane_worker.catalog import load_catalog
from reclane_worker.demo import MODEL
from reclane_worker.encoder import Encoder
from reclane_worker.local import WorkerProcess
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings
from support import DEADLINE_S

Ask = Callable[..., dict[str, Any]]


def answer(pipeline: Pipeline, query: str | None, **fields: Any) -> dict[str, Any]:
    (found,) = pipeline.recommend([parse_request({"query": query, "k": 5, **fields})])
    assert isinstance(found, dict), found
    return found


@pytest.fixture(scope="module")
def ask(pipeline: Pipeline) -> Ask:
    return lambda query, **fields: answer(pipeline, query, **fields)


def firsts(found: dict[str, Any], count: int = 3) -> list[str]:
    return [item["id"] for item in found["items"][:count]]


def flags(found: dict[str, Any]) -> list[str]:
    return [flag["code"] for flag in found["flags"]]


# ---- nothing to go by


@pytest.mark.parametrize(
    "query",
    [
        "?!...",
        "---",
        "🇯🇵",
        "the of and",
        "的了",
        "It",
        "I want something, please",
        "推荐一个好看的",
    ],
)
def test_words_that_tell_nothing_are_answered_and_flagged(ask: Ask, query: str) -> None:
    found = ask(query)
    assert len(found["items"]) == 5
    (flag,) = found["flags"]
    assert flag["code"] == "needs_review"
    assert "tells what is wanted" in flag["reasons"][0]


@pytest.mark.parametrize("query", ["asdfghjkl zxcvq", "x" * 5_000, "qwzxv " * 2_000])
def test_words_that_nobody_knows_are_flagged(ask: Ask, query: str) -> None:
    assert ask(query)["flags"][0]["reasons"] == ["no word of the request is known"]


@pytest.mark.parametrize("query", ["فيلم خيال علمي", "я хочу фильм про космос", "ภาพยนตร์"])
def test_a_script_that_the_model_cannot_read_is_flagged(ask: Ask, query: str) -> None:
    assert "cannot read this script" in ask(query)["flags"][0]["reasons"][0]


@pytest.mark.parametrize("query", ["\u200b\u200b", "\u202e\u202c", "\ufe0f", "&#8203;"])
def test_what_cannot_be_seen_fails_and_says_so(pipeline: Pipeline, query: str) -> None:
    (found,) = pipeline.recommend([RecommendRequest(query=query)])
    assert isinstance(found, Failure)
    assert (found.code, found.retry) == ("empty_query", False)


def test_where_history_tells_what_is_wanted_nothing_is_flagged(ask: Ask) -> None:
    history = ["film/alien", "film/arrival"]
    found = ask("recommend me something good, please!", history=history)
    assert found["flags"] == []
    alone = ask(None, history=history)
    assert firsts(found, 5) == firsts(alone, 5)


# ---- symbols


@pytest.mark.parametrize(
    ("query", "kind"), [("👟", "product/"), ("🐼", "news/giant-panda"), ("🎸", "music/"), ("❤️", "")]
)
def test_one_emoji_is_read_by_its_name_and_flagged(ask: Ask, query: str, kind: str) -> None:
    found = ask(query)
    assert any(one.startswith(kind) for one in firsts(found, 3)) or kind == "music/"
    assert flags(found) == ["needs_review"]
    assert found["flags"][0]["reasons"][0].endswith(found["intent"]["text"])
    assert not any(one["hard"] for one in found["intent"]["constraints"])


# ---- misspelt


@pytest.mark.parametrize(
    ("query", "genre", "said"),
    [
        ("scinece ficton flim", "science fiction", "scinece ficton"),
        ("a comdey", "comedy", "comdey"),
        ("horor film", "horror", "horor"),
        ("a docmentary", "documentary", "docmentary"),
    ],
)
def test_a_misspelt_genre_is_wished_for_and_told(
    ask: Ask, query: str, genre: str, said: str
) -> None:
    found = ask(query, fields=["genres"])
    assert all(genre in item["fields"]["genres"] for item in found["items"][:2])
    (wish,) = [one for one in found["intent"]["constraints"] if "genres" in one["attributes"]]
    assert (wish["said"], wish["hard"]) == (said, False)
    assert genre in found["intent"]["text"]


def test_what_is_misspelt_and_not_wanted_is_avoided(ask: Ask) -> None:
    found = ask("a film, not horor", fields=["genres"], k=20)
    assert not any("horror" in item["fields"]["genres"] for item in found["items"])


def test_a_misspelt_title_is_found(ask: Ask) -> None:
    found = ask('something like "Spirted Away"')
    assert found["intent"]["history_used"] == 1
    assert firsts(found, 1) == ["film/my-neighbor-totoro"]


def test_a_misspelt_product_is_found(ask: Ask) -> None:
    found = ask("comfrotable runing shose", fields=["category"])
    assert {item["fields"]["category"] for item in found["items"]} == {"running shoes"}


# ---- mixed


def test_two_languages_in_one_request_are_both_read(ask: Ask) -> None:
    found = ask("想看 a comedy 不要 romance 谢谢", fields=["genres"])
    for item in found["items"]:
        assert "comedy" in item["fields"]["genres"]
        assert "romance" not in item["fields"]["genres"]


@pytest.mark.parametrize(
    "query",
    [
        "ｒｕｎｎｉｎｇ ｓｈｏｅｓ ｕｎｄｅｒ １５０ ｄｏｌｌａｒｓ",
        "\u202erunning\u202c shoes under $150",
        "ru\u00adnning shoes under \u2066$150\u2069",
        "RUNNING SHOES, UNDER $150!!!",
        "running shoes 👟👟 under 150 dollars 🙏",
        "跑步鞋 running shoes，150美元以下 under $150",
    ],
)
def test_the_same_wish_in_other_characters_has_the_same_answer(ask: Ask, query: str) -> None:
    fields = {"fields": ["category", "price"], "k": 4}
    found = ask(query, **fields)
    for item in found["items"]:
        assert item["fields"]["category"] == "running shoes"
        assert item["fields"]["price"] < 150
    assert set(firsts(found, 4)) == set(firsts(ask("running shoes under $150", **fields), 4))


# ---- long


HOSTILE = {
    "5,000 characters": "a long story about running shoes for a rainy day. " * 100,
    "one word": "a" * MAX_QUERY_BYTES,
    "wishes": "horror or comedy, not drama, under $100 and over 50 dollars " * 270,
    "prices": "$100 " * 3_276,
    "numbers": "1-2-" * 4_096,
    "negations": "not " * 4_096,
    "brackets": "(" * MAX_QUERY_BYTES,
    "likes": 'like "Alien" ' * 1_260,
    "combining marks": "e\u0301\u0323" * 3_276,
    "ligatures": "\ufdfa" * (MAX_QUERY_BYTES // 3),
    "unknown words": "qwzxvb " * 2_340,
    "no spaces": "想看科幻电影" * 910,
    "joiners": "👩\u200d👩\u200d👧" * 900,
    "entities": "&amp;" * 3_276,
    "quotes": "“" * (MAX_QUERY_BYTES // 3),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_text_at_the_limit_is_answered_and_sunk_by_no_repetition(ask: Ask, kind: str) -> None:
    assert len(HOSTILE[kind].encode()) <= MAX_QUERY_BYTES
    found = ask(HOSTILE[kind])
    assert len(found["items"]) == 5
    for one in found["intent"]["constraints"]:
        assert not one["hard"]


def test_a_number_that_is_cut_at_the_end_of_what_is_read_is_not_read_as_another(ask: Ask) -> None:
    found = ask("under $100 " * 200)
    conditions = [one["condition"]["lt"] for one in found["intent"]["constraints"]]
    assert set(conditions) == {100.0}


# ---- nothing left


def test_filters_that_nothing_passes_are_named_and_not_what_was_read(ask: Ask) -> None:
    found = ask("a film", filters={"year": {"gt": 3000}})
    assert found["items"] == []
    assert found["flags"] == [{"code": "nothing_fits", "reasons": ["no item passes the filters"]}]
    found = ask("a film", filters={"domain": "product"})
    (reason,) = found["flags"][0]["reasons"]
    assert reason == "no item that passes the filters has: domain: film"


def test_a_page_beyond_the_end_says_so(ask: Ask) -> None:
    found = ask("running shoes", offset=10_000)
    assert found["flags"][0]["reasons"] == ["no item is left from rank 10001 on"]


# ---- catalogs of no item, and of one


@pytest.fixture(scope="module")
def small(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("small")
    one = [SourceItem("only", "Only Film", "a film about one item", {"year": 1999})]
    build_catalog([], folder / "none", encoder)
    build_catalog(one, folder / "one", encoder)
    catalogs = {name: load_catalog(name, folder / name, encoder) for name in ("none", "one")}
    return Pipeline(encoder, catalogs, WorkerSettings.load(model=MODEL))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"history": ["film/alien"]},
        {"candidates": ["film/alien"], "diversity": 0.5},
        {"exclude": ["film/alien"], "offset": 3},
    ],
)
@pytest.mark.parametrize("query", ["running shoes under $100, not Nike", "👟", "推荐三部电影"])
def test_an_empty_catalog_says_that_it_is_empty(
    small: Pipeline, query: str, fields: dict[str, Any]
) -> None:
    found = answer(small, query, catalog="none", **fields)
    assert found["items"] == []
    assert found["flags"] == [{"code": "nothing_fits", "reasons": ["the catalog is empty"]}]


@pytest.mark.parametrize("fields", [{}, {"k": 500}, {"diversity": 1.0}, {"history": ["other"]}])
def test_a_catalog_of_one_item_answers_with_it(small: Pipeline, fields: dict[str, Any]) -> None:
    found = answer(small, "a film", catalog="one", **fields)
    assert firsts(found) == ["only"]
    assert found["items"][0]["score"] == pytest.approx(found["items"][0]["score"])


def test_its_only_item_in_the_history_leaves_nothing(small: Pipeline) -> None:
    found = answer(small, "more of it", catalog="one", history=["only"])
    assert found["flags"][0]["reasons"] == ["no item is left"]


# ---- through the queue


def test_odd_requests_get_their_answers_and_failures_through_the_queue(
    server: EmbeddedServer, demo_catalog: Path, tmp_path: Path
) -> None:
    environment = {"RECLANE_MODEL": MODEL, "RECLANE_CATALOG": f"demo={demo_catalog}"}
    odd = ["👟", "?", "的了", "scinece ficton flim", "想看 a funny movie 谢谢"]
    odd += [HOSTILE[kind] for kind in ("5,000 characters", "one word", "ligatures")]
    with (
        WorkerProcess(server.url, environment, tmp_path / "worker.log"),
        Client(server.url) as client,
    ):
        handles = client.submit_many([RecommendRequest(query=query, k=3) for query in odd])
        for handle in handles:
            assert len(handle.result(DEADLINE_S).items) == 3
        with pytest.raises(RequestFailed, match="empty_query"):
            client.recommend("\u200b", timeout=DEADLINE_S)
        with pytest.raises(InvalidRequest, match="longer than"):
            client.recommend("a" * (MAX_QUERY_BYTES + 1))
        nothing = client.recommend("a film", filters={"year": {"gt": 3000}}, timeout=DEADLINE_S)
        assert [flag.code for flag in nothing.flags] == ["nothing_fits"]
