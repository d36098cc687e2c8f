"""The encoder with real weights: faithful to the model's own files, whatever the batch."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from reclane.errors import ModelUnusable
from reclane_worker.demo import MODEL, burst
from reclane_worker.encoder import Encoder, load_encoder, pieces_by_script, resolve_folder
from reclane_worker.settings import WorkerSettings
from reclane_worker.text import normalise

TEXTS = [
    *burst(30),
    "x",
    "a film that I half remember: " + "a man walks through a city at night, " * 60,
]


def similarity(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(one, other, dim=1)


def encode(encoder: Encoder, texts: list[str]) -> torch.Tensor:
    return encoder.encode(encoder.tokenise(texts, "query"), "query")


def copy_model(folder: Path) -> Path:
    return Path(shutil.copytree(resolve_folder(MODEL, None), folder))


def load(folder: Path) -> Any:
    return load_encoder(WorkerSettings.load(model=str(folder)))


def test_a_text_has_the_same_vector_alone_and_in_a_batch(encoder: Encoder) -> None:
    together = encode(encoder, TEXTS)
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS])
    assert similarity(together, alone).min() >= 0.9999


def test_texts_are_cut_whatever_other_threads_ask_meanwhile(encoder: Encoder) -> None:
    """A fast tokenizer keeps what the last call said of truncation."""
    long = "a man walks through a city at night, " * 60
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            encoder.knows("city")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        lengths = {len(ids) for _ in range(200) for ids in encoder.tokenise([long], "query")}
    finally:
        stop.set()
        asking.join()
    assert lengths == {encoder.max_tokens}


def test_vectors_are_those_of_sentence_transformers(encoder: Encoder) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(resolve_folder(MODEL, None)), device="cpu")
    english = [text for text in TEXTS if text.isascii()]
    expected = model.encode_query(english, convert_to_tensor=True)
    assert similarity(encode(encoder, english), expected).min() >= 0.9999


def test_prompts_come_from_the_models_own_files(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = copy_model(tmp_path / "prompted")
    config = folder / "config_sentence_transformers.json"
    settings = json.loads(config.read_text())
    settings["prompts"] = {"query": "query: ", "document": "passage: "}
    config.write_text(json.dumps(settings))
    encoder = load(folder)
    model = SentenceTransformer(str(folder), device="cpu")
    texts = ["running shoes", "a long film about the sea"]
    for role, expected in (
        ("query", model.encode_query(texts, convert_to_tensor=True)),
        ("document", model.encode_document(texts, convert_to_tensor=True)),
    ):
        vectors = encoder.encode(encoder.tokenise(texts, role), role)
        assert similarity(vectors, expected).min() >= 0.9999
    assert encoder.revision != load_encoder(WorkerSettings.load(model=MODEL)).revision


def test_a_plain_hugging_face_folder_is_pooled_by_its_mean(
    encoder: Encoder, tmp_path: Path
) -> None:
    folder = copy_model(tmp_path / "plain")
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    assert similarity(encode(load(folder), TEXTS[:4]), encode(encoder, TEXTS[:4])).min() >= 0.9999


def test_weights_that_could_run_code_are_refused(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelUnusable, match="no safetensors"):
        load(folder)


@pytest.mark.parametrize("model", ["package:not_installed_here", "nobody/never-published-this"])
def test_a_missing_model_says_what_to_do(model: str) -> None:
    with pytest.raises(ModelUnusable, match=r"not installed|give a folder in RECLANE_MODEL"):
        load_encoder(WorkerSettings.load(model=model))


def trust(encoder: Encoder, text: str) -> float:
    text = normalise(text)
    return encoder.trust(text, encoder.tokenise([text], "query")[0])


def test_an_english_model_trusts_english_and_not_chinese(encoder: Encoder) -> None:
    assert trust(encoder, "a good science fiction film") == 1.0
    assert trust(encoder, "想看一部好看的科幻电影") < 0.05
    assert trust(encoder, "хороший фантастический фильм") < 0.05
    assert 0.05 < trust(encoder, "想看 Blade Runner 那样的电影") < 0.9
    assert trust(encoder, "2001") == 1.0


def test_what_it_cannot_read_is_left_out_of_a_mixed_text(encoder: Encoder) -> None:
    mixed = encode(encoder, ["running shoes 舒适的跑步鞋"])
    assert similarity(mixed, encode(encoder, ["running shoes"])).item() >= 0.9999


def test_a_byte_level_vocabulary_counts_by_the_letters_it_spells() -> None:
    """Such a vocabulary writes 看 as three Latin look-alikes; RoBERTa and Qwen have one."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    sentences = ["想看一部好看的科幻电影，想买一双舒适的跑步鞋。a good film"] * 50
    trained.train_from_iterator(sentences, vocab_size=500, min_frequency=1, show_progress=False)
    pieces = pieces_by_script(PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer))
    assert pieces["CJK"] > 10
    assert pieces["LATIN"] < 200


def test_a_misspelling_is_no_word_of_the_model(encoder: Encoder) -> None:
    assert all(map(encoder.knows, ["funny", "would", "comedy"]))
    assert not any(map(encoder.knows, ["comdey", "scinece", "q" * 500]))
