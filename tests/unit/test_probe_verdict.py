"""What a probe makes of what it finds; see tests/integration/test_probe.py for real workers."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from reclane.cli import cli
from reclane.errors import InvalidSettings
from reclane.probe import STARTING, Away, Seen, announce, decide, probe, withdraw
from reclane.settings import Settings
from support import DEADLINE_S

HEAVY = ("torch", "transformers", "celery", "kombu", "numpy", "rich", "reclane_worker")


@pytest.mark.parametrize(
    ("found", "live", "ready"),
    [
        (Seen(1), True, True),
        (Seen(1, "the batch is late"), True, False),
        (Seen(0), False, False),
        (Seen(-1, "the batch is late"), False, False),
        (Seen(None), False, False),
        (Away("Redis is away"), True, False),
    ],
)
def test_a_worker_is_judged_by_its_lease_and_what_it_says_and_never_blamed_for_redis(
    found: Seen | Away, live: bool, ready: bool
) -> None:
    assert decide("live", "host:1:ab", found).ok is live
    assert decide("ready", "host:1:ab", found).ok is ready


def test_without_an_id_it_is_neither_live_nor_ready_and_redis_is_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "id"
    settings = Settings.load(id_file=path, redis_url="redis://127.0.0.1:1/0")
    assert "no id in" in probe("live", settings, 1).reason
    announce(path, STARTING)
    assert "starting" in probe("live", settings, 1).reason
    announce(path, "host:1:ab")
    assert probe("live", settings, DEADLINE_S).ok  # now it is asked, and away
    withdraw(path)
    withdraw(path)
    assert not probe("ready", settings, 1).ok
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"RECLANE_ID_FILE: cannot write .*/nowhere/id"):
        announce(tmp_path / "nowhere" / "id", STARTING)


def test_a_server_that_never_answers_is_waited_for_no_longer_than_the_timeout(
    tmp_path: Path,
) -> None:
    announce(tmp_path / "id", "host:1:ab")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = Settings.load(id_file=tmp_path / "id", redis_url=url, socket_timeout_s=3_600)
        started = time.monotonic()
        verdict = probe("live", settings, 0.2)
        assert time.monotonic() - started < DEADLINE_S
    assert verdict.ok
    assert verdict.reason.startswith("Redis did not answer within 0.2 s")


def test_the_command_names_the_setting_that_is_missing() -> None:
    result = CliRunner().invoke(cli, ["probe", "live"], env={"RECLANE_ID_FILE": None})
    assert isinstance(result.exception, InvalidSettings)
    assert "RECLANE_ID_FILE is not set" in str(result.exception)


def test_probing_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from reclane.cli import cli\n"
        "result = CliRunner().invoke(cli, ['probe', 'live'])\n"
        f"print(result.exit_code, [name for name in {HEAVY} if name in sys.modules])\n"
        "print(result.stderr)"
    )
    announce(tmp_path / "id", "host:1:ab")
    environment = {
        "RECLANE_ID_FILE": str(tmp_path / "id"),
        "RECLANE_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("0 []\nlive: Redis cannot be reached"), done.stderr
