"""Loads the reranker that the settings name, as what its own config says that it is."""

from pathlib import Path
from typing import Any, Final

from reclane.errors import ModelUnusable
from reclane_worker.encoder import choose_device, resolve_folder
from reclane_worker.rerank.models import CrossEncoder, Reranker, YesNo
from reclane_worker.settings import WorkerSettings

_KINDS: Final[dict[str, type[CrossEncoder] | type[YesNo]]] = {
    "ForSequenceClassification": CrossEncoder,
    "ForCausalLM": YesNo,
    "LMHeadModel": YesNo,  # GPT-2's name for it
}


def load_reranker(settings: WorkerSettings) -> Reranker | None:
    """The reranker that `settings.reranker` names; None where none is wanted.

    Raises:
        ModelUnusable: not found, not safetensors, of another kind, or needs code of its own; says
            what to do.
    """
    name = settings.reranker
    if not name:
        return None
    folder = resolve_folder(name, settings.reranker_revision, "RECLANE_RERANKER")
    config = _config(name, folder)
    architecture = next(iter(config.architectures or ()), "a model of no named architecture")
    for ending, kind in _KINDS.items():
        if architecture.endswith(ending):
            return kind(name, folder, config, choose_device(settings.device))
    raise ModelUnusable(
        f"{name} is {architecture}; RECLANE_RERANKER takes a cross-encoder "
        "(...ForSequenceClassification) or a causal model (...ForCausalLM)"
    )


def _config(name: str, folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        raise ModelUnusable(f"{name} cannot be loaded: {error}") from error
