"""Sinks of a bulk run: parts whole or absent, written twice as once; readers see whole results."""

import gzip
import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pytest

from reclane.bulk.spec import SINK_SPEC
from reclane_worker.bulk.errors import SinkFull, SinkUnusable, StoreUnavailable
from reclane_worker.bulk.sinks import Result, Sink, open_sink
from reclane_worker.bulk.sinks.durable import write_file
from results import digest, failed, manifest, result, see_unchanged


def sink(kind: str, run: str = "run-1", **spec: Any) -> Sink:
    return open_sink(SINK_SPEC.validate_python({"kind": kind, **spec}), run)


def run_to_end(out: Path, run: str, keys: list[str], kind: str = "parquet") -> None:
    """A run of two parts."""
    made = sink(kind, run, path=str(out))
    made.check()
    half = len(keys) // 2
    parts = [
        made.write(number, [result(key) for key in some])
        for number, some in enumerate((keys[:half], keys[half:]))
    ]
    made.complete(manifest(run, parts))


def seen_by_duckdb(out: Path) -> list[str]:
    rows = duckdb.sql(f"SELECT key FROM read_parquet('{out}/*.parquet') ORDER BY key").fetchall()
    return [key for (key,) in rows]


def seen_by_pyarrow(out: Path) -> list[str]:
    return sorted(ds.dataset(str(out), format="parquet").to_table(["key"])["key"].to_pylist())


def test_parquet_holds_answers_and_failures(tmp_path: Path) -> None:
    made = sink("parquet", path=f"{tmp_path}/recs", fields=True)
    part = made.write(0, [result("a"), failed("b")])
    made.complete(manifest("run-1", [part]))
    columns = "key, items, flags, versions, failure, epoch(made_at), digest"
    rows = duckdb.sql(f"SELECT {columns} FROM '{tmp_path}/recs/*.parquet'")
    answered, failure = rows.fetchall()
    assert answered == (
        "a",
        [
            {"id": "i1", "rank": 1, "score": 0.5, "title": "T1", "fields": '{"year":1999}'},
            {"id": "i2", "rank": 2, "score": 0.25, "title": "T2", "fields": "{}"},
        ],
        [{"code": "needs_review", "reasons": ["short"]}],
        {"model": "hash:384", "catalog": "demo:1", "contract": 1},
        None,
        1_800_000_000.5,
        digest("a"),
    )
    said = {"code": "invalid_request", "message": "k: too large"}
    assert failure == ("b", None, [], None, said, 1_800_000_000.5, None)


def test_json_lines_hold_the_same_content(tmp_path: Path) -> None:
    made = sink("jsonl", path=f"{tmp_path}/recs", gzip=True, fields=True)
    made.complete(manifest("run-1", [made.write(0, [result("a"), failed("b")])]))
    (path,) = (tmp_path / "recs").glob("*.jsonl.gz")
    content = path.read_bytes()
    assert content[4:8] == bytes(4), "no time: the same records give the same bytes"
    answered, failure = map(json.loads, gzip.decompress(content).splitlines())
    assert answered["items"][0] == {
        "id": "i1",
        "rank": 1,
        "score": 0.5,
        "title": "T1",
        "fields": {"year": 1999},
    }
    assert answered.keys() == {"key", "items", "flags", "versions", "failure", "made_at", "digest"}
    assert failure["failure"] == {"code": "invalid_request", "message": "k: too large"}
    assert (answered["digest"], failure["digest"]) == (digest("a"), None)


@pytest.mark.parametrize("spec", [{"kind": "parquet"}, {"kind": "jsonl", "gzip": True}])
def test_a_part_written_again_replaces_the_first(tmp_path: Path, spec: dict[str, Any]) -> None:
    made = sink(path=f"{tmp_path}/recs", **spec)
    first = made.write(0, [result("a")])
    assert made.write(0, [result("a")]) == first
    other = made.write(0, [result("b"), result("c")])
    made.complete(manifest("run-1", [other]))
    (path,) = [path for path in (tmp_path / "recs").iterdir() if path.name != "_manifest.json"]
    assert (path.name, hashlib.sha256(path.read_bytes()).hexdigest()) == (other.name, other.sha256)
    assert (other.rows, other.bytes) == (2, path.stat().st_size)


def test_readers_see_old_whole_or_new_whole(tmp_path: Path) -> None:
    out = tmp_path / "recs"
    run_to_end(out, "run-1", ["a", "b", "c"])
    assert seen_by_duckdb(out) == seen_by_pyarrow(out) == ["a", "b", "c"]
    second = sink("parquet", "run-2", path=str(out))
    second.check()
    parts = [second.write(0, [result("x")]), second.write(1, [result("y")])]
    assert seen_by_duckdb(out) == seen_by_pyarrow(out) == ["a", "b", "c"]
    listed, resolved = list(out.glob("*.parquet")), out.resolve()
    for _ in range(2):  # repeated, nothing changes
        second.complete(manifest("run-2", parts))
        assert seen_by_duckdb(out) == seen_by_pyarrow(out) == ["x", "y"]
        # Who listed before cannot mix old and new; who resolved the link keeps the old.
        assert not any(path.exists() for path in listed)
        assert seen_by_duckdb(resolved) == ["a", "b", "c"]
    run_to_end(out, "run-3", ["z"])
    assert seen_by_duckdb(out) == ["z"]
    assert not resolved.exists()


