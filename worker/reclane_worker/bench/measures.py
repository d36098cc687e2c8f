"""What measurements share: the encoder without a queue, ratios of rounds, quantiles."""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch

from reclane_worker.batching import Limits, plan
from reclane_worker.encoder import Encoder, resolve_folder

_LIBRARY_BATCH: Final = 128  # sentence-transformers' fastest of 32, 64, 128 with MiniLM on 2 cores
_QUANTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def offline_s(encoder: Encoder, limits: Limits, texts: Sequence[str]) -> float:
    """Seconds to tokenise and encode these texts, sorted by length, in a worker's batches."""
    started = time.perf_counter()
    tokens = encoder.tokenise(texts, "query")
    for group in plan([len(ids) for ids in tokens], limits):
        encoder.encode([tokens[i] for i in group], "query").cpu()
    return time.perf_counter() - started


class Library:
    """The same model as anybody would run it offline: sentence-transformers' own `encode`."""

    def __init__(self, model: str, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(resolve_folder(model, None)), device=str(device))

    def offline_s(self, texts: Sequence[str]) -> float:
        """Seconds to tokenise and encode these texts, sorted by length."""
        started = time.perf_counter()
        self._model.encode(
            sorted(texts, key=len), batch_size=_LIBRARY_BATCH, show_progress_bar=False
        )
        return time.perf_counter() - started


def around(values: Sequence[float]) -> list[float]:
    """What was measured before and after each of some rounds, as the means of both: a machine that
    slows down or speeds up meanwhile falls out."""
    return [statistics.fmean(pair) for pair in pairwise(values)]


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Of rounds: what both sides lose to other work on the machine falls out."""
    return statistics.median(o / u for o, u in zip(over, under, strict=True))


def rounds(over: Sequence[float], under: Sequence[float]) -> str:
    """The median of the rounds' ratios, and each."""
    each = ", ".join(f"{o / u:.2f}" for o, u in zip(over, under, strict=True))
    return f"{median_ratio(over, under):.2f} ({each})"


def quantile(values: Sequence[float], q: float) -> float:
    """The value that so large a share of them does not exceed."""
    return sorted(values)[int(q * (len(values) - 1))]


def quantiles(values_ms: Sequence[float]) -> str:
    """p50, p95 and p99, milliseconds."""
    return ", ".join(f"{name} {quantile(values_ms, q):,.0f} ms" for name, q in _QUANTILES)
