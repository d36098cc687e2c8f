"""Requests are read by the schema of whatever catalog they are for, in English and Chinese."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from readings import Rows, reader, schema, told
from reclane.contract import Constraint, Eq, Failure, Range, Understood, parse_request
from reclane.errors import CatalogError
from reclane_worker.building import build_catalog
from reclane_worker.catalog import load_catalog
from reclane_worker.encoder import Encoder
from reclane_worker.index.filters import Attributes
from reclane_worker.intent.fitting import RELAXED, fit
from reclane_worker.intent.languages import tells_nothing
from reclane_worker.intent.parse import TELLING_CHARS, Reader
from reclane_worker.intent.schema import Aliases, read_aliases
from reclane_worker.manifest import SCHEMA
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings

HOTELS: Rows = [
    (
        f"Hotel {n}",
        {
            "area": ("north", "south", "centre", "east")[n % 4],
            "price range": ("cheap", "moderate", "expensive")[n % 3],
            "stars": n % 5,
            "internet": ("yes", "no")[n % 2],
            "parking": n % 2 == 0,
            "type": ("hotel", "guesthouse")[n % 2],
            "price": 50 + n,
        },
    )
    for n in range(60)
]
FILMS: Rows = [
    (
        f"Big Film {n}",
        {
            "year": 1980 + n % 40,
            "genres": (["Horror"], ["Comedy", "Drama"], ["Science Fiction"], ["War"])[n % 4],
            "rating": 5 + (n % 40) / 10,
            "runtime_min": 80 + n,
            "director": ("Tom Hanks", "Jane Doe", "Ann Lee")[n % 3],
        },
    )
    for n in range(80)
]
PLACES: Rows = [
    (
        f"地方{n}",
        {
            "类别": ("酒店", "餐馆", "景点")[n % 3],
            "评分": 3 + (n % 20) / 10,
            "价格": 100 + 10 * n,
            "设施": (["早餐服务", "健身房"], ["健身房"], ["免费停车"])[n % 3],
            "菜": (["红烧肉"], ["红烧牛肉面"], ["牛肉面", f"名菜{n}"])[n % 3],
            "时长": ("1小时 - 2小时", "2小时", "3小时")[n % 3],
            "门票": 0 if n % 2 else 20,
        },
    )
    for n in range(90)
]
CATALOGS = {"hotels": HOTELS, "films": FILMS, "places": PLACES}


READERS = {name: reader(rows) for name, rows in CATALOGS.items()}

READ = [
    # bounds and ranges, by name, by unit, by currency
    ("hotels", "at least 3 stars", ["stars: gte 3"]),
    ("hotels", "a 4 star hotel", ["type: any_of hotel", "stars: eq 4"]),
    ("hotels", "something under $80", ["price: lt 80"]),
    ("hotels", "between 60 and 80 dollars", ["price: gte 60,lte 80"]),
    ("hotels", "$1,000 or less", ["price: lte 1000"]),
    ("hotels", "price not more than 70", ["price: lte 70"]),
    ("hotels", "for $100", ["price: gte 80,lte 120"]),
    ("films", "from the 90s", ["year: gte 1990,lte 1999"]),
    ("films", "a 1980s film", ["year: gte 1980,lte 1989"]),
    ("films", "not older than 2010", ["year: gte 2010"]),
    ("films", "after 1999", ["year: gt 1999"]),
    ("films", "from 1990 to 1995", ["year: gte 1990,lte 1995"]),
    ("films", "2005 or later", ["year: gte 2005"]),
    ("films", "rating over 7.5", ["rating: gt 7.5"]),
    ("films", "under 100 minutes", ["runtime_min: lt 100"]),
    ("places", "100美元以下", ["价格|门票: lte 100"]),
    ("places", "评分4.5分以上", ["评分: gte 4.5"]),
    ("places", "价格是400-500元", ["价格|门票: gte 400,lte 500"]),
    ("places", "100元到200元之间", ["价格|门票: gte 100,lte 200"]),
    ("places", "不超过300元", ["价格|门票: lte 300"]),
    ("films", "a film 1999", ["~year: eq 1999"]),
    # values, alternatives, wishes
    ("hotels", "guesthouse in the centre", ["type: any_of guesthouse", "area: any_of centre"]),
    ("hotels", "moderate or cheap", ["price range: any_of moderate/cheap"]),
    ("films", "drama or comedy", ["genres: any_of Drama/Comedy"]),
    ("films", "a comedy about war", ["genres: any_of Comedy", "~genres: any_of War"]),
    ("films", "movies by tom hanks", ["director: any_of Tom Hanks"]),
    ("places", "有早餐服务和健身房", ["设施: any_of 早餐服务", "设施: any_of 健身房"]),
    ("places", "想吃牛肉面", ["~菜: any_of 牛肉面/红烧牛肉面"]),
    ("places", "可以玩1-2个小时", ["时长: any_of 1小时 - 2小时"]),
    # what stands beside is no wish; of two kinds the last counts
    ("places", "酒店附近的餐馆", ["类别: any_of 餐馆"]),
    ("places", "住进酒店以后想找个景点", ["类别: any_of 景点"]),
    ("places", "找一个景点，再告诉我周边有什么餐馆", ["类别: any_of 景点"]),
    # yes or no, free
    ("hotels", "with free parking", ["parking: yes"]),
    ("hotels", "without internet", ["-internet: yes"]),
    ("places", "门票免费的景点", ["类别: any_of 景点", "门票: eq 0"]),
    ("places", "要免费停车", ["设施: any_of 免费停车"]),
    # negation
    ("films", "not horror", ["-genres: any_of Horror"]),
    ("films", "no horror or war please", ["-genres: any_of Horror/War"]),
    ("hotels", "not expensive", ["-price range: any_of expensive"]),
    ("places", "不要酒店", ["-类别: any_of 酒店"]),
    ("places", "有没有健身房", ["设施: any_of 健身房"]),
    # nothing to understand
    ("films", "a man walks through the city at night", []),
    ("films", "iphone7 and b2b in room 101", []),
    ("places", "随便看看", []),
    ("hotels", "", []),
    # symbols alone say what they are called
    ("hotels", "🏨", ["~type: any_of hotel"]),
    ("hotels", "🙂", []),
]


@pytest.mark.parametrize(("catalog", "query", "constraints"), READ)
def test_a_request_is_read_by_the_catalogs_schema(
    catalog: str, query: str, constraints: list[str]
) -> None:
    assert sorted(told(READERS[catalog].read(query))) == sorted(constraints)


def test_what_is_not_wanted_is_not_compared() -> None:
    assert READERS["films"].read("Funny, not horror").text == "funny,"
    assert READERS["films"].read("funny, but not horror or comedy please").text == (
        "funny, but please"
    )
    assert READERS["films"].read("Not horror").text == "not"
    assert READERS["films"].read("Funny Films").text == "Funny Films"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "the of and",
        "it",
        "i'd like to",
        "的了",
        "推荐一个好看的",
        "the 的 👟",
        "recommend, please!",
    ],
)
def test_some_words_tell_nothing_of_what_is_wanted(text: str) -> None:
    assert tells_nothing(text)


@pytest.mark.parametrize(
    "text", ["the film", "电影", "的士", "1984", "x", "not horror", "一部", "them2"]
)
def test_any_other_word_tells_something(text: str) -> None:
    assert not tells_nothing(text)


def test_a_misspelt_value_is_wished_for_in_the_requests_words() -> None:
    understood = READERS["films"].read("a Comdey, no horor")
    assert list(told(understood)) == ["~genres: any_of Comedy", "~-genres: any_of Horror"]
    assert [one.said for one in understood.constraints] == ["comdey", "horor"]
    assert understood.text == "a comedy,"


def test_a_story_is_not_mended() -> None:
    story = "I half remember a horor film" + ", or so I think" * 10
    assert READERS["films"].read(story).text == story


def test_the_words_of_a_title_to_be_like_are_no_wishes() -> None:
    rows = [("1984 in Comedy", {"year": 1984, "genres": ["Comedy"]}), *FILMS]
    understood = reader(rows).read("something like 1984 in Comedy, a war film")
    assert understood.similar == (0,)
    assert list(told(understood)) == ["genres: any_of War"]
    assert understood.text == ", a war film"


def test_an_item_to_be_like_is_found_by_its_title() -> None:
    understood = READERS["films"].read('something like "Big Film 12" but newer')
    assert understood.similar == (12,)
    assert "12" not in understood.text


@pytest.mark.parametrize(
    ("catalog", "query", "count"),
    [
        ("films", "recommend three horror films", 3),
        ("films", "top 5 comedies", 5),
        ("films", "recommend a film", None),
        ("places", "推荐3家餐馆", 3),
        ("places", "推荐两个酒店", 2),
        ("places", "推荐一个酒店", None),
    ],
)
def test_how_many_are_asked_for(catalog: str, query: str, count: int | None) -> None:
    assert READERS[catalog].read(query).count == count


def test_what_a_story_tells_is_wished_for() -> None:
    story = "I half remember a horror film from the 90s" + ", or so I think" * 10
    assert len(story) > TELLING_CHARS
    assert list(told(READERS["films"].read(story))) == [
        "~genres: any_of Horror",
        "~year: gte 1990,lte 1999",
    ]


def test_a_word_that_many_texts_have_is_no_value() -> None:
    rows = [
        (f"T{n}", {"cast": [f"Name {n}", "And"] if n == 7 else [f"Name {n}"]}) for n in range(99)
    ]
    attributes = Attributes([row for _, row in rows], len(rows))
    titles = [title for title, _ in rows]
    plain = Reader(schema(rows), attributes.texts, titles)
    query = "this and that"
    assert list(told(plain.read(query))) == ["~cast: any_of And"]
    knowing = Reader(schema(rows), attributes.texts, titles, lambda t: 90 if t == "and" else 1)
    assert list(told(knowing.read(query))) == []


def test_a_wish_names_no_more_values_than_an_answer_should_tell() -> None:
    rows = [(f"T{n}", {"dish": ["noodles"] if n == 7 else [f"noodles {n}"]}) for n in range(999)]
    (wish,) = reader(rows).read("noodles, please").constraints
    condition = wish.condition.model_dump()["any_of"]
    assert condition[0] == "noodles"
    assert 10 < len(condition) < 100


def test_a_number_that_no_item_can_have_counts_something_else() -> None:
    assert list(told(READERS["films"].read("it is 15 years old"))) == []


@pytest.mark.parametrize("seed", range(200))
def test_no_text_makes_reading_fail(seed: int) -> None:
    chance = random.Random(seed)
    words = "horror not 90s $ 4.5 - 到 以上 星 or and between 不要 景点 1,000 the ' 《 é 🏨 ."
    pieces = [*words.split(), "\n"]
    text = "".join(chance.choice(["", " "]) + chance.choice(pieces) for _ in range(12))
    for one in READERS.values():
        one.read(text)


def test_attributes_are_told_apart_by_what_they_hold() -> None:
    found = {n: (one.kind, one.closed, one.concept) for n, one in schema(PLACES).attributes.items()}
    assert found == {
        "类别": ("category", True, None),
        "评分": ("number", False, "rating"),
        "价格": ("number", False, "price"),
        "设施": ("features", True, None),
        "菜": ("features", False, None),
        "时长": ("category", True, None),
        "门票": ("number", False, "price"),
    }
    assert schema(HOTELS).attributes["internet"].kind == "yes_no"
    assert schema(HOTELS).attributes["stars"].whole


def test_names_addresses_and_prose_are_no_categories() -> None:
    rows = [(f"T{n}", {"address": f"{n} Long Street", "about": "words " * 20}) for n in range(50)]
    assert {one.kind for one in schema(rows).attributes.values()} == {"text"}


def test_lists_of_other_items_are_mentions() -> None:
    rows = [(f"Place {n}", {"nearby": [f"Place {m}" for m in range(5)]}) for n in range(50)]
    assert schema(rows).attributes["nearby"].kind == "mentions"
    near = reader(rows).read("somewhere near Place 3")
    assert list(told(near)) == ["~nearby: any_of Place 3"]


# ---- aliases


def test_an_operators_aliases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    aliases = {
        "attributes": {"stars": ["class"]},
        "values": {"area": {"centre": ["city center", "市中心"]}},
    }
    path.write_text(json.dumps(aliases), "utf-8")
    aliased = reader(HOTELS, read_aliases(path))
    assert list(told(aliased.read("a room in the city center"))) == ["area: any_of centre"]
    assert list(told(aliased.read("class at least 3"))) == ["stars: gte 3"]


@pytest.mark.parametrize("text", ["", "[]", '{"attributes": {"a": "b"}}', '{"other": {}}'])
def test_a_file_that_holds_no_aliases_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, "utf-8")
    with pytest.raises(CatalogError, match="write"):
        read_aliases(tmp_path / "a.json")


def test_an_alias_of_no_attribute_is_refused() -> None:
    with pytest.raises(CatalogError, match="nowhere"):
        schema(HOTELS, Aliases(attributes={"nowhere": ("a",)}))


# ---- which items fit

ATTRIBUTES = Attributes([row for _, row in HOTELS], len(HOTELS))
EVERY = np.ones(len(HOTELS), dtype=bool)
CHEAP = Constraint(attributes=("price",), condition=Range(lt=60), said="under 60")
NORTH = Constraint(attributes=("area",), condition=Eq(eq="north"), said="north")
DEAR = Constraint(attributes=("price range",), condition=Eq(eq="expensive"), hard=False)
NOT_NORTH = NORTH.model_copy(update={"unless": True})
NOWHERE = Constraint(attributes=("area",), condition=Eq(eq="moon"), said="moon")


def test_hard_constraints_filter_and_soft_ones_weigh() -> None:
    found = fit([CHEAP, NOT_NORTH, DEAR], EVERY, ATTRIBUTES, 0.25)
    allowed = np.flatnonzero(found.allowed)
    assert all(HOTELS[n][1]["price"] < 60 and HOTELS[n][1]["area"] != "north" for n in allowed)
    assert found.bonus is not None
    assert {HOTELS[n][1]["price range"] for n in np.flatnonzero(found.bonus == 0.25)} == {
        "expensive"
    }
    assert (found.relaxed, found.impossible) == ((), ())


def test_bounds_give_way_before_categories_and_are_still_preferred() -> None:
    ten = Constraint(attributes=("stars",), condition=Range(gte=4), said="4 stars")
    base = EVERY.copy()
    base[
        [n for n, (_, row) in enumerate(HOTELS) if row["stars"] == 4 and row["area"] == "north"]
    ] = 0
    found = fit([NORTH, ten], base, ATTRIBUTES, 0.25)
    assert found.relaxed == (ten,)
    assert {HOTELS[n][1]["area"] for n in np.flatnonzero(found.allowed)} == {"north"}
    assert found.bonus is not None
    assert set(np.unique(found.bonus)) == {0.0, RELAXED}


def test_what_no_item_has_is_not_dropped() -> None:
    found = fit([CHEAP, NOWHERE], EVERY, ATTRIBUTES, 0.25)
    assert not found.allowed.any()
    assert found.impossible == (NOWHERE,)


# ---- through the pipeline


@pytest.fixture(scope="module")
def hotels(
    encoder: Encoder, settings: WorkerSettings, tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    folder = tmp_path_factory.mktemp("catalogs") / "hotels"
    items = [SourceItem(f"h{n}", title, title, row) for n, (title, row) in enumerate(HOTELS)]
    build_catalog(items, folder, encoder)
    assert (folder / SCHEMA).is_file()
    return Pipeline(encoder, {"hotels": load_catalog("hotels", folder, encoder)}, settings)


def answer(pipeline: Pipeline, **request: Any) -> dict[str, Any]:
    (found,) = pipeline.recommend([parse_request(request)])
    assert isinstance(found, dict), found
    return found


def positions(found: dict[str, Any]) -> list[int]:
    return [int(item["id"][1:]) for item in found["items"]]


def test_of_alike_constraints_that_which_most_items_meet_gives_way() -> None:
    rows = [{"area": "north", "food": "thai"}, *[{"area": "east", "food": "indian"}] * 3]
    east, thai = (
        Constraint(attributes=(name,), condition=Eq(eq=value), said=value)
        for name, value in (("area", "east"), ("food", "thai"))
    )
    for constraints in ([east, thai], [thai, east]):
        found = fit(constraints, np.ones(4, dtype=bool), Attributes(rows, 4), 0.25)
        assert (found.allowed.tolist(), found.relaxed) == ([True, False, False, False], (east,))


def test_an_answer_holds_what_fits_and_says_what_was_understood(hotels: Pipeline) -> None:
    found = answer(hotels, query="a cheap guesthouse in the south", k=60)
    rows = [HOTELS[n][1] for n in positions(found)]
    assert rows
    for row in rows:
        assert (row["area"], row["price range"], row["type"]) == ("south", "cheap", "guesthouse")
    said = [one["said"] for one in found["intent"]["constraints"]]
    assert said == ["cheap", "guesthouse", "south"]
    assert found["flags"] == []


def test_an_intent_sent_back_corrected_is_used_instead(hotels: Pipeline) -> None:
    found = answer(hotels, query="a cheap guesthouse in the south", k=60)
    intent = {key: found["intent"][key] for key in ("text", "constraints")}
    again = answer(hotels, query="a cheap guesthouse in the south", k=60, intent=intent)
    assert positions(again) == positions(found)
    intent["constraints"] = [one for one in intent["constraints"] if one["said"] != "cheap"]
    corrected = answer(hotels, query="a cheap guesthouse in the south", k=60, intent=intent)
    assert {HOTELS[n][1]["price range"] for n in positions(corrected)} > {"cheap"}


def test_what_gave_way_is_told(hotels: Pipeline) -> None:
    found = answer(hotels, query="guesthouse in the north under $52")
    assert found["items"]
    (flag,) = found["flags"]
    assert flag["code"] == "relaxed"
    assert flag["reasons"] == ["type: guesthouse"]  # of the three, the one that is enough


def test_what_stands_in_the_way_is_told(hotels: Pipeline) -> None:
    found = answer(hotels, query="a hotel under $5")
    assert found["items"] == []
    (flag,) = found["flags"]
    assert (flag["code"], flag["reasons"]) == ("nothing_fits", ["no item has: price: under $5"])


def test_as_many_as_were_asked_for_are_answered(hotels: Pipeline) -> None:
    assert len(answer(hotels, query="recommend three guesthouses")["items"]) == 3
    assert len(answer(hotels, query="recommend three guesthouses", k=2)["items"]) == 2


def test_an_item_to_be_like_is_not_recommended_itself(hotels: Pipeline) -> None:
    found = answer(hotels, query='like "Hotel 7"', k=60)
    assert 7 not in positions(found)
    assert found["intent"]["history_used"] == 1
    assert found["intent"]["similar"] == ["h7"]


@pytest.mark.parametrize(
    "query", ['like "Hotel 7"', 'three guesthouses like "Hotel 7" in the north']
)
def test_an_intent_sent_back_as_it_was_told_brings_the_same_items(
    hotels: Pipeline, query: str
) -> None:
    found = answer(hotels, query=query, k=60)
    told = {key: value for key, value in found["intent"].items() if key in Understood.model_fields}
    again = answer(hotels, query=query, k=60, intent=told)
    assert again["items"] == found["items"]
    assert again["intent"] == found["intent"]
    without = answer(hotels, query=query, k=60, intent=told | {"similar": ["gone"], "text": "stay"})
    assert "similar" not in without["intent"]


def test_constraints_alone_are_a_request(hotels: Pipeline) -> None:
    wanted = {"attributes": ["type"], "condition": {"any_of": ["guesthouse"]}}
    found = answer(hotels, user_id="u", k=60, intent={"text": "", "constraints": [wanted]})
    types = {HOTELS[n][1]["type"] for n in positions(found)}
    assert types == {"guesthouse"}
    (failed,) = hotels.recommend([parse_request({"user_id": "u", "intent": {"text": ""}})])
    assert isinstance(failed, Failure)
    assert failed.code == "unknown_user"


def test_a_number_beyond_all_bounds_hides_nothing_else(hotels: Pipeline) -> None:
    found = answer(hotels, query=f"a guesthouse under ${'9' * 400}")
    assert [one["said"] for one in found["intent"]["constraints"]] == ["guesthouse"]
