"""Text to vectors: the Encoder seam, and the encoder for sentence-transformers models."""

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import torch

from reclane.errors import ModelUnusable
from reclane_worker.compiled import Forward, compiled
from reclane_worker.literacy import Literacy
from reclane_worker.settings import WorkerSettings
from reclane_worker.text import script

Role = Literal["query", "document"]
Tokens = list[int]

KNOWN_SCRIPT_PIECES: Final = 1_000
"""A script with this many vocabulary pieces counts as fully known. all-MiniLM-L6-v2 has 27,000
Latin pieces and some 250 Han characters; multilingual vocabularies have several thousand."""

MAX_DIM: Final = 65_536
_NEEDED_FILES: Final = [
    "*.json",
    "*.txt",
    "*.jinja",
    "*.safetensors",
    "*.model",
    "*/*.json",
    "*/*.safetensors",
]


class Encoder(Protocol):
    """What the pipeline needs of a model. Same text, same vector, whatever the batch."""

    name: str
    revision: str
    """Digest of weights and tokenizer; a catalog's vectors belong to one revision."""
    pooling: str
    dim: int
    device: torch.device

    @property
    def max_tokens(self) -> int | None:
        """Most tokens that `tokenise` gives of a text; None where it gives all."""
        ...

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        """Token ids of each text, truncated to what the model takes, prompt included."""
        ...

    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        """Vectors (batch, dim), float32, on `device`. Pads to the longest of the batch."""
        ...

    def trust(self, text: str, tokens: Tokens) -> float:
        """0 to 1: how far the model can read this text's scripts."""
        ...

    def knows(self, word: str) -> bool:
        """Whether a word, in lower case, is one piece of the model's vocabulary: no misspelling."""
        ...


def load_encoder(settings: WorkerSettings) -> Encoder:
    """The encoder that `settings.model` names.

    Raises:
        ModelUnusable: not found, not safetensors, or needs code of its own; says what to do.
        MissingExtra: the multilingual encoder is not installed.
    """
    device = choose_device(settings.device)
    if settings.model.startswith("use:"):
        from reclane_worker import multilingual

        if settings.model != multilingual.NAME:
            raise ModelUnusable(f"RECLANE_MODEL={settings.model}: write {multilingual.NAME}")
        return multilingual.MultilingualEncoder(device)
    if settings.model.startswith("hash:"):
        from reclane_worker.hashing import HashEncoder

        size = settings.model.removeprefix("hash:")
        if not size.isdecimal() or not 1 <= int(size) <= MAX_DIM:
            raise ModelUnusable(f"RECLANE_MODEL={settings.model}: write hash:384, or another size")
        return HashEncoder(int(size), device)
    folder = resolve_folder(settings.model, settings.model_revision)
    return SentenceEncoder(settings.model, folder, device)


def choose_device(wish: str) -> torch.device:
    """`auto` is CUDA where present, else CPU."""
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(wish)
    except RuntimeError:
        raise ModelUnusable(
            f"RECLANE_DEVICE={wish!r} is no device; use auto, cpu or cuda"
        ) from None


def resolve_folder(model: str, revision: str | None, setting: str = "RECLANE_MODEL") -> Path:
    """The local folder of a model: a folder, `package:NAME` (a Python package that ships its
    weights under model/), or a hub id, fetched once and then read offline. `setting` named it.

    Raises:
        ModelUnusable: it is not there, or has no safetensors.
    """
    if model.startswith("package:"):
        spec = find_spec(model.removeprefix("package:"))
        if spec is None or not spec.submodule_search_locations:
            raise ModelUnusable(f"{model}: that Python package is not installed")
        folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    elif Path(model).is_dir():
        folder = Path(model)
    else:
        folder = _fetch(model, revision, setting)
    if not any(folder.glob("**/*.safetensors")):
        raise ModelUnusable(f"{model}: no safetensors weights; other formats can run code")
    return folder


def _fetch(model: str, revision: str | None, setting: str) -> Path:
    from huggingface_hub import snapshot_download

    fetch = partial(snapshot_download, model, revision=revision, allow_patterns=_NEEDED_FILES)
    try:
        return Path(fetch(local_files_only=True))
    except Exception:
        try:
            return Path(fetch())
        except Exception as error:
            raise ModelUnusable(
                f"{model}: not in the local cache and not to be fetched ({type(error).__name__}); "
                f"give a folder in {setting}, or fetch it where there is a network"
            ) from error


