"""`reclane demo`: a queue, a worker, real weights and a catalog, all on this machine."""

import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.table import Table

from reclane import Client, Recommendation
from reclane.embedded import EmbeddedServer
from reclane_worker import demo as show
from reclane_worker.batching import Limits
from reclane_worker.bench.measures import median_ratio, offline_s, quantiles
from reclane_worker.building import build_catalog
from reclane_worker.encoder import Encoder, load_encoder
from reclane_worker.local import WorkerProcess
from reclane_worker.pipeline import batch_limits
from reclane_worker.reading import BadRow, Columns, read_items
from reclane_worker.settings import WorkerSettings

ROUNDS = 3
WAIT_S = 120.0


@click.command()
@click.option("--serve", is_flag=True, help="Keep everything running until Ctrl-C.")
@click.option("--requests", default=2_000, show_default=True, help="Size of the burst.")
@click.option("--model", default=show.MODEL, show_default=True, help="Model id or folder.")
def demo(serve: bool, requests: int, model: str) -> None:
    """See it work: queue, worker, model and catalog on this machine, then a burst of requests."""
    console = Console()
    # So that everything is stopped; a shell's background jobs start with SIGINT ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = WorkerSettings.from_environment(model=model)
    with TemporaryDirectory(prefix="reclane-demo-") as name, EmbeddedServer() as server:
        folder = Path(name)
        encoder = load_encoder(settings)
        limits = batch_limits(encoder, settings)
        items = read_items(show.ITEMS, Columns(), _refuse)
        manifest = build_catalog(items, folder / "demo", encoder, fields=show.FIELDS)
        console.print(f"catalog: {manifest.items} items, version {manifest.version}")
        console.print(f"queue:   Valkey on {server.url}")
        environment = {"RECLANE_MODEL": model, "RECLANE_CATALOG": f"demo={folder / 'demo'}"}
        with WorkerProcess(server.url, environment, folder / "worker.log") as worker:
            console.print(
                f"worker:  Celery process {worker.pid}, {encoder.name} on {encoder.device}\n"
            )
            with Client(server.url) as client:
                for query in show.SHOWCASE:
                    _print_answer(console, query, client.recommend(query, k=3, timeout=WAIT_S))
                if requests:
                    _print_burst(console, client, encoder, limits, show.burst(requests))
            if serve:
                _serve(console, server.url, environment)
            console.print(f"worker left with exit code {worker.stop()}; everything is stopped")


def _refuse(row: BadRow) -> None:
    raise AssertionError(f"the catalog that ships has a bad row: {row}")


def _print_answer(console: Console, query: str, answer: Recommendation) -> None:
    table = Table(title=query, title_justify="left", title_style="bold", expand=False)
    for heading in ("#", "title", "id", "score"):
        table.add_column(heading, justify="right" if heading in "#score" else "left")
    for item in answer.items:
        table.add_row(str(item.rank), item.title, item.id, f"{item.score:.3f}")
    console.print(table)
    timing = answer.timing_ms
    console.print(
        f"  queued {timing.queued:.1f} ms, tokenise {timing.tokenise:.1f}, model "
        f"{timing.model:.1f}, rank {timing.rank:.1f}; "
        f"encoder trust {answer.intent.encoder_trust:.2f}\n"
    )


def _print_burst(
    console: Console, client: Client, encoder: Encoder, limits: Limits, texts: Sequence[str]
) -> None:
    """Alternate the queue and the bare encoder on the same texts, and compare."""
    console.print(f"a burst of {len(texts)} requests through the queue, {ROUNDS} rounds")
    alone_ms = [_once_ms(client, text) for text in texts[:30]]
    queue_s, alone_s = [], []
    answers: list[Recommendation] = []
    latencies_ms: list[float] = []
    for _ in range(ROUNDS):
        seconds, answers, latencies_ms = _through_queue(client, texts)
        queue_s.append(seconds)
        alone_s.append(offline_s(encoder, limits, texts))
    rows = {
        "throughput": f"{len(texts) / statistics.median(queue_s):,.0f} requests/s",
        "same encoder offline": f"{len(texts) / statistics.median(alone_s):,.0f} texts/s",
        "ratio to offline": f"{median_ratio(alone_s, queue_s):.2f}",
        "batch size": _batch_sizes(answers),
        "padding": f"{_padding_share(answers):.1%} of tokens",
        "latency in the burst": quantiles(latencies_ms),
        "latency one at a time": quantiles(alone_ms),
    }
    table = Table(show_header=False)
    for label, value in rows.items():
        table.add_row(label, value)
    console.print(table)


def _once_ms(client: Client, text: str) -> float:
    started = time.perf_counter()
    client.recommend(text, timeout=WAIT_S)
    return (time.perf_counter() - started) * 1e3


def _through_queue(
    client: Client, texts: Sequence[str]
) -> tuple[float, list[Recommendation], list[float]]:
    started = time.perf_counter()
    handles = client.submit_many(texts)
    answers, latencies_ms = [], []
    for handle in client.as_completed(handles, timeout=WAIT_S):
        latencies_ms.append((time.perf_counter() - started) * 1e3)
        answers.append(handle.result(0))
    return time.perf_counter() - started, answers, latencies_ms


def _batch_sizes(answers: Sequence[Recommendation]) -> str:
    """Requests weighted: how large was the batch that a request ran in."""
    sizes = sorted(answer.batch.size for answer in answers)
    return f"median {sizes[len(sizes) // 2]}, largest {sizes[-1]}"


def _padding_share(answers: Sequence[Recommendation]) -> float:
    """Each answer names its whole batch, so weigh it by 1 / size."""
    real = sum(answer.batch.tokens / answer.batch.size for answer in answers)
    padded = sum(answer.batch.padded / answer.batch.size for answer in answers)
    return 1 - real / padded


def _serve(console: Console, url: str, environment: dict[str, str]) -> None:
    console.print("serving until Ctrl-C; in another terminal:")
    console.print(f"  export RECLANE_REDIS_URL={url}", soft_wrap=True)
    code = "from reclane import Client; print(Client().recommend('running shoes', k=3).items)"
    console.print(f'  python -c "{code}"', soft_wrap=True, markup=False)
    console.print("another worker:", "reclane worker", "with", soft_wrap=True)
    for name, value in environment.items():
        console.print(f"  export {name}={value}", soft_wrap=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print()
