"""The words that a request is read by. A new language is one more `Language` in LANGUAGES.

Words only: what they are about comes from each catalog's schema. All are lower case, as
`lexicon.fold` gives text.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Final, Literal, NamedTuple

Op = Literal["gt", "gte", "lt", "lte"]
Side = Literal["start", "end"]
Concept = Literal[
    "price", "rating", "year", "duration", "size", "weight", "storage", "distance", "clock"
]


class Unit(NamedTuple):
    """What a unit measures, and how many of the concept's smallest or usual one it is: minutes,
    inches, grams, gigabytes, kilometres. Currencies are not converted."""

    concept: Concept
    size: float


@dataclass(frozen=True, slots=True)
class Bound:
    """A phrase beside a number, and the side of it that is meant; of one concept, or of any."""

    phrase: str
    op: Op
    concept: Concept | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How a language says of two attributes which one is meant: of a journey, a day or a life,
    its start or its end. `names` begin the words of an attribute's name; the others stand before
    or after what is meant, or anywhere before a time."""

    names: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """Words of one language. `names` are what attributes of a concept are called, or part of it;
    `units` how large each is, see `Unit`."""

    names: dict[Concept, tuple[str, ...]]
    name_parts: tuple[str, ...]  # of attributes' names, which alone do not tell which one
    units: dict[Concept, dict[str, float]]
    before: tuple[Bound, ...]  # stand before their number
    after: tuple[Bound, ...]
    between: tuple[str, ...]  # before two numbers that `joins` join
    joins: tuple[str, ...]
    decades: tuple[str, ...]  # after two or four digits
    times: dict[str, int]  # of a day, with a name: minutes since midnight
    after_hours: dict[str, Literal["a", "p"]]  # said after an hour: before or after noon
    clock_before: dict[str, Op]  # stand before a time of day
    clock_after: dict[str, Op]
    roughly: tuple[str, ...]  # before or after a time of day
    ways: dict[Side, Way]
    parts_of_day: dict[str, tuple[int, int]]  # from and to, minutes since midnight
    free: tuple[str, ...]
    low: tuple[str, ...]  # of a price, without a number
    high: tuple[str, ...]
    rated: tuple[str, ...]  # well, without a number
    negations: tuple[str, ...]  # before what is not wanted
    fillers: tuple[str, ...]  # may stand between such a word and its object
    waived_before: tuple[str, ...]  # beside what need not be
    waived_after: tuple[str, ...]
    unneeded: tuple[str, ...]  # after what is negated: that need not be, either
    any_of: tuple[str, ...]  # between alternatives
    topics: tuple[str, ...]  # before what something is about, which is no category of it
    perhaps_topics: tuple[str, ...]  # before such, or before what it belongs to
    near_before: tuple[str, ...]  # what stands beside these is a place, not what is wanted
    near_after: tuple[str, ...]
    asides: tuple[str, ...]  # before what is wanted only where nothing else is
    counters: tuple[str, ...]  # may stand between a number and its unit
    similar: tuple[str, ...]  # before the title of an item
    yes: tuple[str, ...]
    no: tuple[str, ...]
    counts: tuple[str, ...]  # patterns with a group for how many
    empty: tuple[str, ...]  # tell nothing of what is wanted, even together
    synonyms: tuple[tuple[str, ...], ...]  # of values and of attributes' names


