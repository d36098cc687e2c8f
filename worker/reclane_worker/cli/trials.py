"""What `reclane eval --interactions` does and prints: histories against likes held out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from reclane_worker.catalog import Catalog
from reclane_worker.cli.bad_rows import BadRows
from reclane_worker.encoder import Encoder
from reclane_worker.metrics import Estimate, estimate, gain
from reclane_worker.settings import WorkerSettings
from reclane_worker.taste import trial
from reclane_worker.taste.interactions import InteractionColumns, read_interactions
from reclane_worker.taste.signals import SIGNALS

SHOWN: Final = ("R@10", "NDCG@10")


def evaluate_histories(
    catalog: Catalog,
    encoder: Encoder,
    settings: WorkerSettings,
    path: Path,
    named: InteractionColumns,
    limit: int | None,
    as_json: bool,
) -> None:
    """Measure on both splits and print."""
    interactions = read_interactions(path, named, catalog.ids, BadRows(skip=False))
    trials = [
        trial.run(split, interactions, catalog, encoder, settings, limit)
        for split in trial.splits(interactions)
    ]
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in trials]))
    else:
        for one in trials:
            _print(one)


def _scores(one: trial.Trial) -> dict[str, dict[str, Estimate]]:
    return {
        system: {name: estimate(values[name]) for name in SHOWN}
        for system, values in one.values.items()
    }


def _as_json(one: trial.Trial) -> dict[str, Any]:
    joined = one.values[trial.JOINED]
    return {
        "split": one.split,
        "users": one.users,
        "weights": dict(zip(SIGNALS, one.weights, strict=True)),
        "scores": {
            system: {name: asdict(value) for name, value in row.items()}
            for system, row in _scores(one).items()
        },
        "gains": {
            system: {name: asdict(gain(joined[name], values[name])) for name in SHOWN}
            for system, values in one.values.items()
            if system != trial.JOINED
        },
    }


def _print(one: trial.Trial) -> None:
    console = Console()
    table = Table(title=f"{one.split}: {one.users} users")
    table.add_column("system")
    for name in SHOWN:
        table.add_column(name, justify="right")
        table.add_column("reclane has more (95 % interval)", justify="right")
    for system, row in _scores(one).items():
        cells = []
        for name in SHOWN:
            more = gain(one.values[trial.JOINED][name], one.values[system][name])
            interval = f"{more.mean:+.3f} ({more.low:+.3f} to {more.high:+.3f})"
            cells += [f"{row[name].mean:.3f} ± {row[name].stderr:.3f}"]
            cells += ["" if system == trial.JOINED else interval]
        table.add_row(system, *cells)
    console.print(table)
    weights = zip(SIGNALS, one.weights, strict=True)
    console.print("weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in weights))
