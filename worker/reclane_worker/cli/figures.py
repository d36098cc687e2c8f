"""What `reclane eval` prints: a table for each catalog, a summary, and what changed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reclane_worker.ablation import SHOWN
from reclane_worker.encoder import Encoder
from reclane_worker.evaluation.comparing import Comparison
from reclane_worker.evaluation.measuring import BM25, OURS, Measured
from reclane_worker.evaluation.page import SYSTEMS
from reclane_worker.evaluation.run import Gains
from reclane_worker.evaluation.saved import SavedRun
from reclane_worker.evaluation.worst import DECIDES
from reclane_worker.metrics import Estimate, Gain, estimate, gain

_MORE = "more than BM25 (95 %)"


def as_json(
    measured: Sequence[Measured],
    encoder: Encoder,
    parts: Mapping[str, Gains],
    compared: Comparison | None,
    alone: bool,
) -> dict[str, Any]:
    """All figures; of one catalog that no plan names without its name."""
    catalogs = {one.name: _figures(one, encoder, parts.get(one.name, {})) for one in measured}
    (figures,) = catalogs.values() if alone else ({"catalogs": catalogs},)
    return figures | ({} if compared is None else {"against": asdict(compared)})


def _figures(one: Measured, encoder: Encoder, gained: Gains) -> dict[str, Any]:
    return {
        "model": encoder.name,
        "catalog_version": one.catalog.version,
        "items": len(one.catalog),
        "requests": len(one.cases),
        "popularity": one.popular,
        "seconds": round(_seconds(one), 3),
        "stages_ms": {stage: round(ms, 4) for stage, ms in one.stages.items()},
        "scores": {
            system: {name: asdict(estimate(row)) for name, row in values.items()}
            for system, values in one.values.items()
        },
        "more_than_bm25": {name: asdict(_more(one, name)) for name in one.values[OURS]},
        "gains": {part: {name: asdict(g) for name, g in of.items()} for part, of in gained.items()},
    }


def show(measured: Sequence[Measured], encoder: Encoder, parts: Mapping[str, Gains]) -> None:
    console = Console()
    for one in measured:
        console.print(_scores(one, encoder))
        console.print(_times(one), highlight=False, soft_wrap=True)
        if one.name in parts:
            console.print(_parts(parts[one.name]))
    if len(measured) > 1:
        console.print(_summary(measured))


def _scores(one: Measured, encoder: Encoder) -> Table:
    title = f"{len(one.cases)} requests, {len(one.catalog)} items, {encoder.name}"
    table = _table(f"{one.name}: {title}", "measure", *SYSTEMS, _MORE)
    table.caption = f"popularity: {one.popular}"
    if one.unknown:
        table.caption += f"; {one.unknown:,} requests name no item of this catalog"
    for name in one.values[OURS]:
        cells = [_told(estimate(one.values[system][name])) for system in SYSTEMS]
        table.add_row(name, *cells, _gain(_more(one, name)))
    return table


def _times(one: Measured) -> str:
    stages = ", ".join(f"{stage} {ms:.2f} ms" for stage, ms in one.stages.items())
    each, rate = sum(one.stages.values()), len(one.cases) / max(_seconds(one), 1e-9)
    return f"a request, in batches: {stages}; together {each:.2f} ms, {rate:,.0f} requests/s\n"


def _parts(gained: Gains) -> Table:
    table = _table("what each part gains (95 % interval)", "part", *SHOWN)
    for part, of in gained.items():
        table.add_row(part, *(_gain(of[name]) for name in SHOWN))
    return table


def _summary(measured: Sequence[Measured]) -> Table:
    table = _table(f"all catalogs, {DECIDES}", "catalog", "requests", *SYSTEMS, _MORE)
    for one in measured:
        cells = [_told(estimate(one.values[system][DECIDES])) for system in SYSTEMS]
        table.add_row(escape(one.name), str(len(one.cases)), *cells, _gain(_more(one, DECIDES)))
    return table


def show_comparison(compared: Comparison, before: SavedRun) -> None:
    console = Console()
    made = before.made.strftime("%Y-%m-%d %H:%M UTC")
    table = _table(f"since {made}", "catalog", "measure", "before", "now", "difference (95 %)")
    for catalog, changes in compared.changes.items():
        for measure, one in changes.items():
            cells = (f"{one.before:.3f}", f"{one.after:.3f}", _gain(one.gain))
            table.add_row(escape(catalog), measure, *cells)
    console.print(table)
    for told in compared.differs or ("the same model, settings and catalogs",):
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    for name in compared.new:
        console.print(f"{name} was not in that run", markup=False, highlight=False, soft_wrap=True)


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _seconds(one: Measured) -> float:
    return sum(one.stages.values()) * len(one.cases) / 1e3


def _more(one: Measured, name: str) -> Gain:
    return gain(one.values[OURS][name], one.values[BM25][name])


def _told(value: Estimate) -> str:
    return f"{value.mean:.3f} ±{value.stderr:.3f}"


def _gain(value: Gain) -> str:
    shown = (f"{one:+.3f}".replace("0.", ".", 1) for one in (value.mean, value.low, value.high))
    return "{} ({} to {})".format(*shown)
