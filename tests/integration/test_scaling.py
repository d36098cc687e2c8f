"""Workers on several hosts: they share work, join, leave, die and roll to a new catalog under load.

Each runs under a host name of its own in a namespace of its own (`unshare --uts`, as root or in a
user namespace). Where the system allows neither, they share this machine's name, and everything
but the names is tested all the same: workers tell each other apart by more than that.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import redis

from feeding import BACKLOG, CHUNK, load, start_all
from reclane import Client, Recommendation
from reclane.embedded import EmbeddedServer
from reclane_worker.building import build_catalog
from reclane_worker.demo import FIELDS, ITEMS
from reclane_worker.encoder import load_encoder
from reclane_worker.local import WorkerProcess
from reclane_worker.reading import Columns, SourceItem, read_items
from reclane_worker.settings import WorkerSettings
from support import (
    DEADLINE_S,
    KEYS,
    StartWorker,
    assert_each_once,
    assert_nothing_left,
    eventually,
    statistics_of_all,
    watch,
)

REQUESTS = 2_000
SMALL_LEASES = {"RECLANE_LEASE_MESSAGES": "16", "RECLANE_BATCH_REQUESTS": "8"}
RENAME = """
import os, socket, sys
socket.sethostname(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


@cache
def namespace() -> tuple[str, ...] | None:
    """A command that runs another under a host name of its own; None where nothing allows it."""
    if shutil.which("unshare") is None:
        return None
    for options in (["--uts"], ["--user", "--map-root-user", "--uts"]):
        command = ("unshare", *options)
        if subprocess.run([*command, "true"], check=False).returncode == 0:
            return command
    return None


def on_host(name: str, worker: WorkerProcess) -> WorkerProcess:
    """The same worker, not started yet, under another host name where that is possible."""
    isolated = namespace()
    if isolated:
        worker.command = [*isolated, sys.executable, "-c", RENAME, name, *worker.command]
    return worker


def id_of(raw: "redis.Redis", worker: WorkerProcess) -> str:
    (found,) = (i for i in leased(raw) if f":{worker.pid}:" in i)
    return found


def leased(raw: "redis.Redis") -> list[str]:
    return [member.decode() for member in raw.zrange(KEYS.leases, 0, -1)]


def answered(raw: "redis.Redis") -> dict[str, int]:
    """Worker id -> requests it ran, as of its last renewal."""
    return {one: told.get("requests", 0) for one, told in statistics_of_all(raw).items()}


def freeze_while_holding(raw: "redis.Redis", worker: WorkerProcess, worker_id: str) -> int:
    """Stop the process at a moment when it has messages in flight; how many."""
    held = 0

    def caught() -> bool:
        nonlocal held
        worker.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
        raw.ping()  # what it had sent before is executed by now
        held = raw.hlen(KEYS.inflight(worker_id))
        if not held:
            worker.signal(signal.SIGCONT)
        return held > 0

    eventually(caught, "it is frozen with messages in flight")
    return held


@pytest.fixture
def gated(start_worker: StartWorker, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Prepares a worker that is all but loaded and joins when `tmp_path / "gate"` appears."""
    starting: list[threading.Thread] = []

    def prepare(host: str, environment: dict[str, str]) -> WorkerProcess:
        how = {**SMALL_LEASES, **environment, "FAULTY_GATE": str(tmp_path / "gate")}
        worker = on_host(host, start_worker.prepare(how, app="faulty_worker"))
        starting.append(threading.Thread(target=worker.start, daemon=True))
        starting[-1].start()
        return worker

    yield prepare
    (tmp_path / "gate").touch()
    for thread in starting:
        thread.join(DEADLINE_S)


def test_a_burst_is_shared_among_three_hosts(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    hosts = ["host-a", "host-b", "host-c"]
    workers = [on_host(host, start_worker.prepare(SMALL_LEASES)) for host in hosts]
    start_all(*workers)
    if namespace():
        assert sorted(i.split(":")[0] for i in leased(raw)) == hosts
    with watch(raw) as published:
        handles = client.submit_many([f"film {n}" for n in range(REQUESTS)])
        for handle in handles:
            assert handle.result(DEADLINE_S).items
        assert_each_once(published, handles)
    ids = {id_of(raw, worker) for worker in workers}
    assert len(ids) == 3
    eventually(lambda: all(answered(raw).get(i) for i in ids), "each answered a share")
    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert [worker.wait(DEADLINE_S) for worker in workers] == [0, 0, 0]
    assert_nothing_left(raw)
    assert not leased(raw)


def test_a_worker_joins_one_is_killed_and_one_leaves_under_load_and_nothing_is_lost(
    server: EmbeddedServer,
    client: Client,
    raw: "redis.Redis",
    start_worker: StartWorker,
    gated: Callable[..., WorkerProcess],
    tmp_path: Path,
) -> None:
    killed = on_host("host-a", start_worker.prepare(SMALL_LEASES))
    leaving = on_host("host-b", start_worker.prepare(SMALL_LEASES))
    joining = gated("host-c", {})
    start_all(killed, leaving)
    lost = id_of(raw, killed)
    with watch(raw) as published:
        with load(client, server.url, REQUESTS) as feeder:
            eventually(lambda: len(answered(raw)) == 2, "two work")
            (tmp_path / "gate").touch()
            eventually(lambda: len(answered(raw)) == 3, "a third has joined")
            newcomer = id_of(raw, joining)
            eventually(lambda: answered(raw)[newcomer] > 0, "it answers its share")

            held = freeze_while_holding(raw, killed, lost)
            killed.kill()

            leaving.signal(signal.SIGTERM)
            assert leaving.wait(DEADLINE_S) == 0
            eventually(lambda: leased(raw) == [newcomer], "the killed one's messages are recovered")
        assert len(feeder.handles) >= REQUESTS
        for handle in feeder.handles:
            assert handle.result(DEADLINE_S).items
        assert_each_once(published, feeder.handles)
    logs = leaving.log() + joining.log()
    assert f"worker {lost} is gone: {held} messages returned" in logs
    assert_nothing_left(raw)


def test_while_two_catalogs_differ_every_answer_comes_from_the_one_it_names(
    server: EmbeddedServer,
    client: Client,
    start_worker: StartWorker,
    gated: Callable[..., WorkerProcess],
    tmp_path: Path,
) -> None:
    """A rolling update: the new worker joins, the old one drains, the load goes on."""
    encoder = load_encoder(WorkerSettings.load(model="hash:384"))
    items = list(read_items(ITEMS, Columns(), pytest.fail))
    renamed = [SourceItem(f"new/{i.id}", i.title, i.text, i.attributes) for i in items]
    build_catalog(renamed, tmp_path / "new", encoder, fields=FIELDS)

    old = on_host("host-old", start_worker.prepare(SMALL_LEASES))
    new = gated("host-new", {"RECLANE_CATALOG": f"demo={tmp_path / 'new'}"})
    old.start()
    before = [h.result(DEADLINE_S) for h in client.submit_many(["film"] * CHUNK)]

    with load(client, server.url) as feeder:

        def both_answer() -> bool:
            recent = [h.result(0) for h in feeder.handles[-2 * BACKLOG :] if h.done()]
            return len({answer.versions.catalog for answer in recent}) == 2

        (tmp_path / "gate").touch()
        eventually(both_answer, "both answer")
        old.signal(signal.SIGTERM)
        assert old.wait(DEADLINE_S) == 0
    during = [handle.result(DEADLINE_S) for handle in feeder.handles]
    after = [h.result(DEADLINE_S) for h in client.submit_many(["film"] * CHUNK)]

    assert_all_from(before, new=False)
    assert_all_from(after, new=True)
    first, last = before[0].versions.catalog, after[0].versions.catalog
    assert first != last
    for answer in during:
        assert_all_from([answer], new=answer.versions.catalog == last)
    assert {answer.versions.catalog for answer in during} == {first, last}
    assert new.stop() == 0


def assert_all_from(answers: list[Recommendation], *, new: bool) -> None:
    """Every answer names one catalog, and every item is one of that catalog's."""
    assert len({answer.versions.catalog for answer in answers}) == 1
    assert all(item.id.startswith("new/") is new for answer in answers for item in answer.items)
    assert all(answer.items for answer in answers)
