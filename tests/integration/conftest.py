"""Fixtures for other clients than reclane's: a stock Celery application, npm's packages."""

import fcntl
import gc
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from reclane.embedded import EmbeddedServer
from support import missing

NODE_FOLDER = Path(__file__).parents[1] / "node"


@pytest.fixture
def stock(server: EmbeddedServer) -> Iterator[Celery]:
    """An application of somebody else's, which knows reclane by task name alone."""
    app = Celery("stock", broker=server.url, backend=server.url, set_as_current=False)
    yield app
    gc.collect()  # a result unsubscribes when it is collected; the server must still be there
    # One that an exception's frames still hold is collected later: it has nowhere to say so then.
    app.backend.result_consumer.stop()
    app.backend.result_consumer._pubsub = None
    app.close()


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages that tests/node/package-lock.json pins, installed once into the checkout."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            missing(f"{command} is not installed")
    installed = NODE_FOLDER / "node_modules"
    marker = installed / ".package-lock.json"  # npm writes it last
    lock = NODE_FOLDER / "package-lock.json"
    with (NODE_FOLDER / "package.json").open() as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # tests run in several processes
        _install(marker, lock)
    return installed


def _install(marker: Path, lock: Path) -> None:
    if not marker.exists() or marker.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(
            command, cwd=NODE_FOLDER, capture_output=True, text=True, timeout=100, check=False
        )
        if done.returncode:
            missing(f"npm ci failed, is its registry reachable? {done.stderr[-500:]}")
