"""Schedules in tests: a plan whose slots are hours away, and the way back in time."""

import time
from pathlib import Path
from typing import Any

import redis

from reclane.bulk import cron, schedules
from reclane.bulk.schedules import Plan, Schedule
from reclane.bulk.spec import parse_run
from reclane.names import Keys

NIGHTLY = "nightly"
DAY_S = 86_400


def daily(hours_ago: int = 12) -> str:
    """A cron with one slot a day, the last so many hours ago or somewhat more."""
    return f"0 {(time.gmtime().tm_hour - hours_ago) % 24} * * *"


def plan(out: Path | str, expression: str | None = None, **more: Any) -> Plan:
    """Daily, half a day from now, from some file into `out`."""
    source = {"kind": "files", "paths": ["/data/users.csv"]}
    sink = {"kind": "parquet", "path": str(out)}
    spec = parse_run({"source": source, "sink": sink})
    return Plan(cron.parse(expression or daily()), spec, **more)


def rewind(raw: "redis.Redis", keys: Keys, name: str = NIGHTLY, days: int = 5) -> int:
    """As if no beat had run for some days; returns the slot that is due now."""
    one = schedules.read(raw, keys, name)
    slot = one.plan.cron.latest(time.time())
    raw.hset(keys.beat_entry(name), "since", slot - days * DAY_S)
    raw.zadd(keys.beat_schedule, {keys.beat_entry(name): slot - (days - 1) * DAY_S})
    return slot


def slot_run(slot: int, name: str = NIGHTLY) -> str:
    return f"{name}-{schedules.moment(slot)}"


def end(raw: "redis.Redis", keys: Keys, one: Schedule, run_id: str) -> None:
    """As a worker would leave a run that is done."""
    raw.hset(keys.bulk_run(run_id), "state", "done")
    raw.delete(keys.bulk_output(one.plan.spec.output()))
