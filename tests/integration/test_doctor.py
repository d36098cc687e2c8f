"""Doctor against servers that are really as bad as it says."""

import json
import time
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from commands import Reclane, environment

from reclane import Client, names
from reclane.cli import cli
from reclane.embedded import EmbeddedServer
from reclane.operations import access
from reclane_worker.settings import WorkerSettings
from support import DEADLINE_S, KEYS, StartWorker, eventually


def doctor(url: str, code: int, prefix: str = "") -> dict[str, Any]:
    """Findings by name."""
    result = CliRunner(env=environment(url, prefix)).invoke(cli, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == code, found
    return {one["name"]: one for one in found["findings"]}


def levels(found: dict[str, Any], *wanted: str) -> list[str]:
    return [found[name]["level"] for name in wanted]


def test_a_server_as_it_should_be_has_no_problem(server: EmbeddedServer) -> None:
    found = doctor(server.url, 0)
    checked = ("role", "evictions", "policy", "persistence", "scripts", "access", "leftovers")
    assert levels(found, *checked) == ["ok"] * len(checked)
    assert "Valkey" in found["version"]["text"]


def test_text_names_fixes_and_hides_the_password(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    raw.execute_command("ACL", "SETUSER", "app", "on", ">zqx", "~*", "&*", "+@all")
    done = Reclane(server.url.replace("//", "//app:zqx@"))("doctor")
    assert "fix: start a worker: `reclane worker`" in done.stdout
    assert "redis://***@127.0.0.1" in done.stdout
    assert "zqx" not in done.stdout + done.stderr


def test_a_policy_that_evicts_and_a_missing_aof_are_problems() -> None:
    with EmbeddedServer({"maxmemory-policy": "allkeys-lru", "maxmemory": "100mb"}) as server:
        found = doctor(server.url, 1)
        assert levels(found, "policy", "persistence", "memory") == ["problem", "problem", "ok"]
        assert "noeviction" in found["policy"]["fix"]


def test_keys_that_were_evicted_are_a_problem() -> None:
    with (
        EmbeddedServer({"maxmemory-policy": "allkeys-lru", "maxmemory": "3mb"}) as server,
        redis.Redis.from_url(server.url) as raw,
    ):
        number = 0
        give_up = time.monotonic() + DEADLINE_S
        while not raw.info("stats")["evicted_keys"] and time.monotonic() < give_up:
            raw.set(f"filler:{number}", b"x" * 100_000)
            number += 1
        assert levels(doctor(server.url, 1), "evictions") == ["problem"]


def test_half_a_promise_and_needless_work_are_warnings() -> None:
    options = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "notify-keyspace-events": "KEA",
        "client-output-buffer-limit": "pubsub 1mb 1mb 60",
    }
    with EmbeddedServer(options) as server:
        found = doctor(server.url, 0)
        checked = ("persistence", "notifications", "output buffers", "memory")
        assert levels(found, *checked) == ["warning"] * 4


def test_a_replica_is_a_problem(server: EmbeddedServer) -> None:
    with EmbeddedServer({"replicaof": f"127.0.0.1 {server.port}"}) as replica:
        assert levels(doctor(replica.url, 1), "role") == ["problem"]


@pytest.mark.parametrize(
    ("rules", "unknowns"),
    [
        ("-config", ("policy", "output buffers", "notifications", "persistence")),
        ("-info", ("version", "role", "memory", "evictions", "last writes")),
        ("-acl", ("access",)),
        ("-client", ("subscribers",)),
        ("-ping -time", ("latency", "clock", "queues")),
        ("-scan -pubsub -hlen", ("leftovers", "clients", "crashes")),
    ],
)
def test_what_a_user_may_not_see_is_unknown(
    server: EmbeddedServer, raw: "redis.Redis", rules: str, unknowns: tuple[str, ...]
) -> None:
    raw.execute_command("ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", *rules.split())
    found = doctor(server.url.replace("//", "//app:pass@"), 0)
    assert levels(found, *unknowns) == ["unknown"] * len(unknowns)
    assert levels(found, "scripts") == ["ok"]


def test_a_user_without_scripts_or_outside_its_prefix_is_a_problem(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    url = server.url.replace("//", "//app:pass@")
    raw.execute_command("ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-@scripting")
    found = doctor(url, 1)
    assert levels(found, "scripts", "access") == ["problem", "problem"]
    assert "EVAL" in found["access"]["text"]
    rules = ("resetkeys", "~shop-a:*", "resetchannels", "&shop-a:*", "+@all")
    raw.execute_command("ACL", "SETUSER", "app", *rules)
    assert levels(doctor(url, 1, "shop-b:"), "access") == ["problem"]
    assert levels(doctor(url, 0, "shop-a:"), "access") == ["ok"]


def test_a_user_who_may_only_ask_is_told_that_workers_need_more(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    rules = ("~*", "&*", "+@all", "-rpop", "-hset")
    raw.execute_command("ACL", "SETUSER", "app", "on", ">pass", *rules)
    found = doctor(server.url.replace("//", "//app:pass@"), 0)
    assert found["worker access"]["level"] == "warning"
    assert "RPOP" in found["worker access"]["text"]


def test_a_wrong_password_and_a_server_that_is_away_are_told_apart(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    raw.execute_command("ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all")
    wrong = doctor(server.url.replace("//", "//app:zqx@"), 1)["reached"]
    assert "password" in wrong["fix"]
    assert "zqx" not in wrong["text"]
    server.kill()
    away = doctor(server.url, 1)["reached"]
    assert "start the server" in away["fix"]


def test_a_setting_that_is_impossible_is_a_finding() -> None:
    found = doctor("http://zqx@h", 1)
    assert found["settings"]["level"] == "problem"
    assert "zqx" not in json.dumps(found)


def test_requests_that_wait_for_nobody_are_a_problem(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    assert levels(doctor(server.url, 0), "workers") == ["warning"]
    raw.lpush(KEYS.list(names.INTERACTIVE_QUEUE), "x")
    assert levels(doctor(server.url, 1), "workers") == ["problem"]


def test_leftovers_are_found_and_their_fix_works(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    queue = KEYS.list(names.BULK_QUEUE)
    raw.hset(KEYS.inflight("lost-worker"), "1:1:1", queue.encode() + b"\nnot a message")
    raw.hset(KEYS.attempts, "digest", 1)
    raw.lpush(KEYS.dead_letters, "x")
    raw.zadd(KEYS.scheduled, {"late": 1})
    found = doctor(server.url, 1)
    checked = ("leftovers", "crashes", "dead letters", "scheduled")
    assert levels(found, *checked) == ["problem", "warning", "warning", "problem"]
    assert "lost-worker (1)" in found["leftovers"]["text"]
    raw.delete(KEYS.scheduled)
    raw.execute_command(
        *found["leftovers"]["fix"].partition(": ")[2].replace("WORKER", "lost-worker").split()
    )
    start_worker()
    eventually(lambda: not raw.exists(KEYS.inflight("lost-worker")), "a worker recovered it")
    eventually(lambda: raw.llen(KEYS.dead_letters) == 2, "and ended it")
    assert levels(doctor(server.url, 0), "leftovers") == ["ok"]


# The connection's own, those of this test and of the server's own start.
CONNECTING = {"acl", "client", "command", "config", "hello", "info", "ping", "quit", "select"}


def test_doctor_asks_about_every_command_that_clients_and_workers_use(
    server: EmbeddedServer, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    handles = client.submit_many(["film", "novel"])
    start_worker().stop()
    start_worker()
    for handle in handles:
        handle.result(DEADLINE_S)
    client.submit("film", deadline_s=DEADLINE_S).cancel()
    used = {name.removeprefix("cmdstat_").partition("|")[0] for name in raw.info("commandstats")}
    needs = [*access.client_needs(KEYS), *access.worker_needs(KEYS)]
    asked = {command[0].lower() for command in needs}
    assert " ".join(sorted(used - CONNECTING - asked)) == ""


def test_a_worker_is_seen_with_its_versions_and_missed_when_it_dies(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker()
    (name,) = (one.decode() for one in raw.zrange(KEYS.leases, 0, -1))
    eventually(lambda: raw.hexists(KEYS.worker(name), "stats"), "it published its statistics")
    found = doctor(server.url, 0)
    assert levels(found, "workers", "versions") == ["ok", "ok"]
    for said in (name, WorkerSettings.load(model="hash:384").model, "catalog demo@", "requests in"):
        assert said in found["versions"]["text"]
    worker.kill()
    eventually(lambda: raw.zscore(KEYS.leases, name) < raw.time()[0] * 1e3, "its lease lapsed")
    found = doctor(server.url, 0)
    assert levels(found, "workers", "lapsed lease") == ["warning", "warning"]
    assert name in found["lapsed lease"]["text"]