_ENGLISH_EMPTY: Final = (
    "a an and any anything are as at be been being best both but by can could did do does don't "
    "find for from get give good great had has have he her hers him his how i i'd i'll i'm i've "
    "if in into is it it's its just let's like look looking me more most my need nice no nor "
    "not of on or our out please recommend recommendation recommendations she should show so "
    "some something such suggest suggestion suggestions than thank thanks that that's the their "
    "them then there these they this those to too up very want was we were what what's when "
    "where which while who whom why will with would you you're your"
)
ENGLISH: Final = Language(
    names={
        "price": ("price", "cost", "fee", "fare", "rate", "budget"),
        "rating": ("rating", "stars", "score", "rated"),
        "year": ("year", "released", "published"),
        "duration": ("duration", "runtime", "length", "minutes", "hours"),
        "size": ("size", "inch", "inches"),
        "weight": ("weight",),
        "storage": ("storage", "memory", "capacity"),
        "distance": ("distance", "mileage"),
    },
    name_parts=(
        *("allowed", "available", "availability", "included", "friendly", "service", "free"),
        *("number", "count", "total", "level", "type", "life", "average", "maximum", "minimum"),
        *("this", "that", "with", "from", "time", "date", "access", "accepted", "offered"),
    ),
    units={
        "price": dict.fromkeys(
            ("dollars", "dollar", "bucks", "usd", "euros", "euro", "eur", "pounds", "pound", "gbp"),
            1,
        ),
        "rating": {"stars": 1, "star": 1, "points": 1},
        "duration": {
            **dict.fromkeys(("minutes", "minute", "mins", "min"), 1),
            **dict.fromkeys(("hours", "hour", "hrs", "hr", "h"), 60),
            **dict.fromkeys(("days", "day"), 1_440),
        },
        "size": {
            **dict.fromkeys(("inches", "inch"), 1),
            **dict.fromkeys(("centimetres", "centimeters", "cm"), 1 / 2.54),
            **dict.fromkeys(("millimetres", "millimeters", "mm"), 1 / 25.4),
        },
        "weight": {
            **dict.fromkeys(("grams", "gram", "g"), 1),
            **dict.fromkeys(("kilograms", "kilogram", "kilos", "kilo", "kgs", "kg"), 1_000),
            **dict.fromkeys(("lbs", "lb"), 453.59237),
            **dict.fromkeys(("ounces", "ounce", "oz"), 28.349523125),
        },
        "storage": {
            **dict.fromkeys(("megabytes", "megabyte", "mb"), 1e-3),
            **dict.fromkeys(("gigabytes", "gigabyte", "gb"), 1),
            **dict.fromkeys(("terabytes", "terabyte", "tb"), 1_000),
        },
        "distance": {
            **dict.fromkeys(("kilometres", "kilometers", "kilometre", "kilometer", "km"), 1),
            **dict.fromkeys(("miles", "mile", "mi"), 1.609344),
        },
    },
    before=(
        Bound("at least", "gte"),
        Bound("more than", "gt"),
        Bound("over", "gt"),
        Bound("above", "gt"),
        Bound("minimum", "gte"),
        Bound("at most", "lte"),
        Bound("up to", "lte"),
        Bound("less than", "lt"),
        Bound("fewer than", "lt"),
        Bound("under", "lt"),
        Bound("below", "lt"),
        Bound("maximum", "lte"),
        Bound("max", "lte"),
        Bound("within", "lte"),
        Bound("cheaper than", "lt", "price"),
        Bound("older than", "lt", "year"),
        Bound("newer than", "gt", "year"),
        Bound("before", "lt", "year"),
        Bound("after", "gt", "year"),
        Bound("since", "gte", "year"),
        Bound("shorter than", "lt", "duration"),
        Bound("longer than", "gt", "duration"),
        Bound("lighter than", "lt", "weight"),
        Bound("heavier than", "gt", "weight"),
        Bound("smaller than", "lt", "size"),
        Bound("larger than", "gt", "size"),
        Bound("bigger than", "gt", "size"),
        Bound("closer than", "lt", "distance"),
    ),
    after=(
        Bound("or more", "gte"),
        Bound("or above", "gte"),
        Bound("or higher", "gte"),
        Bound("or better", "gte"),
        Bound("and up", "gte"),
        Bound("and above", "gte"),
        Bound("+", "gte"),
        Bound("or less", "lte"),
        Bound("or under", "lte"),
        Bound("or lower", "lte"),
        Bound("or cheaper", "lte", "price"),
        Bound("or newer", "gte", "year"),
        Bound("or later", "gte", "year"),
        Bound("or older", "lte", "year"),
        Bound("or earlier", "lte", "year"),
    ),
    between=("between", "from"),
    joins=("-", "~", "to", "and"),
    decades=("s", "'s"),
    times={"noon": 720, "midday": 720, "midnight": 0},
    after_hours={
        "in the morning": "a",
        "in the afternoon": "p",
        "in the evening": "p",
        "at night": "p",
    },
    clock_before={
        "after": "gte",
        "past": "gte",
        "from": "gte",
        "since": "gte",
        "later than": "gte",
        "before": "lte",
        "by": "lte",
        "until": "lte",
        "till": "lte",
        "earlier than": "lte",
    },
    clock_after={
        "or later": "gte",
        "or after": "gte",
        "onwards": "gte",
        "onward": "gte",
        "or earlier": "lte",
        "or before": "lte",
        "at the latest": "lte",
    },
    roughly=("around", "about", "approximately", "roughly", "close to", "or so", "-ish"),
    ways={
        "start": Way(
            names=("depart", "origin", "from", "source", "start", "leav", "open", "begin"),
            before=(
                *("from", "leave", "leaves", "leaving", "depart", "departs", "departing"),
                *("out of", "start in", "starting in", "start at", "starting at", "between"),
            ),
            after=("to",),
            verbs=(
                *("leave", "leaves", "leaving", "depart", "departs", "departing", "departure"),
                *("start", "starts", "starting", "begins", "open", "opens", "set off"),
            ),
        ),
        "end": Way(
            names=("destination", "dest", "to", "arriv", "end", "clos", "until"),
            before=(
                *("to", "into", "towards", "toward", "for", "in", "at", "reach", "reaching"),
                *("arrive", "arriving", "visit", "visiting"),
            ),
            after=(),
            verbs=(
                *("arrive", "arrives", "arriving", "arrival", "get there", "be there", "get to"),
                *("get in", "reach", "end", "ends", "ending", "close", "closes", "be in", "there"),
            ),
        ),
    },
    parts_of_day={
        "morning": (300, 720),
        "afternoon": (720, 1080),
        "evening": (1080, 1440),
        "night": (1200, 1440),
    },
    free=("free of charge", "for free", "free entry", "free admission", "free"),
    low=("cheap", "cheapest", "inexpensive", "affordable", "budget"),
    high=("expensive", "luxurious", "high-end", "upscale"),
    rated=(
        *("top rated", "top-rated", "best rated", "best-rated", "highest rated", "highest-rated"),
        *("highly rated", "highly-rated", "well rated", "well-rated", "best reviewed"),
        *("well reviewed", "good reviews", "great reviews"),
    ),
    negations=(
        "not",
        "no",
        "non",
        "without",
        "except",
        "except for",
        "avoid",
        "don't want",
        "do not want",
        "don't like",
        "anything but",
        "anywhere but",
        "nothing",
        "excluding",
        "other than",
        "rather than",
        "instead of",
        "not in the mood for",
        "isn't",
        "hate",
        "never",
    ),
    fillers=("a", "an", "any", "the", "too", "very", "in"),
    waived_before=(
        *("don't need", "do not need", "doesn't need", "does not need", "no need for"),
        *("not need to have", "n't need to have", "n't have to have", "not have to have"),
        *("don't care about", "do not care about", "don't mind", "regardless of"),
    ),
    waived_after=(
        *("doesn't matter", "does not matter", "don't matter", "isn't important"),
        *("isn't needed", "is not needed", "not needed", "isn't required", "is not required"),
        *("not required", "isn't necessary", "is not necessary", "not necessary", "is optional"),
    ),
    unneeded=("needed", "required", "necessary"),
    any_of=("or", "/", ",", "and/or"),
    topics=("about", "regarding", "involving"),
    perhaps_topics=("on", "of"),
    near_before=("near", "nearby", "around", "close to", "next to"),
    near_after=(),
    asides=("and nearby", "as well as"),
    counters=(),
    similar=("similar to", "something like", "such as", "like"),
    yes=("yes", "true", "y"),
    no=("no", "false", "n"),
    counts=(
        r"\b(?:recommend|suggest|show|give|find|list)(?: me)? (\w+)\b",
        r"\btop (\d+)\b",
    ),
    empty=tuple(_ENGLISH_EMPTY.split()),
    synonyms=(
        ("cheap", "inexpensive", "affordable", "budget", "low-cost", "low cost"),
        ("moderate", "mid-range", "midrange", "mid-priced", "reasonable", "reasonably priced"),
        ("expensive", "high-end", "upscale", "luxurious", "luxury", "fancy", "pricey", "costly"),
        ("centre", "center", "central", "downtown", "city centre", "city center", "town centre"),
        ("internet", "wifi", "wi-fi", "wireless"),
        ("parking", "car park", "a place to park", "somewhere to park", "park my car"),
        ("guesthouse", "guest house", "bed and breakfast", "b&b"),
        ("film", "movie"),
        ("theatre", "theater"),
        ("swimming pool", "swimmingpool", "pool"),
        ("color", "colour"),
        ("grey", "gray"),
    ),
)

