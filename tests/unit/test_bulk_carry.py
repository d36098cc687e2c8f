"""Folders to which a run adds: what need not be asked again, and what is taken over."""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from reclane.bulk.spec import SINK_SPEC
from reclane_worker.bulk.errors import SinkUnusable
from reclane_worker.bulk.sinks import Carried, Part, Result, Sink, open_sink
from reclane_worker.bulk.sinks.earlier import Earlier
from reclane_worker.bulk.sinks.hashes import Hashes
from results import AT, digest, failed, manifest, result, see_unchanged

Said: TypeAlias = tuple[str | None, str | None, float]
"""Of a row: by which model, with which digest and when it was answered."""

SPECS = [{"kind": "parquet"}, {"kind": "jsonl"}, {"kind": "jsonl", "gzip": True}]
each_kind = pytest.mark.parametrize("spec", SPECS, ids=["parquet", "jsonl", "jsonl.gz"])


def folder(out: Path, run: str, spec: Mapping[str, Any]) -> Sink:
    return open_sink(SINK_SPEC.validate_python({**spec, "path": str(out)}), run)


def write(sink: Sink, slices: Sequence[Sequence[Result]]) -> list[Part]:
    return [sink.write(number, results) for number, results in enumerate(slices)]


def carried(sink: Sink, own: Sequence[Part]) -> Iterator[Carried]:
    number, at = len(own), 0
    while (step := sink.carry(number, at, own)) is not None:
        assert step.at > at, "carrying goes on"
        yield step
        number, at = number + (step.part is not None), step.at


def add(sink: Sink, run: str, slices: Sequence[Sequence[Result]]) -> list[Part]:
    """A run that adds these results; what it took over."""
    sink.check()
    own = write(sink, slices)
    taken = [step.part for step in carried(sink, own) if step.part]
    sink.complete(manifest(run, [*own, *taken]))
    return taken


def seen(out: Path) -> dict[str, Said]:
    """What each reader finds; a row that stands there twice is an error."""
    rows = list(_records(out))
    said = {row["key"]: _said(row) for row in rows}
    assert len(said) == len(rows)
    return said


def _records(out: Path) -> Iterator[dict[str, Any]]:
    for path in out.glob("*.jsonl*"):
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        yield from map(json.loads, text.splitlines())
    if any(out.glob("*.parquet")):
        rows = ds.dataset(str(out), format="parquet").to_table().to_pylist()
        found = duckdb.sql(f"SELECT key, digest FROM '{out}/*.parquet'").fetchall()
        assert sorted(found) == sorted((row["key"], row["digest"]) for row in rows)
        yield from rows


def _said(row: Mapping[str, Any]) -> Said:
    at = row["made_at"]
    made = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    return row["versions"] and row["versions"]["model"], row["digest"], made.timestamp()


KEYS = [f"u{n}" for n in range(8)]
rows = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["answered", "failed"]))
runs = st.lists(st.tuples(rows, st.integers(1, 4), st.booleans()), min_size=1, max_size=5)


