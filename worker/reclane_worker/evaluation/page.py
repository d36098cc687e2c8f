"""An evaluation as one HTML page, for people: it holds the texts of requests, and no scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jinja2

from reclane_worker.evaluation.comparing import Comparison, aligned
from reclane_worker.evaluation.measuring import BM25, OURS, POPULARITY, SHOWN, Measured
from reclane_worker.evaluation.saved import SavedRun
from reclane_worker.evaluation.worst import DECIDES, Case, fallen, worst
from reclane_worker.metrics import Estimate, Gain, estimate, gain

WORST: Final = 20  # requests of each catalog
SYSTEMS: Final = (POPULARITY, BM25, OURS)
_TEMPLATE: Final = "page.html.jinja"


@dataclass(frozen=True, slots=True)
class Section:
    """A catalog of the page: each measure's estimate by system and gain over BM25, and cases."""

    measured: Measured
    scores: dict[str, dict[str, Estimate]]
    gains: dict[str, Gain]
    parts: Mapping[str, Mapping[str, Gain]]
    worst: list[Case]
    fallen: list[Case]


def page(
    measured: Sequence[Measured],
    run: SavedRun,
    parts: Mapping[str, Mapping[str, Mapping[str, Gain]]],
    before: SavedRun | None,
    compared: Comparison | None,
) -> str:
    """The whole page. `parts` is what each part of the pipeline gains, by catalog, if it was asked.

    Everything is escaped: texts are other people's.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        run=run,
        sections=[_section(one, run, parts.get(one.name, {}), before) for one in measured],
        before=before,
        compared=compared,
        systems=SYSTEMS,
        ours=OURS,
        shown=SHOWN,
        decides=DECIDES,
    )


def _section(
    one: Measured,
    run: SavedRun,
    parts: Mapping[str, Mapping[str, Gain]],
    before: SavedRun | None,
) -> Section:
    earlier = None
    if before is not None and one.name in before.catalogs:
        earlier = aligned(run.catalogs[one.name], before.catalogs[one.name], DECIDES)
    names = list(one.values[OURS])
    return Section(
        one,
        {name: {s: estimate(one.values[s][name]) for s in SYSTEMS} for name in names},
        {name: gain(one.values[OURS][name], one.values[BM25][name]) for name in names},
        parts,
        worst(one, WORST, earlier),
        [] if earlier is None else fallen(one, WORST, earlier),
    )
