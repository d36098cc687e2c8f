"""What the README, the docstrings and producer/examples show runs as it stands there."""

import ast
import asyncio
import doctest
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

import reclane.aio
import reclane.client
import reclane.testing
from reclane import Recommendation, names
from reclane.embedded import EmbeddedServer, free_port
from support import DEADLINE_S, StartWorker, eventually

TOP = Path(__file__).parents[2]
EXAMPLES = TOP / "producer" / "examples"
DEFAULT_URL = "redis://localhost:6379/0"  # what the examples name


# ---- README -----------------------------------------------------------------------------------


def blocks(heading: str) -> list[str]:
    """The Python blocks under one heading of the README."""
    text = (TOP / "README.md").read_text("utf-8")
    section = re.split(rf"^## {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def patiently(code: str) -> str:
    """The same code with the times a slow machine may need."""
    return re.sub(r"\b(timeout|deadline_s)=[\d.]+", rf"\1={DEADLINE_S}", code)


def run_python(code: str, folder: Path, url: str) -> str:
    script = folder / "example.py"
    script.write_text(patiently(code.replace(DEFAULT_URL, url)), "utf-8")
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "RECLANE_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_producers_run(
    server: EmbeddedServer, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    sync, asynchronous, stock = blocks("A minimal producer")
    lines = run_python(sync, tmp_path, server.url).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["1", "2", "3", "4", "5"]
    assert len(lines) == 5 + 2
    assert "items=(Item(" in run_python(asynchronous, tmp_path, server.url)
    assert "'items': [{" in run_python(stock, tmp_path, server.url)


def test_the_readmes_test_of_a_service_passes(tmp_path: Path) -> None:
    (block,) = blocks("Testing your service")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["reclane.testing"]\n')
    (tmp_path / "test_shop.py").write_text(block, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert re.search(r"^=+ 3 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


# ---- docstrings -------------------------------------------------------------------------------


def docstring_examples() -> list[Any]:
    found = []
    for module in (reclane.client, reclane.aio, reclane.testing):
        for case in doctest.DocTestFinder(exclude_empty=True).find(module):
            if case.examples:
                found.append(pytest.param(module, case, id=case.name))
    return found


async def run_source(code: str, scope: dict[str, Any]) -> None:
    """Run it at top level, where it may await."""
    compiled = compile(code, "<docstring>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(compiled, scope)
    if waiting is not None:
        await waiting


@pytest.mark.parametrize(("module", "case"), docstring_examples())
def test_a_docstrings_example_runs(
    module: ModuleType,
    case: doctest.DocTest,
    server: EmbeddedServer,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RECLANE_REDIS_URL", server.url)
    if module is not reclane.testing:
        start_worker()
    scope = dict(vars(module))
    for example in case.examples:
        capsys.readouterr()
        source = patiently(example.source.replace(DEFAULT_URL, server.url))
        asyncio.run(run_source(source, scope))
        assert capsys.readouterr().out == example.want
    assert isinstance(scope["answer"], Recommendation)


# ---- example services -------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    content: Any


class Service:
    """An example in a process of its own, on a loopback port."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self.port = free_port()
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [part.replace("PORT", str(self.port)) for part in command],
                cwd=folder,
                env={**os.environ, **environment, "PORT": str(self.port)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(self._listens, f"{command[0]} listens")

    def __call__(self, path: str, data: object = None) -> Reply:
        """GET, or POST when there is data: bytes as they are, anything else as JSON."""
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
                return Reply(reply.status, reply.headers, json.load(reply))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, json.load(error))

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            self("/nothing-here")
        except (urllib.error.URLError, ValueError) as error:
            return isinstance(error, ValueError)  # an answer that is not JSON
        return True


COMMANDS = {
    "fastapi": [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", "PORT"],
    "django": [sys.executable, "django_app.py", "runserver", "--noreload", "PORT"],
    "node": ["node", "node_app.mjs"],
}


class StartService:
    """Starts one of the example services; callers wait `timeout_s` at most."""

    def __init__(self, name: str, folder: Path, url: str, log: Path) -> None:
        self._how = COMMANDS[name], folder
        self._url = url
        self._log = log
        self._made: list[Service] = []

    def __call__(self, timeout_s: float = DEADLINE_S) -> Service:
        command, folder = self._how
        environment = {
            "RECLANE_REDIS_URL": self._url,
            "RECLANE_ENQUEUE_TIMEOUT_S": "1",
            "RECLANE_QUEUE_LIMIT": "3",
            "RECOMMEND_TIMEOUT_S": str(timeout_s),
        }
        made = Service(command, folder, environment, self._log)
        self._made.append(made)
        return made

    def kill_all(self) -> None:
        for service in self._made:
            service.kill()


@pytest.fixture(params=COMMANDS)
def start_service(
    request: pytest.FixtureRequest, server: EmbeddedServer, tmp_path: Path
) -> Iterator[StartService]:
    folder = EXAMPLES
    if request.param == "node":  # it finds its packages beside itself
        modules = request.getfixturevalue("node_modules")
        folder = tmp_path / "service"
        folder.mkdir()
        (folder / "node_app.mjs").write_bytes((EXAMPLES / "node_app.mjs").read_bytes())
        (folder / "node_modules").symlink_to(modules, target_is_directory=True)
    services = StartService(request.param, folder, server.url, tmp_path / "service.log")
    yield services
    services.kill_all()


def test_an_example_service_answers_and_maps_errors(
    start_service: StartService, start_worker: StartWorker
) -> None:
    start_worker()
    service = start_service()
    wanted = {"query": "想看一部科幻电影", "k": 3}
    for _ in range(3):
        reply = service("/recommendations", wanted)
        assert reply.status == 200, reply
        assert len(Recommendation.model_validate(reply.content).items) == 3

    assert service("/recommendations", {"query": "film", "k": 0}).status == 422
    assert service("/recommendations", {"timeout": 1, "request": "x"}).status == 422
    assert service("/recommendations", b"{").status == 422

    failed = service("/recommendations", {"query": "film", "filters": {"nope": 1}})
    assert failed.status == 502
    assert (failed.content["code"], failed.content["retry"]) == ("invalid_filter", False)
    assert "'nope'" in failed.content["message"]
    assert service.stop() in (0, -signal.SIGTERM)  # uvicorn ends, then dies of the signal
    assert "Traceback" not in service.log()


def test_an_example_service_says_when_nobody_answers_and_when_redis_is_gone(
    start_service: StartService, server: EmbeddedServer, start_worker: StartWorker
) -> None:
    service = start_service(timeout_s=2)
    late = service("/recommendations", {"query": "film"})
    assert late.status == 504, late
    assert late.content["code"] in ("timeout", "expired")

    server.kill()
    gone = service("/recommendations", {"query": "film"})
    assert gone.status == 503, (gone, service.log())
    assert gone.content["code"] == "broker_unavailable"
    assert gone.headers["Retry-After"] == "1"

    server.start()
    start_worker()
    eventually(
        lambda: service("/recommendations", {"query": "film"}).status == 200, "it answers again"
    )


@pytest.mark.parametrize("start_service", ["fastapi", "django"], indirect=True)
def test_an_example_service_searches_by_get(
    start_service: StartService, start_worker: StartWorker
) -> None:
    start_worker()
    service = start_service()
    reply = service("/search?q=running+shoes&k=2")
    assert len(Recommendation.model_validate(reply.content).items) == 2
    for wrong in ("/search?q=running+shoes&k=0", "/search?q=&k=2", "/search?q=shoes&k=many"):
        assert service(wrong).status == 422


@pytest.mark.parametrize("start_service", ["fastapi", "django"], indirect=True)
def test_an_example_service_turns_callers_away_when_the_queue_is_full(
    start_service: StartService, raw: "redis.Redis"
) -> None:
    """The bound is that of reclane's clients: it does not hold celery-node."""
    service = start_service()
    raw.lpush(names.INTERACTIVE_QUEUE, *[b"somebody waits"] * 3)
    full = service("/recommendations", {"query": "film"})
    assert (full.status, full.content["code"], full.content["retry"]) == (503, "queue_full", True)
    assert full.headers["Retry-After"] == "1"


FORK = """
import os
import django_app
from django.test import RequestFactory

request = RequestFactory().get("/search", {"q": "film", "k": "2"}, SERVER_NAME="localhost")

def ask():
    response = django_app.application.get_response(request)
    assert response.status_code == 200, response.content

ask()
child = os.fork()
if not child:
    ask()
    os._exit(0)
_, status = os.waitpid(child, 0)
ask()
print(os.waitstatus_to_exitcode(status))
"""


def test_the_django_example_survives_a_server_that_forks_late(
    server: EmbeddedServer, start_worker: StartWorker
) -> None:
    start_worker()
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        cwd=EXAMPLES,
        env={**os.environ, "RECLANE_REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