def test_a_manifest_lists_the_parts(tmp_path: Path) -> None:
    run_to_end(tmp_path / "recs", "run-1", ["a", "b", "c"], "jsonl")
    stored = json.loads((tmp_path / "recs" / "_manifest.json").read_bytes())
    assert stored["run"] == "run-1"
    assert [part["rows"] for part in stored["parts"]] == [1, 2]
    for part in stored["parts"]:
        content = (tmp_path / "recs" / part["name"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )


def test_a_run_without_one_of_its_parts_is_not_shown(tmp_path: Path) -> None:
    out = tmp_path / "recs"
    run_to_end(out, "run-1", ["a"])
    second = sink("parquet", "run-2", path=str(out))
    part = second.write(0, [result("b")])
    with pytest.raises(SinkUnusable, match="part 1 is missing"):
        second.complete(
            manifest("run-2", [part, part.model_copy(update={"number": 1, "name": "no"})])
        )
    assert seen_by_duckdb(out) == ["a"]


def test_what_no_part_owns_is_not_shown(tmp_path: Path) -> None:
    made = sink("parquet", path=f"{tmp_path}/recs")
    part = made.write(0, [result("a")])
    made.write(1, [result("left of another plan")])
    (tmp_path / ".recs.run-run-1" / ".part-killed-in-mid-write").write_bytes(b"PAR1")
    made.complete(manifest("run-1", [part]))
    assert {path.name for path in (tmp_path / "recs").iterdir()} == {part.name, "_manifest.json"}


def test_a_run_that_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "recs"
    run_to_end(out, "run-1", ["a"])
    second = sink("parquet", "run-2", path=str(out))
    second.write(0, [result("b")])
    second.clear()
    sink("parquet", "run-1", path=str(out)).clear()  # shown to readers: stays
    assert {path.name for path in tmp_path.iterdir()} == {"recs", ".recs.run-run-1"}
    assert seen_by_duckdb(out) == ["a"]


def test_completing_a_run_drops_what_failed_ones_left_and_nothing_of_a_neighbour(
    tmp_path: Path,
) -> None:
    out, neighbour = tmp_path / "recs", tmp_path / "recs.run-x"
    for run in ("run-1", "run-2"):
        run_to_end(out, run, ["a"])
        run_to_end(neighbour, run, ["n"])
    for failed_run in ("run-3", "run-4"):
        sink("parquet", failed_run, path=str(out)).write(0, [result("never shown")])
    run_to_end(out, "run-5", ["b"])
    kept = {"recs", ".recs.run-run-2", ".recs.run-run-5"}
    kept |= {"recs.run-x", ".recs.run-x.run-run-1", ".recs.run-x.run-run-2"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert seen_by_duckdb(neighbour) == ["n"]


@pytest.mark.parametrize("there", ["a file", "a folder", "a link", "no right"])
def test_a_place_that_cannot_be_used_is_refused_before_the_run(tmp_path: Path, there: str) -> None:
    out = tmp_path / "recs"
    if there == "a file":
        out.write_text("mine")
    elif there == "a folder":
        out.mkdir()
        (out / "mine.parquet").write_text("mine")
    elif there == "a link":
        out.symlink_to(tmp_path)
    else:
        out = Path("/proc/recs")  # not even root
    with pytest.raises(SinkUnusable, match=r"choose another path|cannot be written"):
        sink("parquet", path=str(out)).check()


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "recs").mkdir()
    run_to_end(tmp_path / "recs", "run-1", ["a"])
    assert seen_by_duckdb(tmp_path / "recs") == ["a"]


def test_what_cannot_be_in_a_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkUnusable, match="a run's id"):
        sink("parquet", "../run", path=str(tmp_path))
    for key in ("{key}", "recs", "{key}:{key}"):
        with pytest.raises(ValueError, match="key needs"):
            sink("redis", url="redis://localhost", key=key, ttl_s=1)
    with pytest.raises(ValueError, match="must start with sqlite"):
        sink("sql", url="mysql://localhost", table="recs")


