"""Bulk runs: against the bare encoder, beside live traffic, and with nothing to encode."""

import cProfile
import pstats
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet

from reclane import Client, RecommendRequest
from reclane.bulk import runs
from reclane.bulk.spec import parse_run
from reclane.contract import parse_request
from reclane.errors import ReclaneError
from reclane_worker import demo
from reclane_worker.bench.measures import Library, around, offline_s, quantile, quantiles, rounds
from reclane_worker.bench.sides import BESIDE_MS, KEYS, LIMIT_S, Side, Sides
from reclane_worker.encoder import load_encoder
from reclane_worker.loading import load_pipeline
from reclane_worker.pipeline import Pipeline, batch_limits
from reclane_worker.settings import WorkerSettings

WINDOW_S: Final = 8.0
PAUSE_S: Final = 0.1
LOOK_EVERY_S: Final = 0.25  # looking costs time that the run needs; Redis says when it ended
HISTORY: Final = 20  # items of a user
PROFILED: Final = 256
STAGES: Final = {  # what takes the time -> the functions that do it
    "validating, preparing": {"prepare"},
    "vectors of the histories": {"intent_vectors"},
    "scores of every item: dense": {"_dense"},
    "scores of every item: lexical": {"scores"},
    "items that each may get": {"_eligible"},
    "fusing": {"fuse"},
    "top-k": {"top"},
    "making answers": {"build_answer"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    what: str
    measured: str
    goal: str = ""


class Bench:
    """Runs over rows of files in `folder`, on `side`."""

    def __init__(self, sides: Sides, folder: Path, rows: int, repeats: int) -> None:
        self._sides = sides
        self._folder = folder
        self._rows = rows
        self._repeats = repeats
        self._numbers = count()

    def speed(self, texts: Sequence[str] | None = None) -> Iterator[Row]:
        """A run, and the encoder called offline on the same texts, sorted by length: by
        sentence-transformers, and in a worker's batches as a worker runs it; before each run and
        after it. Of `texts` the first rows; short ones where none are given."""
        settings = WorkerSettings.load(model=demo.MODEL)
        encoder = load_encoder(settings)
        library = Library(demo.MODEL, encoder.device)
        texts = demo.burst(self._rows) if texts is None else texts[: self._rows]
        rows, limits = len(texts), batch_limits(encoder, settings)
        tokens = statistics.fmean(map(len, encoder.tokenise(texts, "query")))
        users = self._write("texts", [{"query": text} for text in texts])
        side = self._sides.make()
        self._run(side, users)  # teaches the worker what batches cost
        run_s, alone_s, library_s, cpu_s, alone_cpu_s = [], [], [], [], []
        for turn in range(1 + self._repeats):
            if turn:
                before = side.cpu_s()
                run_s.append(self._run(side, users))
                cpu_s.append(side.cpu_s() - before)
            started = time.process_time()
            alone_s.append(offline_s(encoder, limits, texts))
            alone_cpu_s.append(time.process_time() - started)
            library_s.append(library.offline_s(texts))
        alone_s, alone_cpu_s, library_s = map(around, (alone_s, alone_cpu_s, library_s))
        side.worker.stop()
        rate = f"{rows / statistics.median(run_s):,.0f} rows/s"
        alone = f"{rows / statistics.median(alone_s):,.0f} texts/s"
        theirs = f"{rows / statistics.median(library_s):,.0f} texts/s"
        yield Row(f"a run of {rows:,} rows of {tokens:,.0f} tokens", rate)
        yield Row("sentence-transformers offline, sorted by length", theirs)
        yield Row("  run / sentence-transformers", rounds(library_s, run_s), ">= 0.97")
        yield Row("a worker's encoder and batches offline, sorted by length", alone)
        yield Row("  run / a worker's encoder", rounds(alone_s, run_s), ">= 0.97")
        yield Row("  the same by CPU of worker and Redis", rounds(alone_cpu_s, cpu_s), ">= 0.97")

    def live(self) -> Iterator[Row]:
        """One interactive request at a time: alone, and beside a run; and what the run loses."""
        side, whole = self._sides.make(), self._sides.make(RECLANE_BULK_SLICE_MS="10000")
        users = self._write("many", [{"query": text} for text in demo.burst(100 * self._rows)])
        few = self._write("few", [{"query": text} for text in demo.burst(self._rows)])
        for one in (side, whole):
            self._run(one, few)
        sliced_s, whole_s = [], []
        for _ in range(self._repeats):
            sliced_s.append(self._run(side, few))
            whole_s.append(self._run(whole, few))
        whole.worker.stop()
        yield Row("run in slices / without slices", rounds(whole_s, sliced_s), ">= 0.90")
        with Client(side.server.url) as client:
            ask = partial(side.latencies_ms, client, PAUSE_S, window_s=WINDOW_S)
            alone = ask()
            run_id = self._begin(side, users)
            quiet, beside_rates = [], []
            beside: list[float] = []
            for _ in range(self._repeats):
                quiet.append(_rate(side, run_id, lambda: time.sleep(WINDOW_S)))
                busy = _rate(side, run_id, lambda: beside.extend(ask()))
                beside_rates.append(busy)
        runs.cancel(side.raw, KEYS, run_id)
        side.worker.stop()
        bound = quantile(alone, 0.99) + BESIDE_MS
        yield Row(f"interactive alone ({len(alone)} requests)", quantiles(alone))
        yield Row(
            f"beside a run of {100 * self._rows:,} rows ({len(beside)} requests)",
            quantiles(beside),
            f"p99 <= {bound:.0f} ms",
        )
        yield Row("the run beside interactive / alone", rounds(beside_rates, quiet), ">= 0.90")

    def histories(self, model: str, catalog: Path) -> Iterator[Row]:
        """Users with a history and no text: nothing to encode; where the time goes instead."""
        pipeline = load_pipeline(WorkerSettings.load(model=model, catalog=f"bench={catalog}"))
        ids = pipeline.catalogs["bench"].ids
        many = 4 * self._rows
        users = [
            {"history": [ids[(7 * n + 13 * m * m) % len(ids)] for m in range(HISTORY)]}
            for n in range(many)
        ]
        path = self._write("histories", users)
        side = self._sides.make(model, RECLANE_CATALOG=f"bench={catalog}")
        self._run(side, path)
        seconds, cpu_s = [], []
        for _ in range(self._repeats):
            before = side.cpu_s()
            seconds.append(self._run(side, path))
            cpu_s.append(side.cpu_s() - before)
        side.worker.stop()
        rate = f"{many / statistics.median(seconds):,.0f} rows/s"
        each = f"{statistics.median(cpu_s) / many * 1e6:,.0f} us of CPU each"
        yield Row(f"{many:,} histories of {HISTORY}, {len(ids):,} items", f"{rate}, {each}")
        yield from _profile(pipeline, [parse_request(one) for one in users[:PROFILED]])

    def _write(self, name: str, rows: Sequence[dict[str, Any]]) -> Path:
        path = self._folder / f"{name}.parquet"
        keyed = [{"user_id": f"u{number}", **row} for number, row in enumerate(rows)]
        parquet.write_table(pa.Table.from_pylist(keyed), path, row_group_size=10_000)
        return path

    def _begin(self, side: Side, users: Path) -> str:
        run_id = f"bench-{next(self._numbers)}"
        wanted = {
            "source": {"kind": "files", "paths": [str(users)]},
            "sink": {"kind": "parquet", "path": str(self._folder / f"{run_id}-recs")},
        }
        runs.start(side.raw, KEYS, run_id, parse_run(wanted))
        return run_id

    def _run(self, side: Side, users: Path) -> float:
        """Seconds of a whole run."""
        run_id = self._begin(side, users)
        give_up = time.monotonic() + LIMIT_S
        while not (run := runs.read(side.raw, KEYS, run_id)).over:
            if time.monotonic() > give_up:
                raise ReclaneError("the run does not get done")
            time.sleep(LOOK_EVERY_S)
        if run.state != "done" or run.counts["failed"]:
            raise ReclaneError(f"the run ended badly: {run.trouble}, {run.counts}")
        assert run.ended is not None
        return run.ended - run.started


def _rate(side: Side, run_id: str, meanwhile: Callable[[], None]) -> float:
    """Rows per second that a run gets done beside something; by what the worker has computed."""
    before, started = side.told("requests"), time.perf_counter()
    meanwhile()
    return (side.told("requests") - before) / (time.perf_counter() - started)


def _profile(pipeline: Pipeline, requests: Sequence[RecommendRequest]) -> Iterator[Row]:
    """Shares of the time that the pipeline takes for these, in this process."""
    pipeline.recommend(requests)
    profile = cProfile.Profile()
    profile.enable()
    pipeline.recommend(requests)
    profile.disable()
    stats = pstats.Stats(profile).get_stats_profile()
    for what, functions in STAGES.items():
        spent = sum(one.cumtime for name, one in stats.func_profiles.items() if name in functions)
        yield Row(f"  {what}", f"{spent / stats.total_tt:.0%}")