@each_kind
@given(runs=runs, joined=st.integers(1, 6))
def test_after_each_run_every_row_says_what_the_last_run_that_asked_said(
    spec: dict[str, Any],
    runs: list[tuple[dict[str, str], int, bool]],
    joined: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("out") / "recs"
    expected: dict[str, Said] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reclane_worker.bulk.sinks.earlier._JOINED_ROWS", joined)
        for number, (asked, size, keeps) in enumerate(runs):
            run, model, at = f"run-{number}", f"m{number}", AT + number
            results = [
                replace(result(key, model=model) if what == "answered" else failed(key), at=at)
                for key, what in asked.items()
            ]
            slices = [results[first : first + size] for first in range(0, len(results), size)]
            sink = folder(out, run, spec)
            if keeps:
                add(sink, run, slices)
            else:
                expected = {}
                sink.complete(manifest(run, write(sink, slices)))
            expected |= {
                key: (model, digest(key, model), at) if what == "answered" else (None, None, at)
                for key, what in asked.items()
            }
            assert seen(out) == expected


@each_kind
def test_carrying_that_was_cut_off_is_repeated_byte_for_byte(
    tmp_path: Path, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reclane_worker.bulk.sinks.earlier._JOINED_ROWS", 4)
    out = tmp_path / "recs"
    before = [[result(f"{part}-{row}") for row in range(2)] for part in range(6)]
    add(folder(out, "run-1", spec), "run-1", before)
    own = write(folder(out, "run-2", spec), [[result("1-1", model="new")]])
    steps = list(carried(folder(out, "run-2", spec), own))
    assert [step.at for step in steps] == [2, 4, 6]
    at = 0
    for number, step in enumerate(steps, start=len(own)):  # each by a process of its own
        assert folder(out, "run-2", spec).carry(number, at, own) == step
        at = step.at
    assert "new" not in {model for model, _, _ in seen(out).values()}
    parts = [*own, *(step.part for step in steps if step.part)]
    for _ in range(2):
        folder(out, "run-2", spec).complete(manifest("run-2", parts))
        assert {key for key, said in seen(out).items() if said[0] == "new"} == {"1-1"}
        assert len(seen(out)) == 12
        assert folder(out, "run-2", spec).carry(9, 0, own) is None  # shown: nothing is left


@each_kind
def test_where_nothing_was_shown_nothing_is_carried(tmp_path: Path, spec: dict[str, Any]) -> None:
    out = tmp_path / "recs"
    assert add(folder(out, "run-1", spec), "run-1", [[result("a")]]) == []
    assert add(folder(out, "run-2", spec), "run-2", [[result("a"), result("b")]]) == []
    assert len(add(folder(out, "run-3", spec), "run-3", [])) == 1
    assert set(seen(out)) == {"a", "b"}


def test_parts_do_not_get_smaller_run_after_run(tmp_path: Path) -> None:
    out, spec = tmp_path / "recs", {"kind": "parquet"}
    add(folder(out, "run-0", spec), "run-0", [[result(str(n))] for n in range(30)])
    for number in range(1, 4):
        taken = add(folder(out, f"run-{number}", spec), f"run-{number}", [[result(str(number))]])
        assert [part.rows for part in taken] == [29]


def test_few_large_parts_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reclane_worker.bulk.sinks.earlier._JOINED_BYTES", 1)
    out, spec = tmp_path / "recs", {"kind": "jsonl"}
    add(folder(out, "run-1", spec), "run-1", [[result("a")], [result("b")]])
    assert len(add(folder(out, "run-2", spec), "run-2", [[result("c")]])) == 2


def test_a_part_made_before_a_column_was_added_is_carried(tmp_path: Path) -> None:
    out, spec = tmp_path / "recs", {"kind": "parquet", "fields": True}
    add(folder(out, "run-1", {"kind": "parquet"}), "run-1", [[result("a"), failed("b")]])
    (path,) = out.glob("*.parquet")
    parquet.write_table(parquet.read_table(path).drop_columns("digest"), path)
    second = folder(out, "run-2", spec)
    assert second.unchanged({"a": digest("a"), "b": ""}) == set()
    add(second, "run-2", [[result("c")]])
    assert seen(out) == {
        "a": ("hash:384", None, AT),
        "b": (None, None, AT),
        "c": ("hash:384", digest("c"), AT),
    }


@each_kind
def test_rows_answered_alike_are_unchanged(tmp_path: Path, spec: dict[str, Any]) -> None:
    see_unchanged(lambda run: folder(tmp_path / "recs", run, spec))


def test_the_earlier_result_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, spec = tmp_path / "recs", {"kind": "parquet"}
    add(folder(out, "run-1", spec), "run-1", [[result(str(n))] for n in range(3)])
    monkeypatch.setattr("reclane_worker.bulk.sinks.earlier._JOINED_ROWS", 1)
    read: list[str] = []
    digests = Earlier._digests
    monkeypatch.setattr(
        Earlier, "_digests", lambda self, path: (read.append(path.name), digests(self, path))[1]
    )
    second = folder(out, "run-2", spec)
    for _ in range(2):
        assert second.unchanged({"1": digest("1"), "2": ""}) == {"1"}
    own = [second.write(0, [result("0")])]
    assert len(list(carried(second, own))) == 3
    assert len(read) == 3 + 1


@each_kind
def test_an_earlier_result_that_is_damaged_is_told_and_can_be_replaced(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    out = tmp_path / "recs"
    add(folder(out, "run-1", spec), "run-1", [[result("a")]])
    (path,) = out.glob("part-*")
    second = folder(out, "run-2", spec)
    own = [second.write(0, [result("b")])]
    for damaged in (path.read_bytes()[:-9], b"{}\n", None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        for use in (
            lambda: folder(out, "run-2", spec).unchanged({"a": "x"}),
            lambda: second.carry(1, 0, own),
        ):
            with pytest.raises(SinkUnusable, match="asks for all rows"):
                use()
    (out / "_manifest.json").unlink()
    with pytest.raises(SinkUnusable, match="asks for all rows"):
        folder(out, "run-2", spec).unchanged({"a": "x"})
    second.check()
    second.complete(manifest("run-2", own))
    assert set(seen(out)) == {"b"}


def test_json_lines_do_not_follow_parquet_in_one_place(tmp_path: Path) -> None:
    parquet_sink, plain, gzipped = SPECS
    out = tmp_path / "recs"
    add(folder(out, "run-1", plain), "run-1", [[result("a")]])
    with pytest.raises(SinkUnusable, match="another kind"):
        folder(out, "run-2", parquet_sink).check()
    add(folder(out, "run-2", gzipped), "run-2", [[result("b")]])
    assert set(seen(out)) == {"a", "b"}


texts = st.sets(st.text(st.characters(exclude_categories=["Cs"])))


@given(held=texts, others=texts)
def test_hashes_hold_what_was_put_in(held: set[str], others: set[str]) -> None:
    asked = [*held, *others]
    assert list(Hashes([held, held]).hold(asked)) == [text in held for text in asked]


def test_hashes_tell_many_texts_apart() -> None:
    held = Hashes([map(str, range(10_000))]).hold([str(n) for n in range(20_000)])
    assert held[:10_000].all()
    assert not held[10_000:].any()
