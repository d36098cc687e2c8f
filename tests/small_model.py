"""A real but small sentence-transformers model, and a language that it can learn within seconds."""

import json
import random
from pathlib import Path
from typing import Final

import torch

COLOURS: Final = [f"hue{n}" for n in range(8)]
SHAPES: Final = [f"form{n}" for n in range(8)]
ASKED: Final = {word: f"q{word}" for word in (*COLOURS, *SHAPES)}
"""What requests call it: no word of theirs is in an item."""
FILLER: Final = ["looking", "for", "something", "like", "this", "please", "any", "idea"]


def make_small_model(folder: Path) -> Path:
    """A BERT of two layers with random weights, pooled by its mean."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    # Known pieces of a script by the thousand make the encoder trust what it reads.
    padding = [f"{a}{b}{c}" for a in "abcdefghijk" for b in "lmnopqrstuv" for c in "abcdefghijk"]
    words = [*special, *COLOURS, *SHAPES, *ASKED.values(), *FILLER, *padding]
    raw = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
    )
    plain = folder.with_name(f"{folder.name}-plain")
    bert.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    transformer = Transformer(str(plain))
    model = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def write_world(folder: Path) -> tuple[Path, Path, Path]:
    """Items, requests to learn from, and others to judge by: each pair of a colour and a shape is
    an item; a request names both, in its own words."""
    chance = random.Random(0)
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    items = [
        {"id": f"{colour}-{shape}", "title": f"{colour} {shape}", "text": ""}
        for colour, shape in pairs
    ]
    chance.shuffle(pairs)
    asked = [_request(pair, chance) for pair in pairs for _ in range(4)]
    judged = 16 * 4
    files = {"items": items, "train": asked[judged:], "validation": asked[:judged]}
    paths = []
    for name, rows in files.items():
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return paths[0], paths[1], paths[2]


def _request(pair: tuple[str, str], chance: random.Random) -> dict[str, object]:
    words = [*(ASKED[word] for word in pair), *chance.sample(FILLER, 3)]
    chance.shuffle(words)
    return {"query": " ".join(words), "relevant": ["-".join(pair)]}
