"""The words that a request is read by. A new language is one more `Language` in LANGUAGES.

Words only: what they are about comes from each catalog's schema. All are lower case, as
`lexicon.fold` gives text.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Final, Literal

Op = Literal["gt", "gte", "lt", "lte"]
Concept = Literal["price", "rating", "year", "duration", "size"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A phrase beside a number, and the side of it that is meant; of one concept, or of any."""

    phrase: str
    op: Op
    concept: Concept | None = None


@dataclass(frozen=True, slots=True)
class Language:
    """Words of one language. `names` are what attributes of a concept are called, or part of it."""

    names: dict[Concept, tuple[str, ...]]
    units: dict[Concept, tuple[str, ...]]
    before: tuple[Bound, ...]  # stand before their number
    after: tuple[Bound, ...]
    between: tuple[str, ...]  # before two numbers that `joins` join
    joins: tuple[str, ...]
    decades: tuple[str, ...]  # after two or four digits
    free: tuple[str, ...]
    low: tuple[str, ...]  # of a price, without a number
    high: tuple[str, ...]
    negations: tuple[str, ...]  # before what is not wanted
    fillers: tuple[str, ...]  # may stand between such a word and its object
    any_of: tuple[str, ...]  # between alternatives
    topics: tuple[str, ...]  # before what something is about, which is no category of it
    near_before: tuple[str, ...]  # what stands beside these is a place, not what is wanted
    near_after: tuple[str, ...]
    asides: tuple[str, ...]  # before what is wanted only where nothing else is
    counters: tuple[str, ...]  # may stand between a number and its unit
    similar: tuple[str, ...]  # before the title of an item
    yes: tuple[str, ...]
    no: tuple[str, ...]
    counts: tuple[str, ...]  # patterns with a group for how many
    empty: tuple[str, ...]  # tell nothing of what is wanted, even together


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
    },
    units={
        "price": ("dollars", "dollar", "bucks", "usd", "euros", "euro", "eur", "pounds", "gbp"),
        "rating": ("stars", "star", "points"),
        "year": (),
        "duration": ("minutes", "minute", "mins", "min", "hours", "hour"),
        "size": ("inches", "inch"),
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
    free=("free of charge", "for free", "free entry", "free admission", "free"),
    low=("cheap", "inexpensive", "affordable", "budget"),
    high=("expensive", "luxurious", "high-end", "upscale"),
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
        "isn't",
        "hate",
        "never",
    ),
    fillers=("a", "an", "any", "the", "too", "very", "in"),
    any_of=("or", "/", ",", "and/or"),
    topics=("about", "on", "of", "regarding", "involving"),
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
)

CHINESE: Final = Language(
    names={
        "price": ("价格", "价位", "价", "消费", "费用", "门票", "票价", "预算"),
        "rating": ("评分", "星级", "评价"),
        "year": ("年份", "上映", "出版"),
        "duration": ("时间", "时长"),
        "size": ("尺寸",),
    },
    units={
        "price": ("元钱", "块钱", "美元", "美金", "欧元", "英镑", "元", "块"),
        "rating": ("分", "颗星", "星"),
        "year": ("年",),
        "duration": ("小时", "分钟"),
        "size": ("英寸", "寸"),
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
    free=("免费", "不要钱", "免门票"),
    low=("便宜", "实惠"),
    high=("昂贵", "奢华"),
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
    any_of=("或者", "或", "还是", "、", "/"),
    topics=("关于",),
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
)

LANGUAGES: Final = (ENGLISH, CHINESE)

NUMBER_WORDS: Final = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
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


UNITS: Final[dict[str, Concept]] = {
    word: concept
    for language in LANGUAGES
    for concept, units in language.units.items()
    for word in units
}
FUNCTION_WORDS: Final = frozenset(
    words(
        lambda one: (
            *one.negations,
            *one.fillers,
            *one.any_of,
            *one.topics,
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
    elif isinstance(value, dict | tuple | list):
        for part in value.values() if isinstance(value, dict) else value:
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
