"""`reclane probe` beside real workers: starting, working, frozen, without Redis, drained."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from reclane import Client, ReclaneError, names
from reclane.cli import cli
from reclane.embedded import EmbeddedServer
from reclane.probe import announce
from support import DEADLINE_S, KEYS, StartWorker, eventually

OTHER = "some-host:1:0badcafe"


class Probe:
    """Runs the command; remembers what it printed."""

    def __init__(self, url: str, id_file: Path, **more: str) -> None:
        self._environment = {"RECLANE_REDIS_URL": url, "RECLANE_ID_FILE": str(id_file), **more}
        self.said: dict[str, Any] = {}
        self.line = ""

    def __call__(self, kind: str) -> bool:
        command = ["probe", kind, "--json", "--timeout", "30"]
        done = CliRunner().invoke(cli, command, env=self._environment)
        assert done.exit_code in (0, 1), done.output
        assert done.stderr.count("\n") == 1, done.stderr
        self.line = done.stderr
        self.said = json.loads(done.stdout)
        assert self.said["ok"] == (done.exit_code == 0)
        return done.exit_code == 0

    def both(self) -> tuple[bool, bool]:
        """(live, ready)"""
        return self("live"), self("ready")


def test_the_probes_follow_a_worker_through_its_life(
    server: EmbeddedServer,
    client: Client,
    raw: "redis.Redis",
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    id_file, gate = tmp_path / "worker-id", tmp_path / "gate"
    probe = Probe(server.url, id_file)
    assert probe.both() == (False, False)
    assert "no worker has started" in probe.line

    # A predecessor in the same container crashed, and its lease has not lapsed yet.
    announce(id_file, OTHER)
    raw.zadd(KEYS.leases, {OTHER: 2**52})
    assert probe.both() == (True, True)

    environment = {"RECLANE_ID_FILE": str(id_file), "FAULTY_GATE": str(gate)}
    worker = start_worker.prepare(environment, app="faulty_worker")
    starting = threading.Thread(target=worker.start, daemon=True)
    starting.start()
    eventually(lambda: id_file.read_text() != OTHER, "the worker has come up to loading its model")
    assert probe.both() == (False, False)
    assert "the worker is starting" in probe.line

    gate.touch()
    starting.join(DEADLINE_S)
    eventually(lambda: probe.both() == (True, True), "it holds its lease")
    assert probe.said["worker"] == id_file.read_text() != OTHER
    assert probe.said["lease_left_ms"] > 0
    assert client.recommend("film", timeout=DEADLINE_S).items

    worker.signal(signal.SIGSTOP)
    eventually(lambda: probe.both() == (False, False), "its lease lapses while it is frozen")
    assert "is frozen, stuck or gone" in probe.line or "holds no lease" in probe.line
    worker.signal(signal.SIGCONT)
    eventually(lambda: probe.both() == (True, True), "it has woken")

    server.kill()
    assert probe.both() == (True, False)
    assert "Redis cannot be reached" in probe.line
    server.start()
    eventually(lambda: probe.both() == (True, True), "it has come back to Redis")

    assert worker.stop() == 0
    assert not id_file.exists()
    assert probe.both() == (False, False)


@pytest.mark.parametrize(
    ("directive", "value"), [("min-replicas-to-write", "1"), ("replicaof", "127.0.0.1 1")]
)
def test_a_server_that_refuses_writes_is_not_the_workers_fault(
    directive: str, value: str, server: EmbeddedServer, raw: "redis.Redis", tmp_path: Path
) -> None:
    """No lease can be renewed there, so that all have lapsed."""
    raw.zadd(KEYS.leases, {OTHER: 1})
    announce(tmp_path / "id", OTHER)
    probe = Probe(server.url, tmp_path / "id")
    assert probe.both() == (False, False)
    if directive == "replicaof":
        raw.execute_command("REPLICAOF", *value.split())
    else:
        raw.config_set(directive, value)
    assert probe.both() == (True, False)
    assert "Redis refuses" in probe.line


def test_a_full_server_still_counts_since_workers_drain_it(
    server: EmbeddedServer, raw: "redis.Redis", tmp_path: Path
) -> None:
    raw.zadd(KEYS.leases, {OTHER: 2**52})
    announce(tmp_path / "id", OTHER)
    raw.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        raw.set("anything", "more")
    assert Probe(server.url, tmp_path / "id").both() == (True, True)


def test_the_lease_is_looked_up_under_the_key_prefix(
    server: EmbeddedServer, raw: "redis.Redis", tmp_path: Path
) -> None:
    raw.zadd(names.Keys("shop:").leases, {OTHER: 2**52})
    announce(tmp_path / "id", OTHER)
    assert Probe(server.url, tmp_path / "id").both() == (False, False)
    assert Probe(server.url, tmp_path / "id", RECLANE_KEY_PREFIX="shop:").both() == (True, True)


def test_asking_changes_nothing(server: EmbeddedServer, raw: "redis.Redis", tmp_path: Path) -> None:
    announce(tmp_path / "id", OTHER)
    assert Probe(server.url, tmp_path / "id").both() == (False, False)
    assert raw.dbsize() == 0
    assert raw.info("persistence")["rdb_changes_since_last_save"] == 0


def test_a_worker_refuses_to_start_where_it_cannot_write_its_id(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker.prepare({"RECLANE_ID_FILE": str(tmp_path / "nowhere" / "id")})
    with pytest.raises(ReclaneError, match="RECLANE_ID_FILE: cannot write"):
        worker.start()
