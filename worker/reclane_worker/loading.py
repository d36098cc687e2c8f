"""Loads the model and the catalogs that the settings name, and warms them up."""

import logging
import os

import torch

from reclane.contract import RecommendRequest
from reclane.errors import InvalidSettings
from reclane_worker.catalog import load_catalog
from reclane_worker.encoder import load_encoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.rerank.loading import load_reranker
from reclane_worker.settings import WorkerSettings

_log = logging.getLogger(__name__)
_WARM_UP = ("warm up", "a longer request warms up the kernels that longer requests will use " * 4)


def load_pipeline(settings: WorkerSettings) -> Pipeline:
    """Encoder, catalogs, reranker and pipeline, ready to answer at full speed.

    Raises:
        InvalidSettings, ModelUnusable, CatalogError: with what to do.
    """
    folders = settings.catalogs()
    if not folders:
        raise InvalidSettings(
            "RECLANE_CATALOG is not set; build one with `reclane catalog build` and name its folder"
        )
    encoder = load_encoder(settings)
    catalogs = {name: load_catalog(name, path, encoder) for name, path in folders.items()}
    reranker = load_reranker(settings)
    pipeline = Pipeline(encoder, catalogs, settings, reranker)
    for text in _WARM_UP:
        pipeline.recommend([RecommendRequest(query=text)])
    for name, catalog in catalogs.items():
        _log.info("catalog %s@%s: %s items", name, catalog.version, len(catalog))
    _log.info("model %s@%s on %s, %s threads", *_device(pipeline))
    if reranker is not None:
        limits = settings.rerank_candidates, 1e3 * pipeline.rerank_s
        _log.info(
            "reranker %s@%s: %s candidates, %.0f ms", reranker.name, reranker.revision, *limits
        )
    return pipeline


def share_cores(batches: int) -> None:
    """Divide the cores among batches that run side by side."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // batches))


def _device(pipeline: Pipeline) -> tuple[str, str, str, int]:
    encoder = pipeline.encoder
    return encoder.name, encoder.revision, str(encoder.device), torch.get_num_threads()
