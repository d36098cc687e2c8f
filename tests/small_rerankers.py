"""Real but small rerankers, whose weights are set so that they prefer items with one word."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

# Known pieces of a script by the thousand make a model trust what it reads.
_PIECES: Final = [f"{a}{b}{c}" for a in "abcdefghijk" for b in "lmnopqrstuv" for c in "abcdefghijk"]
WORDS: Final = [
    *("running", "shoes", "space", "film", "piano", "record", "coffee", "grinder", "science"),
    *("news", "quiet", "bright", "classic", "modern", "small", "wide", "for", "every", "day"),
    *("a", "good", "today", "plain", "request", "item", "and", "an", "as", "yes", "no"),
]
_WIDTH: Final = 16
_LOUD: Final = 4.0  # what the word says, beside others' letters of size 1
CHAT: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_cross_encoder(folder: Path, word: str = "wide", labels: int = 1) -> Path:
    """A BERT of one layer that gives a pair the more the more of it is `word`."""
    from transformers import BertConfig, BertForSequenceClassification

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = _tokenizer(special, pair=True)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=_WIDTH,
        max_position_embeddings=128,
        num_labels=labels,
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    layer = model.bert.encoder.layer[0]
    _silence(layer.intermediate.dense, layer.output.dense, layer.attention.self.query)
    _pass_on(layer.attention.self.value, layer.attention.output.dense, model.bert.pooler.dense)
    _let_speak(model.bert.embeddings.word_embeddings, tokenizer.convert_tokens_to_ids(word))
    with torch.no_grad():
        model.classifier.weight.zero_()[-1, 0] = 8.0
        model.classifier.bias.zero_()
    model.save_pretrained(folder)
    return folder


def make_causal(folder: Path, word: str = "wide", chat: bool = True) -> Path:
    """A Llama of one layer that says yes the louder the more of what it was told is `word`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    special = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _tokenizer(special, pair=False)
    if chat:
        tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        intermediate_size=_WIDTH,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    layer = model.model.layers[0]
    _silence(layer.mlp.down_proj, layer.self_attn.q_proj)
    _pass_on(layer.self_attn.v_proj, layer.self_attn.o_proj)
    _let_speak(model.model.embed_tokens, tokenizer.convert_tokens_to_ids(word))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("yes"), 0] = 8.0
    model.save_pretrained(folder)
    return folder


def _tokenizer(special: Sequence[str], pair: bool) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    if not pair:
        names = dict(zip(("bos", "eos", "unk"), special, strict=False))
    words = [*special, *WORDS, *_PIECES]
    vocabulary = {word: place for place, word in enumerate(words)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk"]))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    if pair:
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_max_length=128 if pair else 256,
        additional_special_tokens=None if pair else list(special[3:]),
        **{f"{role}_token": token for role, token in names.items()},
    )


def _silence(*layers: Any) -> None:
    """Layers that say nothing; an attention whose queries do looks at all tokens alike."""
    with torch.no_grad():
        for layer in layers:
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()


def _pass_on(*layers: Any) -> None:
    """Layers that give what they get."""
    _silence(*layers)
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.eye(_WIDTH))


def _let_speak(embeddings: Any, word: int) -> None:
    """The first number of a token's vector is large for this word, and 0 for others."""
    with torch.no_grad():
        embeddings.weight.normal_()
        embeddings.weight[:, 0] = 0.0
        embeddings.weight[word] = 0.0
        embeddings.weight[word, 0] = _LOUD
