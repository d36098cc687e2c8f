"""`reclane eval`: recommendation quality on requests with known answers, beside BM25."""

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from reclane_worker.ablation import SHOWN, gains
from reclane_worker.baselines import bm25_rankings
from reclane_worker.building import build_catalog
from reclane_worker.cases import DEPTH, Case, rankings, read_cases
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.cli.bad_rows import BadRows
from reclane_worker.cli.interactions import interaction_options
from reclane_worker.cli.trials import evaluate_histories
from reclane_worker.encoder import Encoder, load_encoder
from reclane_worker.metrics import Estimate, Gain, measure, per_request
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import Columns, read_items
from reclane_worker.rerank.loading import load_reranker
from reclane_worker.rerank.models import Reranker
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import InteractionColumns

Scores = dict[str, dict[str, Estimate]]
Gains = dict[str, dict[str, Gain]]


@click.command("eval")
@click.argument("items", type=click.Path(exists=True, path_type=Path))
@click.argument(
    "requests", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--model", help="Model id or folder; default RECLANE_MODEL.")
@click.option("--fields", default="title,text", show_default=True, help="As in catalog build.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many requests, at random.")
@click.option("--ablate", is_flag=True, help="Also tell what each part of the pipeline gains.")
@interaction_options
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def evaluate(
    items: Path,
    requests: Path | None,
    model: str | None,
    fields: str,
    limit: int | None,
    ablate: bool,
    interactions: Path | None,
    named: InteractionColumns,
    as_json: bool,
) -> None:
    """Measure recommendation quality: ITEMS (a file, or a built catalog) against REQUESTS.

    A request line is JSON with `query` and `relevant` (item ids). Figures are means over the
    requests with standard errors; gains have 95 % paired bootstrap intervals. Ties rank by
    catalog order.

    With --interactions instead of REQUESTS: how well histories foresee likes held out.
    """
    if (requests is None) == (interactions is None):
        raise click.UsageError("give either REQUESTS or --interactions")
    if ablate and requests is None:
        raise click.UsageError("--ablate needs REQUESTS")
    settings = WorkerSettings.from_environment(model=model)
    # What a reranker gains when it has time: a batch of hundreds would leave it none.
    settings = settings.model_copy(update={"rerank_ms": math.inf})
    encoder = load_encoder(settings)
    reranker = None if requests is None else load_reranker(settings)
    cases = [] if requests is None else read_cases(requests)
    if limit is not None and limit < len(cases):
        cases = random.Random(0).sample(cases, limit)  # noqa: S311  # a sample, not a secret
    with TemporaryDirectory(prefix="reclane-eval-") as scratch:
        folder = items
        if not items.is_dir():
            folder = Path(scratch) / "catalog"
            source = read_items(items, Columns(), BadRows(skip=False))
            build_catalog(source, folder, encoder, fields=tuple(fields.split(",")))
        catalog = load_catalog("eval", folder, encoder)
        if interactions is not None:
            evaluate_histories(catalog, encoder, settings, interactions, named, limit, as_json)
            return
        pipeline = Pipeline(encoder, {"eval": catalog}, settings, reranker)
        started = time.perf_counter()
        ours = list(rankings(pipeline, [case.request for case in cases]))
        seconds = time.perf_counter() - started
        words = list(bm25_rankings(catalog, [case.request for case in cases], DEPTH))
        gained = _gains(ours, encoder, catalog, settings, cases, reranker) if ablate else {}
    relevant = [case.relevant for case in cases]
    scores = {
        "bm25": measure(words, relevant),
        "reclane": measure(ours, relevant),
    }
    if as_json:
        figures = _as_json(scores, encoder.name, catalog, len(cases), seconds)
        gains_of = {part: {m: asdict(g) for m, g in of.items()} for part, of in gained.items()}
        click.echo(json.dumps(figures | {"gains": gains_of}))
    else:
        _print(scores, encoder.name, catalog, len(cases), seconds)
        _print_gains(gained)


def _gains(
    ours: Sequence[list[str]],
    encoder: Encoder,
    catalog: Catalog,
    settings: WorkerSettings,
    cases: Sequence[Case],
    reranker: Reranker | None,
) -> Gains:
    relevant = [case.relevant for case in cases]
    return gains(
        per_request(ours, relevant),
        encoder,
        catalog,
        settings,
        [case.request for case in cases],
        lambda pipeline, requests: per_request(list(rankings(pipeline, requests)), relevant),
        reranker,
    )


def _as_json(
    scores: Scores, model: str, catalog: Catalog, requests: int, seconds: float
) -> dict[str, Any]:
    return {
        "model": model,
        "catalog_version": catalog.version,
        "items": len(catalog),
        "requests": requests,
        "seconds": round(seconds, 3),
        "scores": {
            system: {name: asdict(estimate) for name, estimate in row.items()}
            for system, row in scores.items()
        },
    }


def _print(scores: Scores, model: str, catalog: Catalog, requests: int, seconds: float) -> None:
    console = Console()
    table = Table(title=f"{requests} requests, {len(catalog)} items, {model}")
    table.add_column("measure")
    for system in scores:
        table.add_column(system, justify="right")
    for name in next(iter(scores.values())):
        cells = [f"{row[name].mean:.3f} ± {row[name].stderr:.3f}" for row in scores.values()]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"reclane answered in {seconds:.1f} s, {requests / seconds:.0f} requests/s")


def _print_gains(gained: Gains) -> None:
    if not gained:
        return
    table = Table(title="what each part gains (95 % interval)")
    table.add_column("part")
    for name in SHOWN:
        table.add_column(name, justify="right")
    for part, of in gained.items():
        cells = [f"{of[n].mean:+.3f} ({of[n].low:+.3f} to {of[n].high:+.3f})" for n in SHOWN]
        table.add_row(part, *cells)
    Console().print(table)