def test_a_spec_shows_no_password_and_its_json_is_whole() -> None:
    url = "postgresql://me:secret@db/shop"
    spec = SINK_SPEC.validate_python({"kind": "sql", "url": url, "table": "recs"})
    assert "secret" not in repr(spec)
    assert SINK_SPEC.validate_json(SINK_SPEC.dump_json(spec)) == spec


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "sql"])
def test_a_full_disk_is_told_and_leaves_nothing_half(small_disk: Path, kind: str) -> None:
    url, path = f"sqlite:///{small_disk}/recs.db", f"{small_disk}/recs"
    made = sink(kind, **({"url": url, "table": "recs"} if kind == "sql" else {"path": path}))
    made.check()
    made.write(0, [result("before")])
    hog = small_disk / "hog"
    write_until_full(hog)
    before = files(small_disk)
    many = [result(f"{n}-{os.urandom(32).hex()}") for n in range(200)]
    with pytest.raises(SinkFull, match="room"):
        made.write(1, many)
    assert files(small_disk) == before
    hog.unlink()
    assert made.write(1, many).rows == 200


def write_until_full(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4_096):
                pass
        except OSError:
            return


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


LIMITED = """
import sys
from pathlib import Path
from reclane_worker.bulk.errors import SinkFull
from reclane_worker.bulk.sinks.durable import write_file
try:
    write_file(Path(sys.argv[1]), b"y" * 100_000)
except SinkFull:
    print("full")
"""


def test_a_file_that_may_not_grow_keeps_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "part"
    write_file(path, b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "full\n"
    assert files(tmp_path) == {str(path): b"old"}


def stored(base: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(base)) as connection:
        return connection.execute(
            "SELECT key, items ->> '$[0].id', failure ->> '$.code', run FROM recs ORDER BY key"
        ).fetchall()


def test_a_table_holds_the_last_answer_of_each_key(tmp_path: Path) -> None:
    base = tmp_path / "recs.db"
    spec = {"url": f"sqlite:///{base}", "table": "recs"}
    first, second = sink("sql", **spec), sink("sql", "run-2", **spec)
    first.check()
    first.check()
    assert stored(base) == []
    for _ in range(2):
        first.write(0, [result("b"), result("a"), failed("c")])
    assert stored(base) == [
        ("a", "i1", None, "run-1"),
        ("b", "i1", None, "run-1"),
        ("c", None, "invalid_request", "run-1"),
    ]
    second.write(0, [failed("a"), result("c", ["i9"]), result("d"), result("d", ["i8"])])
    assert stored(base) == [
        ("a", "i1", None, "run-1"),
        ("b", "i1", None, "run-1"),
        ("c", "i9", None, "run-2"),
        ("d", "i8", None, "run-2"),
    ]


def test_rows_of_a_table_answered_alike_are_unchanged(tmp_path: Path) -> None:
    spec = {"url": f"sqlite:///{tmp_path}/recs.db", "table": "recs"}
    see_unchanged(lambda run: sink("sql", run, **spec))
    made = sink("sql", **spec)
    made.write(0, [failed("same"), result("b"), result("a", model="new")])  # a failure: as it was
    now = {"same": digest("same"), "b": digest("b"), "a": digest("a")}
    assert made.unchanged(now) == {"same", "b"}
    assert made.carry(1, 0, []) is None


def test_a_part_that_fails_in_its_middle_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    base = tmp_path / "recs.db"
    made = sink("sql", url=f"sqlite:///{base}", table="recs")
    made.check()
    made.write(0, [result("a")])
    with closing(sqlite3.connect(base)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON recs WHEN NEW.key = 'z' "
            "BEGIN SELECT RAISE(ABORT, 'no z'); END"
        )
    with pytest.raises(SinkUnusable, match="no z"):
        made.write(1, [result("b"), result("z")])
    assert [row[0] for row in stored(base)] == ["a"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE TABLE recs (key TEXT PRIMARY KEY, items TEXT)", "needs the columns"),
        (
            "CREATE TABLE recs (key TEXT, items TEXT, flags TEXT, versions TEXT, failure TEXT, "
            "made_at TEXT, digest TEXT, run TEXT)",
            "key unique",
        ),
        ("CREATE VIEW recs AS SELECT 1 AS key", "needs the columns"),
    ],
)
def test_a_table_of_another_form_is_refused_before_the_run(
    tmp_path: Path, made: str, said: str
) -> None:
    with closing(sqlite3.connect(tmp_path / "recs.db")) as connection, connection:
        connection.execute(made)
    with pytest.raises(SinkUnusable, match=said):
        sink("sql", url=f"sqlite:///{tmp_path}/recs.db", table="recs").check()


def test_a_store_that_is_away_may_be_tried_again() -> None:
    for spec in (
        {"kind": "redis", "url": "redis://127.0.0.1:1/0", "ttl_s": 60},
        {"kind": "sql", "url": "postgresql://me:secret@127.0.0.1:1/shop", "table": "recs"},
    ):
        made = open_sink(SINK_SPEC.validate_python(spec), "run-1")
        for call in (made.check, lambda made=made: made.write(0, [Result("a", None, None, 0.0)])):
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert caught.value.retry
            assert "secret" not in str(caught.value)
