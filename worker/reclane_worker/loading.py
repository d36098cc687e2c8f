"""Loads the model and the catalogs that workers shall serve, and warms them up."""

import gc
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from reclane.contract import Failure, RecommendRequest
from reclane.errors import CatalogError, InvalidSettings
from reclane.publishing import Publication
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.encoder import Encoder, load_encoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.rerank.loading import load_reranker
from reclane_worker.settings import WorkerSettings

_log = logging.getLogger(__name__)
_WARM_UP = ("warm up", "a longer request warms up the kernels that longer requests will use " * 4)


_NOTHING: Final[Mapping[str, Publication]] = {}


def load_pipeline(
    settings: WorkerSettings, published: Mapping[str, Publication] = _NOTHING
) -> Pipeline:
    """Encoder, catalogs, reranker and pipeline, ready to answer at full speed. What is published
    under a catalog's name is loaded in place of its folder, if it can be.

    Raises:
        InvalidSettings, ModelUnusable, CatalogError: with what to do.
    """
    folders = settings.catalogs()
    if not folders:
        raise InvalidSettings(
            "RECLANE_CATALOG is not set; build one with `reclane catalog build` and name its folder"
        )
    encoder = load_encoder(settings)
    catalogs = {
        name: _load(name, path, published.get(name), encoder) for name, path in folders.items()
    }
    reranker = load_reranker(settings)
    pipeline = Pipeline(encoder, catalogs, settings, reranker)
    warm_up(pipeline)
    for name, catalog in catalogs.items():
        _log.info("catalog %s@%s: %s items", name, catalog.version, len(catalog))
    _log.info("model %s@%s on %s, %s threads", *_device(pipeline))
    if reranker is not None:
        limits = settings.rerank_candidates, 1e3 * pipeline.rerank_s
        _log.info(
            "reranker %s@%s: %s candidates, %.0f ms", reranker.name, reranker.revision, *limits
        )
    return pipeline


def _load(name: str, folder: Path, wanted: Publication | None, encoder: Encoder) -> Catalog:
    if wanted is not None:
        try:
            return load_catalog(name, Path(wanted.folder), encoder, wanted.version)
        except CatalogError as error:
            _log.warning("catalog %s: not what is published, but %s: %s", name, folder, error)
    return load_catalog(name, folder, encoder)


def warm_up(pipeline: Pipeline) -> None:
    """Answer some requests by the default catalog.

    Raises:
        CatalogError: it cannot answer.
    """
    for text in _WARM_UP:
        (answer,) = pipeline.recommend([RecommendRequest(query=text)])
        if isinstance(answer, Failure):
            raise CatalogError(f"a request to warm up failed: {answer.message} [{answer.code}]")


@contextmanager
def uncollected() -> Iterator[None]:
    """For what is loaded to stay: the collector of cycles looks through it neither while it grows
    nor later, and what has no cycle is freed as always.

    A look through 100,000 items held all threads for 0.9 s, whenever it came (2 busy cores); beside
    a load it came often, and requests had a p99 of 350 ms instead of 100.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def share_cores(batches: int) -> None:
    """Divide the cores among batches that run side by side."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // batches))


def _device(pipeline: Pipeline) -> tuple[str, str, str, int]:
    encoder = pipeline.encoder
    return encoder.name, encoder.revision, str(encoder.device), torch.get_num_threads()
