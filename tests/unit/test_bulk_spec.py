"""What a spec refuses before anything runs, and which outputs are the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from bulk import spec
from reclane.bulk.spec import parse_run
from reclane.errors import InvalidRequest


def reading(**more: Any) -> dict[str, Any]:
    wanted = spec(Path("/in.csv"), Path("/out"))
    wanted["source"] |= more
    return wanted


def writing(**sink: Any) -> dict[str, Any]:
    return {**spec(Path("/in.csv"), Path("/out")), "sink": sink}


def into_postgres(url: str, table: str = "recs") -> dict[str, Any]:
    return writing(kind="sql", url=url, table=table)


def into_redis(url: str) -> dict[str, Any]:
    return writing(kind="redis", url=url, ttl_s=60)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (reading(columns={"histroy": "seen"}), "no request field histroy; do you mean history"),
        (reading(defaults={"deadline_s": 3}), "no request field deadline_s"),
        (reading(defaults={"k": "abc"}), "source.files.defaults: k: Input should be a valid int"),
        (reading(defaults={"k": 0}), "k: Input should be greater"),
        (
            reading(changed_since={"column": "at", "value": "yesterday"}),
            "write a number, or a date",
        ),
        (reading(changed_since={"column": "at", "value": float("nan")}), "changed_since"),
        (reading(paths=["users.csv"]), "write absolute paths"),
        (writing(kind="parquet", path="recs"), "write absolute paths"),
        (writing(kind="parquet", path="s3://bucket/recs"), "write absolute paths"),
        (writing(kind="parquet", path="/recs\0"), "write absolute paths"),
        (into_postgres("sqlite:///recs.db"), "write absolute paths"),
        (into_postgres("mysql://host/db"), "must start with sqlite:/// or postgresql://"),
        (into_postgres("postgresql://me:hid#den@host/db"), "as %40"),
        (into_postgres("postgresql://me:hid/den@host/db"), "as %40"),
        (into_postgres("postgresql://me:hid?den@host/db"), "as %40"),
        (into_postgres("postgresql://host:hidden/db"), "as %40"),
        (into_redis("redis://[hidden/0"), "as %40"),
        (into_redis("redis://host:99999/0"), "as %40"),
    ],
)
def test_what_cannot_work_anywhere_is_refused_at_once(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_run(wanted)
    assert said in str(refused.value)
    assert "hid" not in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://me:p%40%23@host/db", "postgres://you@host:5432/db"),
        ("postgresql:///db?host=/run/pg", "postgresql://ignored/db?host=/run/pg"),
        ("sqlite:////data/recs.db", "sqlite:////data/x/../recs.db"),
        ("redis://host", "redis://:pw@host:6379/0"),
        ("redis://host/1", "rediss://host?db=1"),
        ("unix:///run/redis.sock", "unix://:pw@/run/redis.sock?db=0"),
    ],
)
def test_one_output_is_known_however_it_is_written(one: str, other: str) -> None:
    into = into_redis if one.startswith(("redis", "unix")) else into_postgres
    assert parse_run(into(one)).output() == parse_run(into(other)).output()
    assert json.loads(parse_run(into(one)).model_dump_json())["sink"]["url"] == one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (into_redis("redis://host/0"), into_redis("redis://host/1")),
        (into_redis("unix:///a.sock?db=1"), into_redis("unix:///a.sock?db=2")),
        (into_postgres("postgresql:///db?host=/a"), into_postgres("postgresql:///db?host=/b")),
        (into_postgres("sqlite:////a#b.db"), into_postgres("sqlite:////a#c.db")),
        (into_postgres("sqlite:////a.db"), into_postgres("sqlite:////a.db", table="others")),
    ],
)
def test_other_outputs_are_not_taken_for_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert parse_run(one).output() != parse_run(other).output()
