"""Bulk runs for tests: rows in a file, a run over them, what came of it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis
from pyarrow import parquet

from reclane.bulk import runs
from reclane.bulk.runs import Run
from reclane.bulk.spec import parse_run
from support import DEADLINE_S, KEYS, StartWorker, eventually

RUN = "nightly-1"


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A Parquet file of requests, small row groups."""
    parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=500)
    return path


def users(count: int, query: str = "film number {}") -> list[dict[str, Any]]:
    return [{"user_id": f"u{n}", "query": query.format(n), "k": 3} for n in range(count)]


def spec(source: Path, out: Path, **more: Any) -> dict[str, Any]:
    return {
        "source": {"kind": "files", "paths": [str(source)]},
        "sink": {"kind": "parquet", "path": str(out)},
        **more,
    }


def begin(raw: "redis.Redis", wanted: dict[str, Any], run_id: str = RUN) -> bool:
    return runs.start(raw, KEYS, run_id, parse_run(wanted))


def look(raw: "redis.Redis", run_id: str = RUN) -> Run:
    return runs.read(raw, KEYS, run_id)


def finish(raw: "redis.Redis", run_id: str = RUN, state: str = "done") -> Run:
    """Wait until the run is over, and well."""
    eventually(lambda: look(raw, run_id).over, "the run is over")
    run = look(raw, run_id)
    assert run.state == state, run.trouble
    return run


def answered(raw: "redis.Redis", rows: int, run_id: str = RUN) -> None:
    """Wait until so many rows are written."""
    eventually(lambda: look(raw, run_id).counts["answered"] >= rows, f"{rows} rows are written")


def written(out: Path) -> dict[str, dict[str, Any]]:
    """Key -> record of what readers see; a key twice is an error."""
    records = parquet.read_table(out).to_pylist()
    found = {record["key"]: record for record in records}
    assert len(found) == len(records)
    return found


def ids(record: dict[str, Any]) -> list[str]:
    return [item["id"] for item in record["items"]]


@contextmanager
def without_lane(start_worker: StartWorker, *queues: str) -> Iterator[None]:
    """A worker that takes runs on and, as a stock worker, tasks of these queues. It holds no
    lease to wait for."""
    worker = start_worker.prepare({"RECLANE_LANE": "false"})
    command = [*worker.command, *(["-Q", ",".join(queues)] if queues else [])]
    devnull = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=worker.environment, stdout=devnull, stderr=devnull
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(DEADLINE_S) == 0
