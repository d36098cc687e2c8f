"""The services of deploy/compose.yaml as plain processes: same commands, settings and checks.

What a container would add is replaced by hand: its files by folders of this machine, the host name
`redis` by the loopback. Values are those of .env.example, with a catalog and a model of the tests.
"""

import base64
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose import Service, example, services
from reclane import Client
from reclane.embedded import EmbeddedServer, free_port
from support import DEADLINE_S, eventually

_INSIDE = re.compile(r"(?<![\w.])/(?:catalogs|tmp|var/cache/huggingface)\b")


class Running:
    """One service as a process, with a folder in place of what its container could write to."""

    def __init__(self, service: Service, redis_port: int, folder: Path) -> None:
        self.service = service
        self._folder = folder
        folder.mkdir()
        self._places = {"/tmp": folder, "/var/cache/huggingface": folder}
        self._places |= {k: Path(v) for k, v in service.mounts.items() if v.startswith("/")}
        self.environment = {
            key: self._outside(value).replace("@redis:6379/", f"@127.0.0.1:{redis_port}/")
            for key, value in service.environment.items()
        }
        binaries = str(Path(sys.executable).parent)
        self.environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": str(folder)}
        with (folder / "log").open("wb") as output:
            self.process = subprocess.Popen(
                [self._outside(part) for part in service.command],
                env=self.environment,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _outside(self, text: str) -> str:
        return _INSIDE.sub(lambda found: str(self._places[found.group()]), text)

    def log(self) -> str:
        return (self._folder / "log").read_text("utf-8", "replace")

    def run(self, command: list[str]) -> bool:
        """As `docker exec` would; whether the exit code is 0."""
        assert self.process.poll() is None, self.log()
        done = subprocess.run(
            command, env=self.environment, cwd=self._folder, capture_output=True, timeout=DEADLINE_S
        )
        return done.returncode == 0

    def healthy(self) -> bool:
        assert self.service.health is not None
        return self.run(self.service.health)

    def loaded(self, library: str) -> bool:
        """Whether a shared library is mapped into the process (Linux)."""
        return library in Path(f"/proc/{self.process.pid}/maps").read_text()

    def stop(self) -> int:
        """The exit code; that of a kill, as a container engine's, after the grace period."""
        self.process.terminate()
        try:
            return self.process.wait(self.service.stop_grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@pytest.fixture
def planned(hash_catalog: Path) -> dict[str, Service]:
    """The services as they follow from .env.example, with what every user has to change."""
    mine = {
        "CATALOGS": str(hash_catalog.parent),
        "RECLANE_CATALOG": f"shop=/catalogs/{hash_catalog.name}",
        "RECLANE_MODEL": "hash:384",
        "FLOWER_PORT": str(free_port()),
    }
    return services(example() | mine)


@pytest.fixture
def redis_server(planned: dict[str, Service]) -> Iterator[EmbeddedServer]:
    """A server with the directives of the service `redis`."""
    command = planned["redis"].command
    directives = dict(zip(command[1::2], command[2::2], strict=True))
    with EmbeddedServer({k.removeprefix("--"): v for k, v in directives.items()}) as server:
        yield server


@pytest.fixture
def running(
    planned: dict[str, Service], redis_server: EmbeddedServer, tmp_path: Path
) -> Iterator[dict[str, Running]]:
    started: dict[str, Running] = {}
    try:
        for name in ("worker", "beat", "flower"):
            started[name] = Running(planned[name], redis_server.port, tmp_path / name)
        yield started
    finally:
        for one in started.values():
            one.process.kill()
            one.process.wait()


def test_the_stack_comes_up_healthy_answers_and_ends_in_order(
    running: dict[str, Running], redis_server: EmbeddedServer
) -> None:
    worker, beat, flower = running["worker"], running["beat"], running["flower"]
    eventually(worker.healthy, "the worker is healthy")
    eventually(flower.healthy, "Flower is healthy")
    eventually(lambda: "Acquired lock" in beat.log(), "beat has started")
    assert worker.run(["reclane", "probe", "ready"])

    url = worker.environment["RECLANE_REDIS_URL"]
    with Client(url) as client:
        answer = client.recommend("a good science fiction film", k=3, timeout=DEADLINE_S)
    assert len(answer.items) == 3
    assert f"@127.0.0.1:{redis_server.port}/" in url
    assert example()["REDIS_PASSWORD"] in url

    if Path("/proc/self/maps").exists():
        assert worker.loaded("libtorch")
        assert not beat.loaded("libtorch")
        assert not flower.loaded("libtorch")

    page = f"http://127.0.0.1:{flower.environment['FLOWER_PORT']}/workers"
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(page):
        pass
    refused.value.close()
    assert refused.value.code == 401
    given = base64.b64encode(flower.environment["FLOWER_BASIC_AUTH"].encode()).decode()
    request = urllib.request.Request(page, headers={"Authorization": f"Basic {given}"})
    name = f"reclane-{worker.process.pid}@"

    def listed() -> bool:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
            return name in reply.read().decode()

    eventually(listed, "Flower lists the worker")

    flower.stop()  # finishes its inspections of the worker first, which may take longer; no state
    assert (beat.stop(), worker.stop()) == (0, 0)
    assert "lane drained" in worker.log()
    for one in running.values():
        assert example()["REDIS_PASSWORD"] not in one.log()
