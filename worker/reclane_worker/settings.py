"""Settings of a worker: those of a producer, and what the model, catalog and lane need."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field

from reclane.errors import InvalidSettings
from reclane.settings import Settings

MAX_LEASE_MESSAGES = 500


class WorkerSettings(Settings):
    """Built once when a worker starts and passed in. Every name takes the prefix RECLANE_."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A Hugging Face or sentence-transformers id or folder; `use:multilingual` reads 16 languages;
    `hash:384` is a test stand-in."""
    model_revision: str | None = None
    """Commit to pin when `model` is an id."""
    catalog: str = ""
    """A built folder, or name=folder,name=folder; the first is the default catalog."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    device_threads: int | None = Field(default=None, ge=1, le=64)
    """Batches that run side by side; default 1 on CUDA, up to 4 on CPU."""

    lane: bool = True
    """False makes a stock Celery worker of it, one request at a time."""
    bulk_runs: bool = True
    """False leaves bulk runs to other workers: those that see the files and databases."""
    lease_ms: int = Field(default=10_000, ge=500, le=600_000)
    """How long a silent worker keeps its messages before others take them over."""
    lease_messages: int = Field(default=256, ge=1, le=MAX_LEASE_MESSAGES)
    lease_bytes: int = Field(default=1_000_000, ge=1_000, le=8_000_000)
    batch_tokens: int | None = Field(default=None, ge=16)
    """Padded tokens in one device batch; default 1,024 on CPU and 16,384 on CUDA."""
    batch_requests: int = Field(default=256, ge=1, le=4_096)
    answer_cache: int = Field(default=0, ge=0, le=10_000_000)
    """Answers kept in the process, of 4 KB each on average at most; 0 keeps none."""
    bulk_slice_ms: float | None = Field(default=None, ge=1, le=10_000)
    """Predicted time of one bulk batch while interactive requests come, and so on CUDA what one of
    these may have to wait for; default 50 on CPU and 10 on CUDA."""
    max_attempts: int = Field(default=3, ge=2, le=100)
    """Crashes with a request started before it becomes a dead letter."""
    drain_s: float | None = Field(default=None, gt=0)
    """Bound on a drain; default 5 s + 4 x the predicted time of the running batch."""

    dense_weight: float | None = Field(default=None, ge=0, le=1)
    """Weight of the vector score, the lexical score has the rest; default what the catalog learnt,
    else 0.6."""
    history_decay: float = Field(default=0.9, gt=0, le=1)
    """Weight of a history item relative to the next newer one."""

    reranker: str = ""
    """A cross-encoder, or a causal model to be asked yes or no: id, folder or `package:NAME`; empty
    reranks nothing."""
    reranker_revision: str | None = None
    """Commit to pin when `reranker` is an id."""
    rerank_candidates: int = Field(default=50, ge=2, le=1_000)
    """The best so many items of a request with a text are looked at again."""
    rerank_ms: float | None = Field(default=None, gt=0, le=600_000)
    """Predicted time that reranking may add to a batch; default 500 on CPU and 50 on CUDA."""
    rerank_weight: float = Field(default=0.7, gt=0, le=1)
    """Weight of the reranker's score among the candidates; the first score has the rest."""

    def catalogs(self) -> dict[str, Path]:
        """Catalog name -> folder; a bare folder is named after itself.

        Raises:
            InvalidSettings: two catalogs have one name.
        """
        found: dict[str, Path] = {}
        for part in filter(None, (p.strip() for p in self.catalog.split(","))):
            name, _, folder = part.partition("=")
            if "/" in name or not folder:  # a bare folder, perhaps with = in its path
                name, folder = Path(part).name, part
            if name in found:
                raise InvalidSettings(
                    f"RECLANE_CATALOG names two catalogs {name!r}; write name=folder,name=folder"
                )
            found[name] = Path(folder)
        return found

    @classmethod
    def from_environment(cls, **overrides: object) -> Self:
        """As `load`; the worker process is configured by its environment alone."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return cls.load(**overrides)
