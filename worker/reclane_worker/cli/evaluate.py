"""`reclane eval`: how good recommendations are, on requests with known answers."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from reclane_worker.cli import figures
from reclane_worker.cli.bad_rows import BadRows
from reclane_worker.cli.interactions import interaction_options
from reclane_worker.cli.items import fields_option
from reclane_worker.cli.trials import evaluate_histories
from reclane_worker.encoder import load_encoder
from reclane_worker.evaluation.comparing import check_quality, compare
from reclane_worker.evaluation.page import page
from reclane_worker.evaluation.plan import Plan, Source, read_plan
from reclane_worker.evaluation.run import Wanted, measure_plan, open_catalog
from reclane_worker.evaluation.saved import read_run, saved_run, write_run
from reclane_worker.rerank.loading import load_reranker
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste.interactions import InteractionColumns

ALONE: Final = "eval"  # what a catalog is called that no plan names
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What comes of a run beside the figures, and the earlier run it is compared with."""

    save: Path | None
    against: Path | None
    tolerance: float | None
    html: Path | None
    as_json: bool

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.save, self.against, self.tolerance, self.html))


@click.command("eval")
@click.argument("items", required=False, type=click.Path(exists=True, path_type=Path))
@click.argument("requests", required=False, type=_FILE)
@click.option("--plan", type=_FILE, help="TOML that names several catalogs and their requests.")
@click.option("--model", help="Model id or folder; default RECLANE_MODEL.")
@fields_option
@click.option("--limit", type=click.IntRange(min=1), help="Only so many requests, at random.")
@click.option("--ablate", is_flag=True, help="Also tell what each part of the pipeline gains.")
@interaction_options
@click.option("--save", type=_NEW_FILE, help="Keep this run, to compare later ones with it.")
@click.option("--against", type=_FILE, help="Compare with a run that was saved.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Exit with 1 where the mean of a measure fell by more since that run.",
)
@click.option("--html", type=_NEW_FILE, help="Write a page; it holds requests word for word.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def evaluate(
    items: Path | None,
    requests: Path | None,
    plan: Path | None,
    model: str | None,
    fields: tuple[str, ...],
    limit: int | None,
    ablate: bool,
    interactions: Path | None,
    named: InteractionColumns,
    save: Path | None,
    against: Path | None,
    tolerance: float | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Measure recommendation quality: ITEMS (a file, or a built catalog) against REQUESTS.

    A request line is JSON with `query` and `relevant` (item ids), and an `id` if there is one.
    Figures are means over the requests with standard errors; gains have 95 % paired bootstrap
    intervals. Ties rank by catalog order. Popularity is likes in --interactions, or else how often
    an item answers the other requests.

    With --plan instead: several catalogs in one report. The file has a table [name] for each, with
    items, requests and, if need be, fields, aliases and interactions; paths are relative to it.

    With ITEMS and --interactions alone: how well histories foresee likes held out.
    """
    out = Outputs(save, against, tolerance, html, as_json)
    wanted = Wanted(limit, ablate, named, BadRows(skip=False))
    settings = WorkerSettings.from_environment(model=model)
    if plan is not None:
        if items or interactions:
            raise click.UsageError("--plan names items, requests and interactions; give it alone")
        _requests(read_plan(plan), settings, wanted, out)
    elif items is not None and requests is not None:
        source = Source(items=items, requests=requests, fields=fields, interactions=interactions)
        _requests({ALONE: source}, settings, wanted, out)
    elif items is not None and interactions is not None:
        if ablate or out:
            raise click.UsageError("with --interactions alone there is --limit and --json only")
        encoder = load_encoder(settings)
        catalog, _ = open_catalog(ALONE, items, fields, None, encoder, wanted.on_bad)
        evaluate_histories(catalog, encoder, settings, interactions, named, limit, as_json)
    else:
        raise click.UsageError("give ITEMS and REQUESTS, ITEMS and --interactions, or --plan")


def _requests(plan: Plan, settings: WorkerSettings, wanted: Wanted, out: Outputs) -> None:
    """Measure every catalog of the plan, and say what came of it."""
    if out.tolerance is not None and out.against is None:
        raise click.UsageError("--tolerance needs --against")
    for path in (out.save, out.html):
        if path is not None and not path.parent.is_dir():
            raise click.UsageError(f"{path}: there is no folder {path.parent}")
    before = None if out.against is None else read_run(out.against)
    # What a reranker gains when it has time: a batch of hundreds would leave it none.
    settings = settings.model_copy(update={"rerank_ms": math.inf})
    encoder = load_encoder(settings)
    found = list(measure_plan(plan, encoder, settings, wanted, load_reranker(settings)))
    measured = [one for one, _ in found]
    parts = {one.name: gained for one, gained in found if gained}
    run = saved_run(measured, encoder, settings)
    compared = None if before is None else compare(run, before)
    if out.save is not None:
        write_run(out.save, run)
    if out.html is not None:
        out.html.write_text(page(measured, run, parts, before, compared), "utf-8")
    if out.as_json:
        alone = plan.keys() == {ALONE}
        click.echo(json.dumps(figures.as_json(measured, encoder, parts, compared, alone)))
    else:
        figures.show(measured, encoder, parts)
        if before is not None and compared is not None:
            figures.show_comparison(compared, before)
    if compared is not None and out.tolerance is not None:
        check_quality(compared, out.tolerance)
