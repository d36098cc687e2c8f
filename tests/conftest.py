"""Fixtures for all tests: a real server, a catalog built once, real worker processes."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from parity import Sides
from reclane import Client
from reclane.embedded import EmbeddedServer
from support import TEST_SERVER, StartWorker, build_hash_catalog, mount_memory

# `--hypothesis-profile=long` draws for as long as one has; without it the same examples each time.
settings.register_profile("long", max_examples=20_000, deadline=None, print_blob=True)
settings.register_profile(
    "bounded", max_examples=40, deadline=None, derandomize=True, database=None
)
settings.load_profile("bounded")


def pytest_configure() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A private server that syncs every write, as the lane's promise assumes.

    Valkey, or the server that RECLANE_TEST_SERVER names.
    """
    options = {"appendonly": "yes", "appendfsync": "always"}
    with EmbeddedServer(options, binary=TEST_SERVER) as running:
        yield running


@pytest.fixture
def raw(server: EmbeddedServer) -> Iterator["redis.Redis"]:
    """A plain connection, to look at what is stored."""
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.url) as made:
        yield made


@pytest.fixture(scope="session")
def hash_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's items under the stand-in model."""
    folder = tmp_path_factory.mktemp("catalogs") / "hash"
    build_hash_catalog(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, where one may mount; other tests of no room run everywhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount_memory(folder, "size=256k"):
        pytest.skip("mounting a small disk needs more rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def start_worker(
    server: EmbeddedServer, hash_catalog: Path, tmp_path: Path
) -> Iterator[StartWorker]:
    """Starts worker processes under the stand-in model; ends what is left of them."""
    workers = StartWorker(server.url, hash_catalog, tmp_path)
    yield workers
    workers.kill_all()


@pytest.fixture(scope="session")
def sides(hash_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """A stock worker and a lane, each with a server; a test leaves them as it found them."""
    made = Sides(hash_catalog, tmp_path_factory.mktemp("parity"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def others(hash_catalog: Path, tmp_path: Path) -> Iterator[Sides]:
    """Two more sides, without workers."""
    made = Sides(hash_catalog, tmp_path)
    yield made
    made.close()
