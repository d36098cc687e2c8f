"""Whole bulk runs by the command line, from and into each kind of store."""

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from commands import Reclane

from postgres import PrivatePostgres
from reclane import Client
from reclane.embedded import EmbeddedServer
from support import DEADLINE_S, StartWorker

ROWS = 1_500
USERS = [(f"u{n}", f"film number {n % 40}") for n in range(ROWS)]
MAKE = "CREATE TABLE users (name text PRIMARY KEY, wish text)"


@pytest.fixture
def reclane(server: EmbeddedServer) -> Reclane:
    return Reclane(server.url, prefix="")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with closing(PrivatePostgres()) as running:
        with psycopg.connect(running.url) as connection:
            connection.execute(MAKE)
            connection.cursor().executemany("INSERT INTO users VALUES (%s, %s)", USERS)
        yield running.url


def sqlite_url(folder: Path) -> str:
    path = folder / "shop.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(MAKE)
        connection.executemany("INSERT INTO users VALUES (?, ?)", USERS)
    connection.close()
    return f"sqlite:///{path}"


def read_sqlite(url: str) -> dict[str, Any]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    rows = connection.execute("SELECT key, items FROM recs").fetchall()
    connection.close()
    return {key: json.loads(items) for key, items in rows}


def read_postgres(url: str) -> dict[str, Any]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT key, items FROM recs").fetchall())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_table_is_answered_into_a_table(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    reclane: Reclane,
    client: Client,
    start_worker: StartWorker,
) -> None:
    url = sqlite_url(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgres")
    read: Callable[[str], dict[str, Any]] = read_sqlite if kind == "sqlite" else read_postgres
    start_worker()
    arguments = ["bulk", "run", url, "--from-table", "users", "--key", "name"]
    arguments += ["--map", "query=wish", "--set", "k=3", "--out", url, "--to-table", "recs"]
    run = reclane.json(*arguments)
    assert (run["state"], run["total"], run["counts"]["answered"]) == ("done", ROWS, ROWS)
    found = read(url)
    assert found.keys() == {name for name, _ in USERS}
    for name, wish in USERS[:3]:
        alone = client.recommend(wish, k=3, timeout=DEADLINE_S)
        assert [item["id"] for item in found[name]] == [item.id for item in alone.items]
    again = reclane.json(*arguments, "--only-changed")
    assert (again["counts"]["unchanged"], again["counts"]["answered"]) == (ROWS, 0)
    some = reclane.json(*arguments[:3], "--from-query", "SELECT * FROM users", *arguments[5:])
    assert some["counts"]["answered"] == ROWS


def test_zipped_text_is_answered_into_zipped_lines(
    tmp_path: Path, reclane: Reclane, start_worker: StartWorker
) -> None:
    for part in range(3):
        with gzip.open(tmp_path / f"users-{part}.csv.gz", "wt", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("user_id", "seen"), *((f"{part}-{n}", "a|b") for n in range(10))])
    start_worker()
    out = tmp_path / "recs"
    arguments = ["--map", "history=seen", "--set", 'query="film"', "--format", "jsonl.gz"]
    run = reclane.json("bulk", "run", f"{tmp_path}/users-*.csv.gz", "--out", str(out), *arguments)
    assert run["counts"]["answered"] == 30
    content = b"".join(gzip.decompress(path.read_bytes()) for path in out.glob("*.jsonl.gz"))
    lines = [json.loads(line) for line in content.splitlines()]
    assert {line["key"] for line in lines} == {f"{p}-{n}" for p in range(3) for n in range(10)}
    assert all(line["items"] for line in lines)


def test_a_table_is_answered_into_keys_that_expire(
    tmp_path: Path,
    server: EmbeddedServer,
    raw: "redis.Redis",
    reclane: Reclane,
    start_worker: StartWorker,
) -> None:
    url = sqlite_url(tmp_path)
    start_worker()
    arguments = ["bulk", "run", url, "--from-table", "users", "--key", "name"]
    arguments += ["--map", "query=wish", "--out", f"{server.url.removesuffix('0')}1"]
    arguments += ["--redis-key", "shop:{key}", "--ttl", "600"]
    assert reclane.json(*arguments)["counts"]["answered"] == ROWS
    with redis.Redis.from_url(f"{server.url.removesuffix('0')}1") as store:
        assert len([*store.scan_iter("shop:u*")]) == ROWS
        value: Any = store.get("shop:u7")
        assert json.loads(value)["items"]
        store.expire("shop:u7", 5)
        store.delete("shop:u8")
        again = reclane.json(*arguments, "--only-changed")["counts"]
        assert (again["unchanged"], again["answered"]) == (ROWS - 1, 1)
        assert int(store.ttl("shop:u7")) > 500
        assert store.exists("shop:u8")
