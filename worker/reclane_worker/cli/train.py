"""`reclane train`: fine-tunes the encoder on requests with known answers."""

from pathlib import Path

import accelerate  # noqa: F401  where it is missing, `load_command` says how to add it
import click
import datasets  # noqa: F401  likewise
from rich.console import Console
from rich.table import Table

from reclane_worker.cli.bad_rows import BadRows
from reclane_worker.cli.items import fields_option
from reclane_worker.reading import Columns, read_items
from reclane_worker.settings import WorkerSettings
from reclane_worker.training.judging import Verdict, told
from reclane_worker.training.order import Choices, Order
from reclane_worker.training.run import train as train_model

_USUAL = Choices()


@click.command()
@click.argument("items", type=click.Path(exists=True, path_type=Path))
@click.argument("requests", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--model", help="Model id or folder; default RECLANE_MODEL.")
@click.option(
    "--validation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Requests to measure by, before and after; a held-out part of REQUESTS unless told.",
)
@fields_option
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Of training, at most.",
)
@click.option("--epochs", type=click.IntRange(1, 100), default=_USUAL.epochs, show_default=True)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=_USUAL.learning_rate,
    show_default=True,
)
@click.option(
    "--max-tokens",
    type=click.IntRange(8, 8_192),
    default=_USUAL.max_tokens,
    show_default=True,
    help="Of a text, in training alone.",
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(64),
    default=_USUAL.batch_tokens,
    show_default=True,
    help="Of a batch, padding included; bounds memory, some 200 KB a token for a small model.",
)
@click.option("--seed", default=_USUAL.seed, show_default=True)
@click.option("--resume", is_flag=True, help="Go on with a training that was cut short.")
def train(
    items: Path,
    requests: Path,
    out: Path,
    model: str | None,
    validation: Path | None,
    fields: tuple[str, ...],
    minutes: float,
    epochs: int,
    learning_rate: float,
    max_tokens: int,
    batch_tokens: int,
    seed: int,
    resume: bool,
) -> None:
    """Fine-tune the encoder on REQUESTS that ITEMS (a file, or a built catalog) answer.

    A request line is JSON with `query` and `relevant` (item ids). The model is published as the
    folder --out only if the pipeline answers no worse with it than before.
    """
    choices = Choices(
        fields=fields,
        epochs=epochs,
        learning_rate=learning_rate,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        seed=seed,
    )
    console = Console(stderr=True, log_path=False)
    order = Order(items, requests, out.resolve(), validation, choices, minutes, resume)
    verdict = train_model(
        order,
        WorkerSettings.from_environment(model=model),
        lambda: read_items(items, Columns(), BadRows(skip=False)),
        lambda said: console.log(said, markup=False, highlight=False),
    )
    _print(verdict)
    click.echo(f"{out}: serve it with RECLANE_MODEL={out}, after catalog build --model {out}")


def _print(verdict: Verdict) -> None:
    table = Table("measure", "before", "after", "gain (95 % interval)")
    for name, one in verdict.items():
        table.add_row(name, f"{one.before:.3f}", f"{one.after:.3f}", told(one.gain))
    Console().print(table)
