"""Starts worker processes on this machine and watches them: for the demo and for tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import redis

from reclane import names
from reclane._connection import connect
from reclane.errors import ReclaneError
from reclane.settings import Settings

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 30.0


class WorkerProcess:
    """A real `celery -A reclane_worker worker` in a process of its own, its log in a file."""

    def __init__(
        self,
        url: str,
        environment: Mapping[str, str],
        log: Path,
        *,
        app: str = "reclane_worker",
        arguments: Sequence[str] = (),
    ) -> None:
        self.environment = {**os.environ, "RECLANE_REDIS_URL": url, **environment}
        self._settings = Settings.load(
            redis_url=url, key_prefix=self.environment.get("RECLANE_KEY_PREFIX", "")
        )
        self.command = [sys.executable, "-m", "celery", "-A", app, "worker"]
        self.command += ["-Q", names.TASKS_QUEUE, "-l", "INFO", "-n", f"w{time.time_ns()}@%h"]
        self.command += arguments
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until its lane holds a lease.

        Raises:
            ReclaneError: it ended or stayed away; quotes the end of its log.
        """
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for whoever started it
            )
        give_up = time.monotonic() + START_TIMEOUT_S
        with connect(self._settings) as client:
            while not self._leased(client):
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.kill()
                    raise ReclaneError(f"the worker did not start:\n{self.log()[-2000:]}")
                time.sleep(0.05)
        return self

    def stop(self) -> int:
        """Warm shutdown (SIGTERM); returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the process to end by itself; returns the exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def ended(self) -> bool:
        """Whether the process is there no more."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _leased(self, client: "redis.Redis") -> bool:
        marker = f":{self.pid}:".encode()
        try:
            leases: Any = client.zrange(self._settings.keys.leases, 0, -1)
        except redis.RedisError:  # away, or refusing us: then the worker's log says so
            return False
        return any(marker in worker for worker in leases)
