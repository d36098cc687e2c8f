"""`make million`: a bulk run of a million rows on the stand-in model, and what Redis holds.

Some minutes. The bound does not grow with the rows: that is what this shows.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import redis
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bulk import RUN, begin, look, spec
from reclane import names
from reclane.embedded import EmbeddedServer
from reclane_worker.bench.sides import rss_mb
from reclane_worker.bulk.work import IN_FLIGHT
from reclane_worker.local import WorkerProcess
from support import KEYS, build_hash_catalog

ROWS = 1_000_000
LIMIT_S = 1_800.0
LOOK_EVERY_S = 0.2
GROUP = 50_000


def write_rows(path: Path, rows: int) -> None:
    schema = pa.schema([("user_id", pa.string()), ("query", pa.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, GROUP):
            numbers = range(first, min(first + GROUP, rows))
            columns = [[f"user-{n}" for n in numbers], [f"film number {n}" for n in numbers]]
            writer.write_table(pa.table(columns, schema=schema))


def held(raw: "redis.Redis") -> tuple[int, int, float]:
    """Chunks of the run that are not written, messages that wait, MB that Redis uses."""
    info: Any = raw.info("memory")
    chunks: Any = raw.hlen(KEYS.bulk_chunks(RUN))
    waiting: Any = raw.llen(KEYS.list(names.BULK_QUEUE))
    return chunks, waiting, info["used_memory"] / 1e6


def watched(raw: "redis.Redis", pid: int) -> Iterator[tuple[int, int, float, float]]:
    """What is held, and the worker's resident MB, until the run is over."""
    give_up = time.monotonic() + LIMIT_S
    while not look(raw).over:
        yield *held(raw), rss_mb(pid)
        if time.monotonic() > give_up:
            raise SystemExit("the run does not get done")
        time.sleep(LOOK_EVERY_S)


def main(rows: int) -> None:
    with TemporaryDirectory(prefix="reclane-million-") as name, EmbeddedServer() as server:
        folder = Path(name)
        build_hash_catalog(folder / "demo")
        write_rows(folder / "users.parquet", rows)
        settings = {"RECLANE_MODEL": "hash:384", "RECLANE_CATALOG": f"demo={folder / 'demo'}"}
        with (
            WorkerProcess(server.url, settings, folder / "worker.log") as worker,
            redis.Redis.from_url(server.url) as raw,
        ):
            before_mb = held(raw)[2]
            begin(raw, spec(folder / "users.parquet", folder / "recs"))
            seen = list(watched(raw, worker.pid))
            run = look(raw)
            after_mb = held(raw)[2]
        shown = parquet.ParquetDataset(folder / "recs").read(columns=["key"]).num_rows
    assert run.state == "done", run.trouble
    assert run.counts["answered"] == shown == rows
    assert max(chunks for chunks, *_ in seen) <= IN_FLIGHT
    assert run.ended is not None
    seconds = run.ended - run.started
    first, last = seen[len(seen) // 10 :][0][3], seen[-1][3]
    table = Table("", "measured", title=f"{rows:,} rows", title_justify="left", show_header=False)
    table.add_row("rows/s", f"{rows / seconds:,.0f} ({seconds:.0f} s)")
    table.add_row("most chunks sent and not written", str(max(chunks for chunks, *_ in seen)))
    table.add_row("most messages that wait", str(max(waiting for _, waiting, *_ in seen)))
    most_mb = max(mb for _, _, mb, _ in seen)
    table.add_row(
        "Redis", f"{before_mb:.1f} MB before, {most_mb:.1f} at most, {after_mb:.1f} after"
    )
    table.add_row("worker's RSS", f"{first:.0f} MB at a tenth of the way, {last:.0f} at the end")
    Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
