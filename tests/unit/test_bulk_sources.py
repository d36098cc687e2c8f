"""Sources of a bulk run: the same rows from any cursor, bad rows named, unusable ones refused."""

import csv
import gzip
import io
import json
import os
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from reclane.bulk.spec import FIELDS, SOURCE_SPEC
from reclane_worker.bulk.errors import SourceChanged, SourceUnusable
from reclane_worker.bulk.sources import BadRow, Source, open_source, rows
from reclane_worker.bulk.sources import parquet as parquet_source
from reclane_worker.bulk.sources.sql import Database
from reclane_worker.bulk.sources.values import READERS
from slices import at_once, in_slices

Record = dict[str, Any]


def opened(**spec: Any) -> Source:
    return open_source(SOURCE_SPEC.validate_python({"kind": "files", **spec}))


def write_csv(path: Path, records: list[Record]) -> None:
    text = io.StringIO()
    names = list(records[0])
    writer = csv.DictWriter(text, names, delimiter="\t" if ".tsv" in path.name else ",")
    writer.writeheader()
    for record in records:
        flat = {k: "|".join(v) if isinstance(v, list) else v for k, v in record.items()}
        writer.writerow(flat)
    write(path, text.getvalue().encode())


def write_jsonl(path: Path, records: list[Record]) -> None:
    write(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def write_parquet(path: Path, records: list[Record]) -> None:
    parquet.write_table(pa.Table.from_pylist(records), path, row_group_size=3)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


WRITERS: dict[str, Callable[[Path, list[Record]], None]] = {
    "csv": write_csv,
    "csv.gz": write_csv,
    "tsv": write_csv,
    "jsonl": write_jsonl,
    "ndjson.gz": write_jsonl,
    "parquet": write_parquet,
}
PIECES = (b'"', b"\n", b"\r\n", b",", b"a", b"\xff", b'{"user_id":"b"}\n', b'"a",b\n')
words = st.text(st.characters(codec="utf-8", exclude_characters="|\0\r"), max_size=8)
records = st.lists(
    st.fixed_dictionaries(
        {"user_id": words, "query": words, "history": st.lists(st.sampled_from("abc"), max_size=3)}
    ),
    min_size=1,
    max_size=12,
)
limits = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@pytest.mark.parametrize("ending", WRITERS)
@given(parts=st.lists(records, min_size=1, max_size=3), limits=limits, keeps=st.booleans())
def test_files_read_in_slices_are_the_files_read_at_once(
    ending: str,
    parts: list[list[Record]],
    limits: list[int],
    keeps: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for number, part in enumerate(parts):
        WRITERS[ending](folder / f"part-{number}.{ending}", part)

    def source() -> Source:
        return opened(paths=[f"{folder}/*.{ending}"])

    good, bad = in_slices(source, limits, keeps)
    assert (good, bad) == at_once(source())
    assert len(good) + len(bad) == sum(map(len, parts))
    if not bad:
        keys = [record["user_id"] for part in parts for record in part]
        assert [row.key for row in good] == keys


@pytest.mark.parametrize("ending", ["csv", "jsonl", "csv.gz"])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), limits=limits)
def test_whatever_the_bytes_are_slices_are_the_file_read_at_once(
    ending: str, pieces: list[bytes], limits: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("files") / f"rows.{ending}"
    write(path, b"\xef\xbb\xbfuser_id,query\n" + b"".join(pieces))
    sliced = in_slices(lambda: opened(paths=[str(path)]), limits, keeps_open=False)
    assert sliced == at_once(opened(paths=[str(path)]))


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with 30 users, seen on as many days, every third without a wish."""
    path = tmp_path_factory.mktemp("base") / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE users (id TEXT PRIMARY KEY, wish TEXT, seen TEXT)")
        rows = [(f"u{n:02}", "a film" if n % 3 else "", f"2026-11-{n + 1:02}") for n in range(30)]
        connection.executemany("INSERT INTO users VALUES (?, ?, ?)", rows)
        connection.execute("CREATE TABLE visits (user TEXT, number INTEGER)")
        connection.executemany(
            "INSERT INTO visits VALUES (?, ?)", [("a", 1), ("a", 2), ("b", None)]
        )
    return path


def database(path: Path, **spec: Any) -> Source:
    wanted = {"kind": "sql", "url": f"sqlite:///{path}", "key": "id", "columns": {"query": "wish"}}
    table = {} if "query" in spec else {"table": "users"}
    return open_source(SOURCE_SPEC.validate_python({**wanted, **table, **spec}))


@given(limits=st.lists(st.integers(1, 40), min_size=1, max_size=4), keeps=st.booleans())
def test_a_table_read_in_slices_is_the_table_read_at_once(
    limits: list[int], keeps: bool, users: Path
) -> None:
    good, bad = in_slices(lambda: database(users), limits, keeps)
    assert [row.key for row in good] == [f"u{n:02}" for n in range(30) if n % 3]
    assert [one.place for one in bad] == [f"users row id=u{n:02}" for n in range(0, 30, 3)]


def test_a_query_may_hold_what_looks_like_parameters(users: Path) -> None:
    query = "SELECT id, wish || ' :x %s ''::y' AS wish FROM users WHERE wish LIKE '%film';"
    source = database(users, query=query)
    source.check()
    rows, _ = at_once(source)
    assert len(rows) == source.count() == 20
    assert rows[0].request == {"query": "a film :x %s '::y"}


def test_pages_of_a_table_follow_each_other(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = at_once(database(users))
    monkeypatch.setattr("reclane_worker.bulk.sources.sql.PAGE_ROWS", 7)
    assert at_once(database(users)) == whole


def test_only_rows_that_changed_since_are_read(users: Path, tmp_path: Path) -> None:
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in range(1, 10)]
    records = [{"user_id": f"u{day.day}", "seen": day} for day in days]
    text = [{**record, "seen": record["seen"].isoformat()} for record in records]
    text += [{"user_id": "u10", "seen": ""}, {"user_id": "u11", "seen": "yesterday"}]
    write_parquet(tmp_path / "a.parquet", records)
    write_csv(tmp_path / "a.csv", text)
    write_jsonl(tmp_path / "a.jsonl", text)
    since = {"column": "seen", "value": "2026-11-08T01:00:00+01:00"}
    for ending in ("parquet", "csv", "jsonl"):
        source = opened(paths=[f"{tmp_path}/a.{ending}"], changed_since=since)
        rows, bad = at_once(source)
        assert [row.key for row in rows] == ["u8", "u9"]
        assert bad == [] if ending == "parquet" else "seen: not a date" in bad[0].reason
        assert source.count() is None
    rows, _ = at_once(database(users, changed_since={"column": "seen", "value": "2026-11-29"}))
    assert [row.key for row in rows] == ["u28", "u29"]


def test_row_groups_without_a_change_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    records = parquet_source._records
    monkeypatch.setattr(
        parquet_source, "_records", lambda *at: (read.append(at[1]), records(*at))[1]
    )
    write_parquet(tmp_path / "a.parquet", [{"user_id": str(n), "n": n} for n in range(12)])
    since = {"column": "n", "value": 7}
    rows, _ = at_once(opened(paths=[f"{tmp_path}/a.parquet"], changed_since=since))
    assert ([row.key for row in rows], read) == (["7", "8", "9", "10", "11"], [2, 3])


def test_cells_become_the_fields_of_a_request(tmp_path: Path) -> None:
    in_parquet = {
        "user": 17,
        "seen": [{"id": 4, "weight": 0.5}, {"id": 5, "weight": None}],
        "k": 5.0,
        "filters": {"genre": "film", "year": None},
        "exclude": [1, None, 2],
        "seen_at": pa.scalar(1_700_000_000_000_000_123, pa.timestamp("ns")),
    }
    table = pa.table({name: pa.array([cell]) for name, cell in in_parquet.items()})
    parquet.write_table(table, tmp_path / "a.parquet")
    in_csv = {
        "user": "17",
        "seen": '[["4", 0.5], 5]',
        "k": "5",
        "filters": '{"genre": "film"}',
        "exclude": "1;2",
        "seen_at": "2024-01-01",
    }
    write_csv(tmp_path / "a.csv", [in_csv])
    for ending in ("parquet", "csv"):
        ((row,), bad) = at_once(
            opened(
                paths=[f"{tmp_path}/a.{ending}"],
                key="user",
                separator=";",
                columns={"user_id": "user", "history": "seen"},
                defaults={"k": 3, "catalog": "films"},
                changed_since={"column": "seen_at", "value": "2020-01-01"},
            )
        )
        assert bad == []
        assert row.key == "17"
        assert row.request == {
            "user_id": "17",
            "history": [["4", 0.5], "5"],
            "k": 5,
            "filters": {"genre": "film"},
            "exclude": ["1", "2"],
            "catalog": "films",
        }


def test_every_field_of_a_request_can_be_read() -> None:
    assert set(READERS) == set(FIELDS)


def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    lines = (
        b'\xef\xbb\xbfuser_id,query,k\n1,"two\nlines",5\n2,secret,none\n,secret,1\n3,secret\n'
        b'4,"secret" x,1\n5,\xff,1\n6,' + b"secret" * 200_000 + b",1\n7,secret,900\n8,fine,1\n"
    )
    write(tmp_path / "users.csv.gz", lines)
    rows, bad = at_once(opened(paths=[str(tmp_path / "users.csv.gz")]))
    assert [(row.key, row.place) for row in rows] == [
        ("1", "users.csv.gz:2"),
        ("8", "users.csv.gz:11"),
    ]
    assert bad == [
        BadRow("users.csv.gz:4", "k: not a number"),
        BadRow("users.csv.gz:5", "user_id: the row has no key"),
        BadRow("users.csv.gz:6", "2 fields where the header has 3"),
        BadRow("users.csv.gz:7", "',' expected after '\"'; skipped to line 8"),
        BadRow("users.csv.gz:8", "not valid UTF-8"),
        BadRow("users.csv.gz:9", "longer than 1048576 bytes; skipped to line 10"),
        BadRow("users.csv.gz:10", "k: Input should be less than or equal to 500"),
    ]


def test_bad_json_lines_and_parquet_rows_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b'{"user_id": "1"}\n\n[]\n{"user_id": \n{"query": "q"}\n')
    rows, bad = at_once(opened(paths=[f"{tmp_path}/a.jsonl"]))
    assert [(row.key, row.place) for row in rows] == [("1", "a.jsonl:1")]
    assert [one.place for one in bad] == ["a.jsonl:3", "a.jsonl:4", "a.jsonl:5"]
    write_parquet(tmp_path / "a.parquet", [{"user_id": str(n), "k": n} for n in range(5)])
    rows, bad = at_once(opened(paths=[f"{tmp_path}/a.parquet"]))
    assert [row.key for row in rows] == ["1", "2", "3", "4"]
    assert [one.place for one in bad] == ["a.parquet row 1"]


def test_one_value_that_cannot_be_converted_costs_its_row_alone(tmp_path: Path) -> None:
    damaged = pa.array([b"ok", b"\xff", b"fine"]).view(pa.string())
    table = pa.table({"user_id": ["1", "2", "3"], "query": damaged})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows, bad = at_once(opened(paths=[f"{tmp_path}/a.parquet"]))
    assert [row.key for row in rows] == ["1", "3"]
    assert [one.place for one in bad] == ["a.parquet row 2"]


@pytest.mark.parametrize("change", ["grows", "is replaced", "has a neighbour", "is gone"])
def test_files_changed_in_mid_run_are_told(tmp_path: Path, change: str) -> None:
    first = tmp_path / "a.jsonl"
    write_jsonl(first, [{"user_id": str(n)} for n in range(4)])
    write_jsonl(tmp_path / "b.jsonl", [{"user_id": "b"}])
    pattern = f"{tmp_path}/*.jsonl"
    source = opened(paths=[pattern])
    cursor = source.read(None, 2).cursor
    if change == "grows":
        first.write_bytes(first.read_bytes() + b"{}\n")
    elif change == "is replaced":
        os.utime(first, ns=(1, 1))
    elif change == "has a neighbour":
        write_jsonl(tmp_path / "a0.jsonl", [{"user_id": "new"}])
    else:
        first.unlink()
    with pytest.raises(SourceChanged, match="start a new run"):
        opened(paths=[pattern]).read(cursor, 2)
    if change in ("grows", "is replaced"):
        with pytest.raises(SourceChanged, match=r"a\.jsonl was changed"):
            source.read(cursor, 2)


UNUSABLE_FILES = {
    "none.csv": "no such file",
    "none-*.csv": "matches no file",
    ".": "is a folder",
    "a.xlsx": "unknown kind of file",
    "broken.parquet": "cannot be read as Parquet",
    "broken.csv.gz": "cannot be read",
    "utf16.csv": "the header cannot be read",
    "twice.csv": "two columns have the same name",
    "other.csv": "there is no column user_id; it has name, age",
}


@pytest.mark.parametrize("name", UNUSABLE_FILES)
def test_a_file_that_cannot_be_used_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    for made in ("a.xlsx", "broken.parquet", "broken.csv.gz"):
        (tmp_path / made).write_bytes(b"nothing of the kind")
    (tmp_path / "utf16.csv").write_bytes("user_id,query\n".encode("utf-16"))
    (tmp_path / "twice.csv").write_bytes(b"user_id,user_id\n")
    (tmp_path / "other.csv").write_bytes(b"name,age\n")
    with pytest.raises(SourceUnusable, match=UNUSABLE_FILES[name]):
        opened(paths=[str(tmp_path / name)]).check()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"columns": {"query": "wish"}}, "no column wish"),
        ({"key": "name"}, "no column name"),
        ({"key": "k"}, "no column gives query, history or user_id"),
        ({"changed_since": {"column": "seen", "value": 1}}, "no column seen"),
    ],
)
def test_a_mapping_that_cannot_be_used_says_what_is_wrong(
    tmp_path: Path, spec: Record, said: str
) -> None:
    has_user = spec.get("key") != "k"
    write_csv(tmp_path / "a.csv", [{"user_id": "1", "k": 1} if has_user else {"k": 1}])
    with pytest.raises(SourceUnusable, match=said):
        opened(paths=[f"{tmp_path}/a.csv"], **spec).check()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"table": "customers"}, "no such table"),
        ({"query": "SELECT FROM"}, "syntax error"),
        ({"key": "number"}, "no column number"),
        ({"order_by": "wish"}, "users.wish has a value twice; set order_by"),
        ({"table": "visits", "key": "user", "columns": {"query": "user"}}, "has a value twice"),
        ({"table": "visits", "key": "number", "columns": {"query": "user"}}, "has NULLs"),
        ({"url": "sqlite:////none.db"}, "no such SQLite file"),
    ],
)
def test_a_table_that_cannot_be_used_says_what_is_wrong(
    users: Path, spec: Record, said: str
) -> None:
    with pytest.raises(SourceUnusable, match=said):
        database(users, **spec).check()


def test_a_value_repeated_in_mid_run_is_told_rather_than_lost(
    users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "_check_order", lambda *_: None)
    source = database(users, table="visits", key="user", columns={"query": "user"})
    with pytest.raises(SourceUnusable, match="has a value twice"):
        source.read(None, 1)


def test_a_slice_is_bounded_in_bytes_and_in_rows_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"user_id": str(n), "n": n} for n in range(10)])
    since = {"column": "n", "value": 8}
    source = opened(paths=[f"{tmp_path}/a.jsonl"])
    filtered = opened(paths=[f"{tmp_path}/a.jsonl"], changed_since=since)
    monkeypatch.setattr(rows, "MAX_SLICE_BYTES", 40)
    assert len(source.read(None, 100).rows) == 3
    monkeypatch.setattr(rows, "MAX_MET", 4)
    first = filtered.read(None, 100)
    assert first.rows == []
    assert first.cursor is not None
    good, _ = in_slices(lambda: filtered, [100], keeps_open=True)
    assert [row.key for row in good] == ["8", "9"]


def test_rows_are_counted_where_that_is_cheap(tmp_path: Path, users: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"user_id": "1"}] * 5)
    write_csv(tmp_path / "a.csv", [{"user_id": "1"}])
    assert opened(paths=[f"{tmp_path}/a.parquet"]).count() == 5
    assert opened(paths=[f"{tmp_path}/*"]).count() is None
    assert database(users).count() == 30


def test_rows_take_constant_memory_whatever_the_size(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    row = b"1," + b"x" * 1_000 + b"\n"
    with path.open("wb") as file:
        file.write(b"user_id,query\n" + row * 10_000)
        file.truncate(1 << 25)  # a line of zeros, never read whole
        file.seek(1 << 25)
        file.write(b"\n" + row)
    tracemalloc.start()
    try:
        source, bad, read = opened(paths=[str(path)]), 0, 0
        one = source.read(None, 500)
        while one.cursor is not None:
            read, bad = read + len(one.rows), bad + len(one.bad)
            one = source.read(one.cursor, 500)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (read + len(one.rows), bad + len(one.bad)) == (10_001, 1)