class SentenceEncoder:
    """Any sentence-transformers or Hugging Face encoder; pooling, prompts and normalisation come
    from the model's own files. float32 on CPU, bfloat16 or float16 on CUDA."""

    def __init__(self, name: str, folder: Path, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._model: Any = SentenceTransformer(
                str(folder),
                device=str(device),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": dtype_of(device)},
            )
        except Exception as error:
            raise ModelUnusable(f"{name} cannot be loaded: {error}") from error
        self._model.eval().requires_grad_(False)
        self.name = name
        self.device = device
        self.revision = digest_of(folder, (".safetensors", ".json"))
        self.pooling = ", ".join(type(module).__name__ for module in self._model)
        self.dim = int(self._model.get_embedding_dimension() or 0)
        self._tokenizer: Any = self._model.tokenizer
        self._tokenising = threading.Lock()  # each call sets the truncation of the next one
        self.max_tokens = int(self._model.max_seq_length or 512)
        self._normalise = self._model.similarity_fn_name != "dot"
        self.prompts: dict[Role, str] = {role: self._prompt(role) for role in get_args(Role)}
        pieces = pieces_by_script(self._tokenizer)
        self._literacy = Literacy(
            {name: min(1.0, count / KNOWN_SCRIPT_PIECES) for name, count in pieces.items()},
            self._tokenizer.unk_token_id,
        )
        forwards = {prompt: self._forward(prompt) for prompt in set(self.prompts.values())}
        self._forwards = {role: forwards[prompt] for role, prompt in self.prompts.items()}

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        if not texts:
            return []
        prompt = self.prompts[role]
        given = [prompt + self.readable(text) for text in texts]
        with self._tokenising:
            encoded = self._tokenizer(
                given,
                truncation=True,
                max_length=self.max_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        ids: list[Tokens] = encoded["input_ids"]
        return ids

    @torch.inference_mode()
    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        pad = self._tokenizer.pad_token_id or 0
        ids, mask = padded(tokens, pad, left=self._tokenizer.padding_side == "left")
        run = self._forwards[role]
        return run(ids.to(self.device, non_blocking=True), mask.to(self.device, non_blocking=True))

    def _forward(self, prompt: str) -> Forward:
        """How batches whose texts begin with this prompt go through the model."""
        takes_types = "token_type_ids" in self._tokenizer.model_input_names
        fixed = {"prompt_length": self._count(prompt)} if prompt else {}

        def forward(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, **fixed}
            if takes_types:
                features["token_type_ids"] = torch.zeros_like(ids)
            vectors: torch.Tensor = self._model(features)["sentence_embedding"].float()
            return torch.nn.functional.normalize(vectors, dim=1) if self._normalise else vectors

        if self.device.type != "cpu":
            return forward
        return compiled(forward, len(self._tokenizer))

    def readable(self, text: str) -> str:
        """What of a text the model is given."""
        return self._literacy.readable(text)

    def trust(self, text: str, tokens: Tokens) -> float:
        return self._literacy.trust(text, tokens)

    def knows(self, word: str) -> bool:
        with self._tokenising:
            ids = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        return len(ids) == 1 and ids[0] != self._tokenizer.unk_token_id

    def _prompt(self, role: str) -> str:
        prompts = self._model.prompts or {}
        names = (role, "passage") if role == "document" else (role,)
        default = prompts.get(self._model.default_prompt_name or "", "")
        return next((prompts[name] for name in names if prompts.get(name)), default) or ""

    def _count(self, prompt: str) -> int:
        """Tokens of a prompt, its opening special token included, for pooling without it."""
        return len(self._tokenizer(prompt)["input_ids"]) - 1


def dtype_of(device: torch.device) -> torch.dtype:
    """What weights are held in: float32 on CPU, bfloat16 or float16 on CUDA."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def padded(
    tokens: Sequence[Tokens], pad: int, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, filled up to the longest of the batch, and their mask, both (batch, tokens)."""
    longest = max(map(len, tokens))
    spaces = [longest - len(sequence) for sequence in tokens]
    if left:
        filled = [[pad] * n + [*one] for n, one in zip(spaces, tokens, strict=True)]
        masks = [[0] * n + [1] * (longest - n) for n in spaces]
    else:
        filled = [[*one] + [pad] * n for n, one in zip(spaces, tokens, strict=True)]
        masks = [[1] * (longest - n) + [0] * n for n in spaces]
    return torch.tensor(filled), torch.tensor(masks)  # one copy each


def digest_of(folder: Path, suffixes: Sequence[str]) -> str:
    """First 12 hex digits of SHA-256 over names and bytes of weights, tokenizer and config: the
    files that end in `suffixes`."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in suffixes):
        whole.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:12]


def pieces_by_script(tokenizer: Any) -> Counter[str]:
    """How many distinct vocabulary pieces contain letters of each script."""
    # Shown as text first: a byte-level vocabulary spells Chinese in Latin look-alikes.
    shown = (tokenizer.convert_tokens_to_string([piece]) for piece in tokenizer.get_vocab())
    found: Counter[str] = Counter()
    for text in {text.removeprefix("##").strip() for text in shown}:
        found.update({s for s in map(script, text) if s})
    return found


class Named(Protocol):
    """A model that has a name and a digest of its files."""

    name: str
    revision: str


def describe(model: Named) -> str:
    """How an answer names a model: its name and the digest of its files."""
    return f"{model.name.rsplit('/', 1)[-1].removeprefix('package:')}@{model.revision}"