CHINESE: Final = Language(
    names={
        "price": ("价格", "价位", "价", "消费", "费用", "门票", "票价", "预算"),
        "rating": ("评分", "星级", "评价"),
        "year": ("年份", "上映", "出版"),
        "duration": ("时间", "时长"),
        "size": ("尺寸",),
        "weight": ("重量",),
        "storage": ("容量", "内存"),
        "distance": ("距离", "里程"),
    },
    name_parts=(),
    units={
        "price": dict.fromkeys(("元钱", "块钱", "美元", "美金", "欧元", "英镑", "元", "块"), 1),
        "rating": {"分": 1, "颗星": 1, "星": 1},
        "year": {"年": 1},
        "duration": {"小时": 60, "分钟": 1},
        "size": {"英寸": 1, "寸": 1, "厘米": 1 / 2.54},
        "weight": {"公斤": 1_000, "千克": 1_000, "克": 1},
        "distance": {"公里": 1, "千米": 1},
    },
    before=(
        Bound("至少", "gte"),
        Bound("不低于", "gte"),
        Bound("不少于", "gte"),
        Bound("高于", "gt"),
        Bound("超过", "gt"),
        Bound("大于", "gt"),
        Bound("最多", "lte"),
        Bound("不超过", "lte"),
        Bound("不高于", "lte"),
        Bound("低于", "lt"),
        Bound("少于", "lt"),
        Bound("小于", "lt"),
        Bound("早于", "lt", "year"),
        Bound("晚于", "gt", "year"),
    ),
    after=(
        Bound("及以上", "gte"),
        Bound("或以上", "gte"),
        Bound("以上", "gte"),
        Bound("起", "gte"),
        Bound("及以下", "lte"),
        Bound("或以下", "lte"),
        Bound("以下", "lte"),
        Bound("以内", "lte"),
        Bound("之内", "lte"),
        Bound("以后", "gte", "year"),
        Bound("之后", "gte", "year"),
        Bound("以前", "lt", "year"),
        Bound("之前", "lt", "year"),
    ),
    between=(),
    joins=("-", "~", "到", "至"),
    decades=("年代",),
    times={"中午": 720, "正午": 720, "午夜": 0},
    after_hours={},
    clock_before={"晚于": "gte", "早于": "lte", "不晚于": "lte", "不早于": "gte"},
    clock_after={
        **dict.fromkeys(("以后", "之后", "后"), "gte"),
        **dict.fromkeys(("以前", "之前", "前"), "lte"),
    },
    roughly=("大约", "大概", "左右"),
    ways={
        "start": Way(
            names=("出发", "始发", "起点", "发车", "开始", "开门"),
            before=("从", "由"),
            after=("出发", "到", "至", "去", "开往"),
            verbs=("出发", "离开", "发车", "开车", "走"),
        ),
        "end": Way(
            names=("目的", "到达", "终点", "抵达", "结束", "关门"),
            before=("到", "去", "至", "往", "飞", "前往", "抵达", "开往"),
            after=(),
            verbs=("到达", "抵达", "到"),
        ),
    },
    parts_of_day={
        **dict.fromkeys(("早上", "上午"), (300, 720)),
        "下午": (720, 1080),
        **dict.fromkeys(("傍晚", "晚上"), (1080, 1440)),
    },
    free=("免费", "不要钱", "免门票"),
    low=("便宜", "实惠"),
    high=("昂贵", "奢华"),
    rated=("评分高", "评分较高", "评价高", "评价好"),
    negations=(
        "不要",
        "不想要",
        "不想",
        "不看",
        "不是",
        "不喜欢",
        "别",
        "非",
        "除了",
        "不含",
    ),
    fillers=("看", "吃", "住", "去", "有", "任何", "是"),
    waived_before=("不需要", "不用有", "不必有", "不在乎"),
    waived_after=("无所谓", "都可以", "都行", "不重要"),
    unneeded=(),
    any_of=("或者", "或", "还是", "、", "/"),
    topics=("关于",),
    perhaps_topics=(),
    near_before=(),
    near_after=("附近", "周边", "旁边", "周围"),
    asides=("周边", "周边的", "周边有什么", "周边都有什么", "周边有哪些", "附近的", "附近有什么"),
    counters=("个",),
    similar=("类似于", "类似", "像"),
    yes=("是", "有"),
    no=("否", "无", "没有"),
    counts=(r"(?:推荐|找|来|给我)(\d+|[二两三四五六七八九十])[个家部本首款道条]",),
    empty=(
        *"的了着过和与及或是在有就都也很还吗呢吧啊呀嘛哦我你您他她它们这那个些把被给对从到不没想要看找来好请帮",
        *("什么", "怎么", "谢谢", "请问", "可以", "一个", "推荐", "介绍"),
    ),
    synonyms=(
        ("便宜", "实惠", "经济"),
        ("昂贵", "高档", "高端", "奢华"),
        ("中等", "适中"),
        ("wifi", "无线", "无线网络", "无线上网"),
        ("市中心", "中心城区"),
    ),
)

