"""Doctor's judgements, fed with facts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reclane import __version__, contract, names
from reclane.operations.access import Denied
from reclane.operations.facts import LaneFacts, ServerFacts
from reclane.operations.findings import Finding, Level, has_problems, size
from reclane.operations.lane_findings import judge_lane
from reclane.operations.origins import Origin, origins
from reclane.operations.queues import Overview, QueueState, WorkerState
from reclane.operations.server_findings import judge_server
from reclane.settings import Settings

INFO: dict[str, Any] = {
    "redis_version": "7.4.0",
    "role": "master",
    "connected_slaves": 0,
    "used_memory": 500,
    "maxmemory": 1_000,
    "connected_clients": 3,
    "maxclients": 10_000,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
}
CONFIG = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "always",
    "client-output-buffer-limit": "normal 0 0 0 slave 1 1 60 pubsub 33554432 8388608 60",
    "notify-keyspace-events": "",
}
GOOD = ServerFacts(
    info=INFO,
    config=CONFIG,
    latency_ms=0.2,
    skew_s=0.001,
    pubsub_lag=0,
    scripts="",
    denied=Denied("default", (), ()),
)


def server(**changes: Any) -> dict[str, Finding]:
    return {one.name: one for one in judge_server(replace(GOOD, **changes))}


def test_a_good_server_is_all_ok() -> None:
    assert {one.level for one in server().values()} == {Level.OK}


@pytest.mark.parametrize(
    ("name", "info", "level"),
    [
        ("version", {"redis_version": "6.2.14"}, Level.PROBLEM),
        ("version", {"redis_version": "7.0.0"}, Level.OK),
        ("version", {"redis_version": "10.0.0"}, Level.OK),
        ("version", {"redis_version": "6.0", "valkey_version": "8.0.1"}, Level.OK),
        ("role", {"role": "slave"}, Level.PROBLEM),
        ("role", {"cluster_enabled": 1}, Level.PROBLEM),
        ("role", {"loading": 1}, Level.PROBLEM),
        ("memory", {"maxmemory": 0}, Level.WARNING),
        ("memory", {"used_memory": 799}, Level.OK),
        ("memory", {"used_memory": 800}, Level.WARNING),
        ("memory", {"used_memory": 950}, Level.PROBLEM),
        ("evictions", {"evicted_keys": 1}, Level.PROBLEM),
        ("last writes", {"aof_last_write_status": "err"}, Level.PROBLEM),
        ("last writes", {"rdb_last_bgsave_status": "err"}, Level.PROBLEM),
        ("connections", {"connected_clients": 8_000}, Level.WARNING),
    ],
)
def test_info_is_judged(name: str, info: dict[str, Any], level: Level) -> None:
    assert server(info=INFO | info)[name].level is level


@pytest.mark.parametrize(
    ("name", "config", "level"),
    [
        ("policy", {"maxmemory-policy": "allkeys-lru"}, Level.PROBLEM),
        ("policy", {"maxmemory-policy": "volatile-ttl"}, Level.PROBLEM),
        ("persistence", {"appendonly": "no"}, Level.PROBLEM),
        ("persistence", {"appendfsync": "everysec"}, Level.WARNING),
        ("persistence", {"appendfsync": "no"}, Level.WARNING),
        ("output buffers", {"client-output-buffer-limit": "pubsub 1000 100 60"}, Level.WARNING),
        ("output buffers", {"client-output-buffer-limit": "pubsub 0 0 0"}, Level.OK),
        ("output buffers", {"client-output-buffer-limit": ""}, Level.UNKNOWN),
        ("notifications", {"notify-keyspace-events": "KEA"}, Level.WARNING),
    ],
)
def test_the_configuration_is_judged(name: str, config: dict[str, str], level: Level) -> None:
    assert server(config=CONFIG | config)[name].level is level


def test_a_policy_that_cannot_act_yet_is_a_warning() -> None:
    config = CONFIG | {"maxmemory-policy": "allkeys-lru"}
    assert server(config=config, info=INFO | {"maxmemory": 0})["policy"].level is Level.WARNING


@pytest.mark.parametrize(
    ("name", "changes", "level"),
    [
        ("clock", {"skew_s": -0.9}, Level.OK),
        ("clock", {"skew_s": -1.5}, Level.WARNING),
        ("clock", {"skew_s": 11.0}, Level.PROBLEM),
        ("latency", {"latency_ms": 9.9}, Level.OK),
        ("latency", {"latency_ms": 10.0}, Level.WARNING),
        ("subscribers", {"pubsub_lag": 10_000_000}, Level.WARNING),
        ("scripts", {"scripts": "ERR unexpected '#'"}, Level.PROBLEM),
        ("access", {"denied": Denied("app", ("GET x",), ())}, Level.PROBLEM),
        ("worker access", {"denied": Denied("app", (), ("HSET x",))}, Level.WARNING),
    ],
)
def test_what_was_measured_is_judged(name: str, changes: dict[str, Any], level: Level) -> None:
    assert server(**changes)[name].level is level


def test_what_redis_refuses_to_show_is_unknown_and_no_problem() -> None:
    found = list(judge_server(ServerFacts()))
    assert {one.level for one in found} == {Level.UNKNOWN}
    assert {one.name for one in found} == set(server())
    assert not has_problems(found)


def test_a_missing_aof_is_seen_in_info_where_config_is_refused() -> None:
    assert server(config=None)["persistence"].level is Level.UNKNOWN
    info = INFO | {"aof_enabled": 0}
    assert server(config=None, info=info)["persistence"].level is Level.PROBLEM


# ---- the lane

KEYS = names.Keys("shop-a:")
WORKER = WorkerState("w1", 2, 5.0)
LAPSED = WorkerState("w2", 3, -7.0)


def overview(
    waiting: int = 0, workers: tuple[WorkerState, ...] = (WORKER,), **more: Any
) -> Overview:
    known = {"scheduled": 0, "overdue": 0, "next_due_s": None, "dead_letters": 0} | more
    state = QueueState(names.INTERACTIVE_QUEUE, {0: waiting}, 1.0 if waiting else None)
    return Overview(queues=(state,), workers=workers, **known)


def lane(seen: Overview | None = None, **changes: Any) -> dict[str, Finding]:
    facts = LaneFacts(seen or overview(), {"w1": {"requests": 1}}, {}, 0, 1)
    return {one.name: one for one in judge_lane(replace(facts, **changes), KEYS, 10_000)}


def test_a_good_lane_is_all_ok() -> None:
    assert {one.level for one in lane().values()} == {Level.OK}
    assert {one.level for one in lane(overview(waiting=1_000)).values()} == {Level.OK}


@pytest.mark.parametrize(
    ("name", "seen", "level"),
    [
        ("workers", overview(workers=()), Level.WARNING),
        ("workers", overview(waiting=1, workers=()), Level.PROBLEM),
        ("workers", overview(waiting=1, workers=(LAPSED,)), Level.PROBLEM),
        ("lapsed lease", overview(workers=(WORKER, LAPSED)), Level.WARNING),
        ("lapsed lease", overview(workers=(LAPSED,)), Level.PROBLEM),
        ("lapsed lease", overview(workers=(replace(LAPSED, in_flight=0),)), Level.WARNING),
        ("scheduled", overview(scheduled=3, overdue=1), Level.WARNING),
        ("scheduled", overview(workers=(), scheduled=3, overdue=1), Level.PROBLEM),
        ("scheduled", overview(workers=(), scheduled=3), Level.OK),
        (names.INTERACTIVE_QUEUE, overview(waiting=7_999), Level.OK),
        (names.INTERACTIVE_QUEUE, overview(waiting=8_000), Level.WARNING),
        (names.INTERACTIVE_QUEUE, overview(waiting=10_000), Level.PROBLEM),
        ("dead letters", overview(dead_letters=1), Level.WARNING),
        ("dead letters", overview(dead_letters=10_000), Level.PROBLEM),
    ],
)
def test_queues_and_workers_are_judged(name: str, seen: Overview, level: Level) -> None:
    assert lane(seen)[name].level is level


def test_what_is_in_flight_without_a_lease_is_a_problem_whose_fix_names_the_key() -> None:
    found = lane(orphans={"w9": 4})["leftovers"]
    assert found.level is Level.PROBLEM
    assert "w9 (4)" in found.text
    assert "ZADD shop-a:reclane:leases 0" in found.fix


def test_requests_under_suspicion_are_a_warning() -> None:
    assert lane(crashed=2)["crashes"].level is Level.WARNING


@pytest.mark.parametrize(
    ("published", "level"),
    [
        ({"version": __version__, "contract": contract.VERSION}, Level.OK),
        ({"version": "0.0.1", "contract": contract.VERSION}, Level.WARNING),
        ({"version": __version__, "contract": contract.VERSION + 1}, Level.PROBLEM),
    ],
)
def test_versions_that_differ_are_said(published: dict[str, Any], level: Level) -> None:
    told = published | {"model": "minilm@1", "catalogs": ["films@abc"], "requests": 7}
    found = lane(statistics={"w1": told})["versions"]
    assert found.level is level
    assert "model minilm@1, catalog films@abc, 7 requests" in found.text


@pytest.mark.parametrize("why", [{"version": "abc", "at": 1.0, "why": "it is gone"}, "odd", None])
def test_a_version_that_a_worker_could_not_load_is_a_problem(why: Any) -> None:
    found = lane(statistics={"w1": {"catalogs": ["films@0"], "refused": {"films": why}}})
    assert found["catalogs"].level is Level.PROBLEM
    assert "not the version of films that is published" in found["catalogs"].text
    assert ("it is gone" in found["catalogs"].text) == isinstance(why, dict)
    assert "catalogs" not in lane(statistics={"w1": {"catalogs": ["films@0"], "refused": []}})


def test_an_unseen_lane_is_unknown() -> None:
    found = list(judge_lane(LaneFacts(), KEYS, 1))
    assert {one.level for one in found} == {Level.UNKNOWN}


def test_whatever_is_not_ok_has_a_fix_and_what_is_ok_has_none() -> None:
    bad = {"redis_version": "6.0", "role": "slave", "used_memory": 999, "evicted_keys": 1}
    found = [
        *server(
            info=INFO | bad, config=dict.fromkeys(CONFIG, "x"), skew_s=99, scripts="no"
        ).values(),
        *server().values(),
        *lane(overview(1, (LAPSED,), overdue=1, dead_letters=1), orphans={"w": 1}).values(),
        *lane(LaneFacts().overview, crashed=1).values(),
    ]
    for one in found:
        assert bool(one.fix) == (one.level is not Level.OK), one


@pytest.mark.parametrize(("number", "shown"), [(0, "0 B"), (1_500, "2 KB"), (34e6, "34 MB")])
def test_a_size_has_the_unit_that_fits(number: float, shown: str) -> None:
    assert size(number) == shown


# ---- settings


def test_each_setting_names_its_source_and_hides_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECLANE_REDIS_URL", "rediss://me:zqx@h:1/2?password=zqx")
    Path(".env").write_text("RECLANE_KEY_PREFIX=shop-a:\nRECLANE_REDIS_URL=redis://other/0\n")
    found = {one.name: one for one in origins(Settings.load())}
    url = Origin("RECLANE_REDIS_URL", "rediss://***@h:1/2", "environment")
    assert found["RECLANE_REDIS_URL"] == url
    assert found["RECLANE_KEY_PREFIX"].source == ".env"
    assert found["RECLANE_RESULT_TTL_S"] == Origin("RECLANE_RESULT_TTL_S", "300", "default")
    assert "zqx" not in repr(found)
    assert len(found) == len(Settings.model_fields)
