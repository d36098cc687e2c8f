"""Bulk runs from and into a real PostgreSQL."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from postgres import PrivatePostgres
from reclane.bulk.spec import SINK_SPEC, SOURCE_SPEC
from reclane_worker.bulk.database import make_engine, transaction
from reclane_worker.bulk.errors import SinkUnusable, SourceUnusable, StoreUnavailable
from reclane_worker.bulk.sinks import Sink, open_sink
from reclane_worker.bulk.sources import Source, open_source
from results import digest, failed, result, see_unchanged
from slices import at_once, in_slices

USERS = """
CREATE SCHEMA shop;
CREATE TABLE shop.users (
    id uuid PRIMARY KEY, name text UNIQUE NOT NULL, price numeric NOT NULL, "Wish" text,
    seen text[], filters jsonb, visited timestamptz, day date, number int
);
INSERT INTO shop.users
SELECT md5(n::text)::uuid, CASE n % 2 WHEN 0 THEN 'u' ELSE 'U' END || n, n / 7.0,
       CASE n % 3 WHEN 0 THEN NULL ELSE 'a film' END, ARRAY['i' || n], '{"genre": "film"}',
       '2026-11-01T00:30+01'::timestamptz + n * interval '1 day', '2026-11-01'::date + n, n % 5
FROM generate_series(0, 24) AS n;
"""


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with closing(PrivatePostgres()) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute(USERS)
        yield server.url


def users(base: str, **spec: Any) -> Source:
    table = {} if "query" in spec else {"table": "shop.users"}
    wanted = {"kind": "sql", "url": base, "key": "name", "columns": {"query": "Wish"}}
    return open_source(SOURCE_SPEC.validate_python({**wanted, **table, **spec}))


@pytest.mark.parametrize("order_by", ["id", "name", "price", "day", "visited"])
@settings(max_examples=5)  # each reads many times from a server
@given(limits=st.lists(st.integers(3, 30), min_size=1, max_size=3), keeps=st.booleans())
def test_a_table_read_in_slices_is_the_table_read_at_once(
    order_by: str, limits: list[int], keeps: bool, base: str
) -> None:
    def source() -> Source:
        return users(base, order_by=order_by, columns={"query": "Wish", "history": "seen"})

    rows, bad = in_slices(source, limits, keeps)
    assert (rows, bad) == at_once(source())
    assert {row.key.lower() for row in rows} == {f"u{n}" for n in range(25)}


def test_arrays_and_json_become_fields(base: str) -> None:
    query = 'SELECT name, "Wish", seen, filters, id::text AS "id" FROM shop.users WHERE number = 1'
    source = users(base, query=query, columns={"query": "Wish", "history": "seen"})
    source.check()
    rows, bad = at_once(source)
    assert (source.count(), len(rows), bad) == (5, 5, [])
    assert {"query": "a film", "history": ["i1"], "filters": {"genre": "film"}} in [
        row.request for row in rows
    ]


@pytest.mark.parametrize(
    ("column", "value", "left"),
    [("visited", "2026-11-10T23:30:00Z", 15), ("day", "2026-11-11", 15), ("number", "3", 10)],
)
def test_only_rows_that_changed_since_are_read(
    base: str, column: str, value: str, left: int
) -> None:
    source = users(base, changed_since={"column": column, "value": value})
    rows, bad = at_once(source)
    assert (source.count(), len(rows) + len(bad)) == (left, left)


def test_rows_that_cannot_be_counted_in_time_are_read_all_the_same(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = users(base, query='SELECT name, "Wish" FROM shop.users, pg_sleep(0.3)')
    monkeypatch.setattr("reclane_worker.bulk.database._STATEMENT_TIMEOUT_S", 0.05)
    assert slow.count() is None
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        slow.read(None, 1)
    monkeypatch.undo()
    rows, bad = at_once(slow)
    assert len(rows) + len(bad) == slow.count() == 25


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"table": "shop.customers"}, "does not exist"),
        ({"query": "SELEC"}, "syntax error"),
        ({"order_by": "number"}, "number has a value twice; set order_by"),
        ({"order_by": "Wish"}, "Wish has NULLs"),
        ({"changed_since": {"column": "Wish", "value": 1}}, "refused"),
        ({"query": "DELETE FROM shop.users RETURNING *"}, "refused"),
    ],
)
def test_a_table_that_cannot_be_used_says_what_is_wrong(
    base: str, spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(SourceUnusable, match=said):
        users(base, **spec).read(None, 1)


def test_a_source_writes_nothing(base: str) -> None:
    with psycopg.connect(base) as connection:
        connection.execute("CREATE SEQUENCE shop.numbers")
    with pytest.raises(SourceUnusable, match="read-only"):
        users(base, query="SELECT nextval('shop.numbers')::text AS name, 'q' AS \"Wish\"").check()


def recs(base: str, run: str = "run-1", table: str = "shop.recs") -> Sink:
    return open_sink(SINK_SPEC.validate_python({"kind": "sql", "url": base, "table": table}), run)


def stored(base: str, table: str = "shop.recs") -> list[tuple[Any, ...]]:
    with psycopg.connect(base) as connection:
        return connection.execute(
            "SELECT key, items -> 0 ->> 'id', failure ->> 'code', run, extract(epoch FROM made_at)"
            f" FROM {table} ORDER BY key"
        ).fetchall()


def test_a_table_holds_the_last_answer_of_each_key(base: str) -> None:
    first, second = recs(base), recs(base, "run-2")
    first.check()
    first.check()
    for _ in range(2):
        first.write(0, [result("b"), result("a"), failed("c")])
    second.write(0, [failed("a"), result("c", ["i9"]), result("d"), result("d", ["i\08"])])
    at = 1_800_000_000.5
    assert stored(base) == [
        ("a", "i1", None, "run-1", at),
        ("b", "i1", None, "run-1", at),
        ("c", "i9", None, "run-2", at),
        ("d", "i8", None, "run-2", at),
    ]


def test_rows_answered_alike_are_unchanged(base: str) -> None:
    see_unchanged(lambda run: recs(base, run, table="shop.unchanged"))
    made = recs(base, table="shop.unchanged")
    made.write(0, [result("same", model="new")])
    assert made.unchanged({"same": digest("same")}) == set()
    assert made.carry(1, 0, []) is None


def test_a_part_that_fails_in_its_middle_leaves_the_table_as_it_was(base: str) -> None:
    made = recs(base, table="shop.guarded")
    made.check()
    with psycopg.connect(base) as connection:
        connection.execute("ALTER TABLE shop.guarded ADD CHECK (key <> 'secret')")
    made.write(0, [result("a")])
    with pytest.raises(SinkUnusable) as caught:
        made.write(1, [result("b"), result("secret")])
    assert "secret" not in str(caught.value)
    assert [row[0] for row in stored(base, "shop.guarded")] == ["a"]


def test_a_server_that_lets_nobody_in_may_be_tried_again(base: str) -> None:
    made = recs(base, table="shop.locked")
    made.check()
    with psycopg.connect(base) as connection:
        connection.execute("SET LOCAL lock_timeout = '10s'")
        connection.execute("ALTER ROLE reclane SET lock_timeout = '50ms'")
        connection.commit()
        connection.execute("LOCK TABLE shop.locked")
        try:
            with pytest.raises(StoreUnavailable):
                made.write(0, [result("a")])
        finally:
            connection.rollback()
            connection.execute("ALTER ROLE reclane RESET lock_timeout")
    assert made.write(0, [result("a")]).rows == 1


def test_a_server_whose_machine_is_gone_is_given_up_within_minutes(base: str) -> None:
    engine = make_engine(SecretStr(base), SinkUnusable)
    with transaction(engine, SinkUnusable) as connection:
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as used:
            assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count = (
                used.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
    assert idle + interval * count <= 120


def test_a_database_that_is_not_there_says_so(base: str) -> None:
    with pytest.raises((SourceUnusable, StoreUnavailable), match="does not exist"):
        users(base.replace("/postgres", "/none")).check()
