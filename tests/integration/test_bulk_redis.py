"""Bulk runs into a real Redis: keys of the customer's choice."""

import json
from typing import Any

import pytest
import redis

from reclane.bulk.spec import SINK_SPEC
from reclane.embedded import EmbeddedServer
from reclane_worker.bulk.errors import SinkFull, SinkUnusable
from reclane_worker.bulk.sinks import Sink, open_sink
from results import digest, failed, result, see_unchanged


def keys(url: str, **spec: Any) -> Sink:
    wanted = {"kind": "redis", "url": url, "key": "shop:{key}:recs", "ttl_s": 60, **spec}
    return open_sink(SINK_SPEC.validate_python(wanted), "run-1")


def test_each_row_has_a_key_that_expires(server: EmbeddedServer, raw: "redis.Redis") -> None:
    made = keys(server.url)
    made.check()
    for _ in range(2):
        part = made.write(0, [result(str(n)) for n in range(1_200)])
    assert part.rows == 1_200
    assert len([*raw.scan_iter("shop:*:recs")]) == 1_200 + raw.exists("shop:reclane-check:recs")
    value: Any = raw.get("shop:7:recs")
    stored = json.loads(value)
    assert (stored["key"], stored["items"][0]["id"], stored["failure"]) == ("7", "i1", None)
    assert 0 < int(raw.ttl("shop:7:recs")) <= 60


def test_a_failure_never_replaces_an_answer(server: EmbeddedServer, raw: "redis.Redis") -> None:
    made = keys(server.url)
    made.write(0, [result("a"), failed("b")])
    made.write(1, [failed("a"), result("b")])
    for key in ("shop:a:recs", "shop:b:recs"):
        value: Any = raw.get(key)
        assert json.loads(value)["failure"] is None


def test_rows_answered_alike_are_unchanged_and_live_on(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    see_unchanged(lambda run: keys(server.url))
    made = keys(server.url, ttl_s=3_600)
    assert made.unchanged({key: digest(key) for key in ("same", "other model")}) == {"same"}
    assert int(raw.ttl("shop:same:recs")) > 60 >= int(raw.ttl("shop:other model:recs"))
    assert made.carry(1, 0, []) is None


def test_what_is_not_a_record_is_asked_again(server: EmbeddedServer, raw: "redis.Redis") -> None:
    for key, value in {"text": b"\xff", "number": b"1", "object": b"{}"}.items():
        raw.set(f"shop:{key}:recs", value)
    raw.rpush("shop:list:recs", "1")
    wanted = {key: digest(key) for key in ("text", "number", "object", "list")}
    assert keys(server.url).unchanged(wanted) == set()


def test_a_key_that_expires_while_it_is_compared_is_asked_again(
    server: EmbeddedServer, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys(server.url)
    made.write(0, [result("a"), result("b")])
    read = redis.Redis.mget

    def read_in_time(self: Any, asked: list[str]) -> Any:
        values = read(self, asked)
        raw.delete("shop:a:recs")
        return values

    monkeypatch.setattr(redis.Redis, "mget", read_in_time)
    assert made.unchanged({key: digest(key) for key in "ab"}) == {"b"}


def test_a_full_redis_is_told_and_takes_the_part_once_there_is_room(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    made = keys(server.url)
    raw.config_set("maxmemory", "1")
    with pytest.raises(SinkFull, match="maxmemory"):
        made.write(0, [result("a")])
    raw.config_set("maxmemory", "0")
    assert made.write(0, [result("a")]).rows == 1


def test_a_user_without_the_right_is_refused_before_the_run(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    raw.acl_setuser(
        "bulk", enabled=True, passwords=["+secret"], keys=["other:*"], commands=["+set"]
    )
    url = server.url.replace("://", "://bulk:secret@")
    with pytest.raises(SinkUnusable, match="refuses this user") as caught:
        keys(url).check()
    assert "secret" not in str(caught.value)
    keys(url, key="other:{key}").check()
    with pytest.raises(SinkUnusable, match="refuses this user"):
        keys(url.replace("secret", "wrong")).check()