LANGUAGES: Final = (ENGLISH, CHINESE)

NUMBER_WORDS: Final = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "一": 1,
    "二": 2,
    "两": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
    "十": 10,
}
CURRENCIES: Final = "$€£¥"


def words(take: Callable[[Language], Iterable[str]]) -> tuple[str, ...]:
    """Words of all languages, the longest first."""
    found = {word for language in LANGUAGES for word in take(language)}
    return tuple(sorted(found, key=len, reverse=True))


def alternatives(found: Iterable[str]) -> str:
    """A pattern for any of the words: whole ones where they are written with spaces."""
    return "|".join(
        ("(?<![a-z])" if word[0].isascii() and word[0].isalpha() else "")
        + re.escape(word)
        + ("(?![a-z])" if word[-1].isascii() and word[-1].isalpha() else "")
        for word in sorted(found, key=len, reverse=True)
    )


UNITS: Final[dict[str, Unit]] = {
    word: Unit(concept, size)
    for language in LANGUAGES
    for concept, units in language.units.items()
    for word, size in units.items()
}
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    word: tuple(other for other in group if other != word)
    for language in LANGUAGES
    for group in language.synonyms
    for word in group
}
FUNCTION_WORDS: Final = frozenset(
    words(
        lambda one: (
            *one.negations,
            *one.fillers,
            *one.any_of,
            *one.topics,
            *one.perhaps_topics,
            *one.near_before,
            *one.near_after,
            *one.similar,
            *one.yes,
            *one.no,
        )
    )
)
"""Words that are never the value of an attribute."""


def _said(value: object) -> Iterator[str]:
    """All texts in a language's rows, however deep."""
    if isinstance(value, str):
        yield from _LATIN_WORD.findall(value)
    elif isinstance(value, dict):
        yield from _said((*value, *value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _said(part)


_LATIN_WORD: Final = re.compile("[a-z]+")
SPOKEN: Final = frozenset(word for one in LANGUAGES for word in _said(astuple(one)))
"""Every word of Latin letters that requests are read by: no misspelling."""
_EMPTY: Final = frozenset(words(lambda one: one.empty))
_EMPTY_RUN: Final = re.compile(rf"(?:{alternatives(word for word in _EMPTY if word[0] > 'z')})*+")
_RUN: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def tells_nothing(text: str) -> bool:
    """Whether folded text has nothing but words that say nothing of what is wanted."""
    return all(
        run[0] in _EMPTY or _EMPTY_RUN.fullmatch(run[0]) is not None
        for run in _RUN.finditer(text.replace("’", "'"))
    )
