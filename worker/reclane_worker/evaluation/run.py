"""Measures the catalogs of a plan, one after another: read top to bottom."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from reclane_worker.ablation import gains
from reclane_worker.building import build_catalog
from reclane_worker.cases import Case, rankings, read_cases
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.encoder import Encoder
from reclane_worker.evaluation.measuring import OURS, Measured, measure_catalog
from reclane_worker.evaluation.plan import Plan
from reclane_worker.intent.schema import read_aliases
from reclane_worker.manifest import Manifest, read_manifest
from reclane_worker.metrics import Gain, per_request
from reclane_worker.reading import BadRow, Columns, read_items
from reclane_worker.rerank.models import Reranker
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import InteractionColumns, read_interactions

OnBad = Callable[[BadRow], None]
Gains = dict[str, dict[str, Gain]]
"""What each part of the pipeline gains, by measure."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How catalogs are measured: at most `limit` requests each, at random; with `ablate` also
    without each part; `columns` are those of interactions."""

    limit: int | None
    ablate: bool
    columns: InteractionColumns
    on_bad: OnBad


def measure_plan(
    plan: Plan,
    encoder: Encoder,
    settings: WorkerSettings,
    wanted: Wanted,
    reranker: Reranker | None = None,
) -> Iterator[tuple[Measured, Gains]]:
    """Each catalog's figures, and what each part gains there; nothing where that is not asked.

    Raises:
        CatalogError: a catalog, its items, requests or interactions cannot be used.
    """
    for name, source in plan.items():
        cases = sampled(read_cases(source.requests), wanted.limit)
        catalog, manifest = open_catalog(
            name, source.items, source.fields, source.aliases, encoder, wanted.on_bad
        )
        interactions = None
        if source.interactions is not None:
            interactions = read_interactions(
                source.interactions, wanted.columns, catalog.ids, wanted.on_bad
            )
        measured = measure_catalog(
            catalog, manifest, cases, encoder, settings, interactions, reranker
        )
        yield measured, _gains(measured, encoder, settings, reranker) if wanted.ablate else {}


def open_catalog(
    name: str,
    items: Path,
    fields: tuple[str, ...],
    aliases: Path | None,
    encoder: Encoder,
    on_bad: OnBad,
) -> tuple[Catalog, Manifest]:
    """A built folder's catalog, or one that is built for now of a file of items."""
    with TemporaryDirectory(prefix="reclane-eval-") as scratch:
        folder = items
        if not items.is_dir():
            folder = Path(scratch) / "catalog"
            known = None if aliases is None else read_aliases(aliases)
            source = read_items(items, Columns(), on_bad)
            build_catalog(source, folder, encoder, fields=fields, aliases=known)
        return load_catalog(name, folder, encoder), read_manifest(folder)


def sampled(cases: Sequence[Case], limit: int | None) -> Sequence[Case]:
    """At most `limit` of the requests, the same ones every time."""
    if limit is None or limit >= len(cases):
        return cases
    return random.Random(0).sample(cases, limit)  # noqa: S311  # a sample, not a secret


def _gains(
    measured: Measured, encoder: Encoder, settings: WorkerSettings, reranker: Reranker | None
) -> Gains:
    return gains(
        measured.values[OURS],
        encoder,
        measured.catalog,
        settings,
        [case.request for case in measured.cases],
        lambda pipeline, requests: per_request(
            list(rankings(pipeline, requests)), measured.relevant
        ),
        reranker,
    )
