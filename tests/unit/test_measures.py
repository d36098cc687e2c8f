"""Values written as text that measure something: journeys, products, flats, as their tables have
them."""

from typing import Any

import pytest

from readings import Rows, reader, schema, told
from reclane.contract import AnyOf, Eq, Range
from reclane_worker.index.filters import Attributes
from reclane_worker.intent.measures import Measure, measured
from reclane_worker.intent.schema import readers

TOWNS = ("Ely", "Norwich", "Cambridge", "Kings Lynn", "London Kings Cross")
DAYS = ("monday", "tuesday", "friday", "saturday")


def clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


TRAINS: Rows = [
    (
        f"TR{n:03d}",
        {
            "departure": TOWNS[n % 5],
            "destination": TOWNS[(n + 1 + n // 5 % 4) % 5],
            "day": DAYS[n % 4],
            "leaveAt": clock(300 + 13 * n),
            "arriveBy": clock(300 + 13 * n + 20 + n % 60),
            "duration": f"{20 + n % 60} minutes",
            "price": f"{5 + n % 40}.50 pounds",
        },
    )
    for n in range(80)
]
PRODUCTS: Rows = [
    (
        f"Thing {n}",
        {
            "category": ("laptop", "phone", "backpack")[n % 3],
            "brand": ("Nova", "Acme")[n % 2],
            "price": f"${20 + 9 * n:,}.99",
            "weight": f"{0.2 + n % 30 / 10:.1f} kg",
            "battery_life": f"{4 + n % 30} hours",
            "storage": ("64 GB", "256 GB", "1 TB")[n % 3],
            "rating": 3 + n % 20 / 10,
            "waterproof": ("Yes", "No")[n % 2],
        },
    )
    for n in range(90)
]
FLATS: Rows = [
    (
        f"Flat {n}",
        {
            "district": ("Mitte", "Wedding")[n % 2],
            "bedrooms": 1 + n % 4,
            "rent": f"€{400 + 20 * n}",
            "pets_allowed": ("yes", "no")[n % 2],
            "furnished": n % 3 == 0,
            "available from": f"20{24 + n % 3}-0{1 + n % 9}-01",
        },
    )
    for n in range(80)
]
PLACES: Rows = [
    (
        f"Place {n}",
        {
            "type": ("hotel", "guesthouse")[n % 2],
            "area": ("north", "east", "centre")[n % 3],
            "pricerange": ("cheap", "moderate", "expensive")[n % 3],
            "stars": str(n % 6),
            "internet": ("yes", "no")[n % 2],
            "parking": ("yes", "no")[n % 2],
            "food": ("thai", "indian", "modern european", "seafood")[n % 4],
        },
    )
    for n in range(60)
]
CHINESE: Rows = [
    (
        f"车次{n}",
        {
            "出发地": ("北京", "上海", "天津")[n % 3],
            "目的地": ("上海", "天津", "北京")[n % 3],
            "出发时间": clock(360 + 11 * n),
            "到达时间": clock(500 + 11 * n),
            "时长": f"{2 + n % 5}小时",
        },
    )
    for n in range(60)
]
READERS = {
    "trains": reader(TRAINS),
    "products": reader(PRODUCTS),
    "flats": reader(FLATS),
    "places": reader(PLACES),
    "chinese": reader(CHINESE),
}


@pytest.mark.parametrize(
    ("text", "value", "concept"),
    [
        ("79 minutes", 79, "duration"),
        ("1h 30m", 90, "duration"),
        ("2 hours 5 min", 125, "duration"),
        ("$1,299.00", 1299, "price"),
        ("23.60 pounds", 23.6, "price"),
        ("free", 0, "price"),
        ("1.5 kg", 1.5, "weight"),
        ("1 TB", 1, "storage"),
        ("4-star", 4, "rating"),
        ("09:45", 585, "clock"),
        ("9:45 PM", 1305, "clock"),
        ("12 am", 0, "clock"),
        ("noon", 720, "clock"),
        ("下午3点半", 930, "clock"),
        ("2010-05-01", 2010, "year"),
        ("4", 4, None),
        ("2小时", 2, "duration"),
    ],
)
def test_a_text_is_one_measure(text: str, value: float, concept: str | None) -> None:
    found = measured(text)
    assert found is not None
    assert (found.value, found.concept) == (value, concept)


@pytest.mark.parametrize(
    "text",
    ["", "M", "007", "25:00", "10 to 12", "1小时 - 2小时", "13 pm", "5 stars!", "9" * 400, "x1"],
)
def test_other_texts_are_none(text: str) -> None:
    assert measured(text) is None


def test_attributes_have_the_unit_that_most_values_have() -> None:
    found = {
        name: (one.kind, one.concept, one.unit)
        for rows in (TRAINS, PRODUCTS, FLATS)
        for name, one in schema(rows).attributes.items()
        if one.kind == "number"
    }
    assert found == {
        "leaveAt": ("number", "clock", ""),
        "arriveBy": ("number", "clock", ""),
        "duration": ("number", "duration", "minutes"),
        "price": ("number", "price", ""),
        "weight": ("number", "weight", "kg"),
        "battery_life": ("number", "duration", "hours"),
        "storage": ("number", "storage", "gb"),
        "rating": ("number", "rating", ""),
        "bedrooms": ("number", None, ""),
        "rent": ("number", "price", ""),
        "available from": ("number", "year", ""),
    }
    assert schema(PRODUCTS).attributes["storage"].high == 1000


@pytest.mark.parametrize(
    ("name", "high", "unit"),
    [("runtime_min", 200, ""), ("length_hours", 3, "hours"), ("duration", 9, "hours")],
)
def test_bare_numbers_have_the_unit_of_their_name(name: str, high: int, unit: str) -> None:
    found = schema([("A", {name: 1}), ("B", {name: high})]).attributes[name]
    assert (found.concept, found.unit) == ("duration", unit)


@pytest.mark.parametrize("missing", ["?", "n/a", "unknown", "-"])
def test_values_that_tell_nothing_do_not_count(missing: str) -> None:
    rows: Rows = [("A", {"fee": missing}), ("B", {"fee": "free"}), ("C", {"fee": "5 pounds"})]
    assert schema(rows).attributes["fee"].kind == "number"


def test_texts_that_seldom_measure_stay_texts() -> None:
    rows: Rows = [(f"T{n}", {"certificate": ("12", "PG", "U", "R")[n % 4]}) for n in range(40)]
    assert schema(rows).attributes["certificate"].kind == "category"


def test_a_range_finds_values_in_any_unit_and_texts_are_still_equal_to_themselves() -> None:
    rows: list[dict[str, Any]] = [{"storage": one} for one in ("64 GB", "1 TB", "512 GB", "?")]
    learnt = schema([("A", row) for row in rows])
    attributes = Attributes(rows, len(rows), readers(learnt))
    assert attributes.passing(["storage"], Range(gte=500)).tolist() == [False, True, True, False]
    assert attributes.texts("storage")["1 TB"] == 1


def test_texts_that_list_values_are_features() -> None:
    said = ("wifi, pool", "pool, gym", "gym", "wifi, gym, pool")
    rows: Rows = [(f"T{n}", {"amenities": said[n % 4], "city": "Paris, France"}) for n in range(20)]
    learnt = schema(rows).attributes["amenities"]
    assert (learnt.kind, learnt.separator, learnt.closed) == ("features", ",", True)
    attributes = Attributes([row for _, row in rows], len(rows), readers(schema(rows)))
    assert attributes.texts("amenities") == {"wifi": 10, "pool": 15, "gym": 15}
    wanted = AnyOf(any_of=("wifi",)), Eq(eq="pool, gym")
    assert [int(attributes.passing(["amenities"], one).sum()) for one in wanted] == [10, 5]


def test_measures_beside_others_in_unknown_units_are_numbers() -> None:
    said = ("30 hours", "5000 mAh", "12 hours", "4100 mAh")
    rows: Rows = [(f"T{n}", {"battery": said[n % 4]}) for n in range(40)]
    learnt = schema(rows).attributes["battery"]
    assert (learnt.kind, learnt.unit, learnt.high) == ("number", "hours", 30)


def test_values_that_many_attributes_may_have_are_said_with_its_name() -> None:
    rows: Rows = [(f"T{n}", {"parking": ("free", "paid", "none")[n % 3]}) for n in range(60)]
    assert list(told(reader(rows).read("free cancellation"))) == []
    assert list(told(reader(rows).read("free parking"))) == ["parking: any_of free"]


def test_a_unit_chooses_the_attribute_that_is_called_so() -> None:
    rows: Rows = [
        (f"T{n}", {"stars": 1 + n % 5, "guest rating": 6 + n % 30 / 10}) for n in range(60)
    ]
    assert list(told(reader(rows).read("at least 4 stars"))) == ["stars: gte 4"]
    assert list(told(reader(rows).read("4* or better"))) == ["stars: gte 4"]


def test_prose_and_addresses_are_no_lists() -> None:
    rows: Rows = [
        (f"T{n}", {"about": f"A quiet place, number {n}, by the sea", "at": f"{n} Way, Town {n}"})
        for n in range(40)
    ]
    assert {one.separator for one in schema(rows).attributes.values()} == {""}


READ = [
    # ways and times
    (
        "trains",
        "a train from cambridge to london kings cross on tuesday leaving after 09:00",
        [
            "departure: any_of Cambridge",
            "destination: any_of London Kings Cross",
            "day: any_of tuesday",
            "leaveAt: gte 540",
        ],
    ),
    ("trains", "to ely, arriving by 18:45", ["destination: any_of Ely", "arriveBy: lte 1125"]),
    (
        "trains",
        "cambridge to norwich",
        ["departure: any_of Cambridge", "destination: any_of Norwich"],
    ),
    (
        "trains",
        "I need to be in Cambridge by 9:30, coming from Ely",
        ["destination: any_of Cambridge", "departure: any_of Ely", "arriveBy: lte 570"],
    ),
    ("trains", "not from ely", ["-departure: any_of Ely"]),
    ("trains", "leaving between 9am and 11am", ["leaveAt: gte 540,lte 660"]),
    ("trains", "leave around noon", ["~leaveAt: gte 660,lte 780"]),
    ("trains", "leave at 5 pm", ["leaveAt: gte 1020", "~leaveAt: gte 1020,lte 1080"]),
    ("trains", "arrive at 12:00", ["arriveBy: lte 720", "~arriveBy: gte 660,lte 720"]),
    ("trains", "departing no later than 10:15", ["leaveAt: lte 615"]),
    ("trains", "arriving in Ely, not before 8am", ["destination: any_of Ely", "leaveAt: gte 480"]),
    ("trains", "at 6 in the evening", ["leaveAt: gte 1080", "~leaveAt: gte 1080,lte 1140"]),
    ("trains", "in the morning", ["~leaveAt: gte 300,lte 720"]),
    ("trains", "less than an hour", ["duration: lt 60"]),
    ("trains", "shorter than half an hour", ["duration: lt 30"]),
    ("trains", "at most 15 pounds", ["price: lte 15"]),
    ("chinese", "从北京到上海", ["出发地: any_of 北京", "目的地: any_of 上海"]),
    ("chinese", "早上8点以后出发", ["出发时间: gte 480"]),
    ("chinese", "下午三点半之前到达", ["到达时间: lte 930"]),
    ("chinese", "三小时以内", ["时长: lte 3"]),
    # units
    ("products", "phone lighter than 500g", ["category: any_of phone", "weight: lt 0.5"]),
    ("products", "at least 1TB storage", ["storage: gte 1000"]),
    ("products", "more than 90 minutes of battery", ["battery_life: gt 1.5"]),
    ("products", "a laptop under $200", ["category: any_of laptop", "price: lt 200"]),
    ("products", "10 hours of battery", ["battery_life: gte 8,lte 12"]),
    ("products", "a top rated phone", ["category: any_of phone", "~rating: gte 4.2"]),
    # numbers in words, names in part
    ("flats", "at least two bedrooms and no pets", ["bedrooms: gte 2", "-pets_allowed: yes"]),
    ("flats", "one-bedroom, unfurnished", ["bedrooms: eq 1", "-furnished: yes"]),
    ("flats", "between 700 and 900 a month", ["rent: gte 700,lte 900"]),
    ("flats", "available from 2025", ["available from: eq 2025"]),
    ("places", "a four-star place", ["stars: eq 4"]),
    ("places", "zero stars", ["stars: eq 0"]),
    # other words, what need not be, what may not
    (
        "places",
        "moderately priced with free wifi in the center",
        ["pricerange: any_of moderate", "internet: yes", "area: any_of centre"],
    ),
    (
        "places",
        "somewhere fancy on the east side",
        ["pricerange: any_of expensive", "area: any_of east"],
    ),
    ("places", "no parking needed", []),
    ("places", "it does not need to have parking", []),
    ("places", "internet doesn't matter, but parking", ["parking: yes"]),
    ("places", "no parking", ["-parking: yes"]),
    (
        "places",
        "anywhere but the north, nothing expensive",
        ["-area: any_of north", "-pricerange: any_of expensive"],
    ),
    ("places", "a b&b", ["type: any_of guesthouse"]),
    ("places", "neither internet nor parking", ["-internet: yes", "-parking: yes"]),
    ("places", "without parking and internet", ["-parking: yes", "-internet: yes"]),
    ("places", "no internet or parking", ["-internet: yes", "-parking: yes"]),
    ("places", "with parking or internet", ["parking|internet: yes"]),
    ("places", "I do not need parking", []),
    ("places", "parking not needed", []),
    ("places", "it must not be in the north", ["-area: any_of north"]),
    ("places", "in the north or in the east", ["area: any_of north/east"]),
    ("places", "thai food or indian food", ["food: any_of thai/indian"]),
    (
        "places",
        "indian but neither in the north nor in the east",
        ["food: any_of indian", "-area: any_of north", "-area: any_of east"],
    ),
    # signs, thousands, bounds behind
    ("flats", "rent < 800", ["rent: lt 800"]),
    ("flats", "rent >= 1.2k", ["rent: gte 1200"]),
    ("flats", "€800 max", ["rent: lte 800"]),
    ("flats", "between 1 and 2 thousand euros", ["rent: gte 1000,lte 2000"]),
    ("flats", "must not cost more than 900 euros", ["rent: lte 900"]),
    ("flats", "2 or 3 bedrooms", ["bedrooms: gte 2,lte 3"]),
    ("flats", "more than 100 employees", []),
    ("products", "10 hours or longer", ["battery_life: gte 10"]),
    ("flats", "up to two hundred and fifty euros", ["rent: lte 250"]),
    ("flats", "900 euros a month at most", ["rent: lte 900"]),
    ("flats", "four or more bedrooms", ["bedrooms: gte 4"]),
    ("flats", "a minimum of 3 bedrooms", ["bedrooms: gte 3"]),
    ("flats", "less than 1100 a month", ["rent: lt 1100"]),
    ("flats", "my dog comes along", ["pets_allowed: yes"]),
    ("products", "under half a kilo", ["weight: lt 0.5"]),
    ("places", "I hate thai and indian food", ["-food: any_of thai", "-food: any_of indian"]),
    (
        "places",
        "not thai, indian or seafood",
        ["-food: any_of thai", "-food: any_of indian", "-food: any_of seafood"],
    ),
    ("places", "the northern part, a stay w/o parking", ["area: any_of north", "-parking: yes"]),
    ("trains", "leaving before 7", ["leaveAt: lte 420"]),
    # days, places and times by other words
    ("trains", "on the weekend", ["day: any_of saturday"]),
    ("trains", "not on mondays", ["-day: any_of monday"]),
    (
        "trains",
        "sat, to london",
        ["day: any_of saturday", "destination: any_of London Kings Cross"],
    ),
    ("trains", "from ely or norwich", ["departure: any_of Ely/Norwich"]),
    ("trains", "leave between 8 and 10 am", ["leaveAt: gte 480,lte 600"]),
    ("trains", "arrive by half past five in the afternoon", ["arriveBy: lte 1050"]),
    ("trains", "arrive by seven pm", ["arriveBy: lte 1140"]),
    ("trains", "can't leave before 9:45", ["leaveAt: gte 585"]),
]


@pytest.mark.parametrize(("catalog", "query", "constraints"), READ)
def test_a_request_is_read_by_what_values_measure(
    catalog: str, query: str, constraints: list[str]
) -> None:
    assert sorted(told(READERS[catalog].read(query))) == sorted(constraints)


def test_a_measure_knows_its_unit() -> None:
    assert measured("2 hrs") == Measure(2, "duration", "hrs")
