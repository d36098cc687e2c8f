"""Request and item to a score: the Reranker seam and its two kinds of models."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from reclane.errors import ModelUnusable
from reclane_worker.compiled import compiled
from reclane_worker.encoder import digest_of, dtype_of, padded
from reclane_worker.rerank.pairs import MAX_TOKENS, Pair, Pairing, pair_template
from reclane_worker.rerank.prompt import prompt_template

_PARTS: Final = (".safetensors", ".json", ".jinja")
_UNBOUNDED: Final = 1_000_000  # what a tokenizer says that knows no bound is more
_OWN_POSITIONS: Final = 2  # that a model may keep for itself, as RoBERTa does


class Reranker(Protocol):
    """What reranking needs of a model. Same pair, same score, whatever the batch."""

    name: str
    revision: str
    """Digest of weights and tokenizer."""
    device: torch.device
    pairing: Pairing

    def score(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """Log-odds that each item answers its request, (pairs,) float32 on `device`. Pads to the
        longest of the batch."""
        ...


class CrossEncoder:
    """A model for classifying pairs of texts: one label is the score, of two the second says yes.
    Its own tokenizer joins the texts."""

    def __init__(self, name: str, folder: Path, config: Any, device: torch.device) -> None:
        from transformers import AutoModelForSequenceClassification

        if config.num_labels not in (1, 2):
            raise ModelUnusable(
                f"{name} has {config.num_labels} labels; RECLANE_RERANKER takes a classifier with "
                "one, a score, or two, no and yes"
            )
        tokenizer = load_tokenizer(name, folder)
        self.name = name
        self.revision = digest_of(folder, _PARTS)
        self.device = device
        self.pairing = Pairing(tokenizer, pair_template(tokenizer), _most(tokenizer, config))
        self._pad = _pad(tokenizer)
        self._left = tokenizer.padding_side == "left"
        model: Any = load_weights(AutoModelForSequenceClassification, name, folder, device)
        if model.config.pad_token_id is None:  # decoders look for the last token by it
            model.config.pad_token_id = self._pad
        takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
        last_type = (getattr(config, "type_vocab_size", None) or 1) - 1

        def forward(ids: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
            inputs = {"input_ids": ids, "attention_mask": (marks > 0).long()}
            if takes_types:
                inputs["token_type_ids"] = (marks - 1).clamp(0, last_type)
            logits: torch.Tensor = model(**inputs).logits.float()  # (pairs, labels)
            return logits[:, -1] - logits[:, 0] if logits.shape[1] > 1 else logits[:, 0]

        self._forward = compiled(forward, config.vocab_size) if device.type == "cpu" else forward

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair]) -> torch.Tensor:
        ids, _ = padded([one.tokens for one in pairs], self._pad, left=self._left)
        marks, _ = padded([one.marks for one in pairs], 0, left=self._left)
        move = self.device
        return self._forward(ids.to(move, non_blocking=True), marks.to(move, non_blocking=True))


class YesNo:
    """A causal model, asked whether an item fits a request: how much likelier its next token is
    yes than no."""

    def __init__(self, name: str, folder: Path, config: Any, device: torch.device) -> None:
        from transformers import AutoModelForCausalLM

        tokenizer = load_tokenizer(name, folder)
        template, self._yes, self._no = prompt_template(tokenizer)
        self.name = name
        self.revision = digest_of(folder, _PARTS)
        self.device = device
        self.pairing = Pairing(tokenizer, template, _most(tokenizer, config))
        self._pad = _pad(tokenizer)
        self._model: Any = load_weights(AutoModelForCausalLM, name, folder, device)
        self._takes = frozenset(inspect.signature(self._model.forward).parameters)

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair]) -> torch.Tensor:
        # Padded on the left, so that the last token of each is the last one.
        ids, mask = padded([one.tokens for one in pairs], self._pad, left=True)
        ids = ids.to(self.device, non_blocking=True)
        mask = mask.to(self.device, non_blocking=True)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in self._takes:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
        if "logits_to_keep" in self._takes:
            inputs["logits_to_keep"] = 1  # those of all tokens would be most of the memory
        if "use_cache" in self._takes:
            inputs["use_cache"] = False
        logits: torch.Tensor = self._model(**inputs).logits[:, -1].float()  # (pairs, vocabulary)
        return logits[:, self._yes].logsumexp(1) - logits[:, self._no].logsumexp(1)


def load_tokenizer(name: str, folder: Path) -> Any:
    """The tokenizer in a folder.

    Raises:
        ModelUnusable: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        raise ModelUnusable(f"{name}: its tokenizer cannot be loaded: {error}") from error


def load_weights(kind: Any, name: str, folder: Path, device: torch.device) -> Any:
    """A model of this kind from safetensors, ready to be asked.

    Raises:
        ModelUnusable: it cannot be loaded, or its weights lack some of the model.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, told = kind.from_pretrained(
            str(folder),
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype_of(device),
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelUnusable(f"{name} cannot be loaded: {error}") from error
    if told["missing_keys"]:  # they would be random
        raise ModelUnusable(
            f"{name}: its weights lack {len(told['missing_keys'])} of the model's tensors, "
            f"{min(told['missing_keys'])} for one; set RECLANE_RERANKER to a trained reranker"
        )
    return model.to(device).eval().requires_grad_(False)


def _most(tokenizer: Any, config: Any) -> int:
    """Tokens that a model takes."""
    positions = getattr(config, "max_position_embeddings", None) or MAX_TOKENS + _OWN_POSITIONS
    said = int(tokenizer.model_max_length or _UNBOUNDED)
    return min(said, positions) if said < _UNBOUNDED else positions - _OWN_POSITIONS


def _pad(tokenizer: Any) -> int:
    return next(
        (one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0
    )
