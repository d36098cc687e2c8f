"""Runs `python -m reclane.cli` the way a person or a script does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support import DEADLINE_S

PREFIX = "shop-a:"


def environment(url: str, prefix: str = PREFIX) -> dict[str, str]:
    """What a shell would export."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RECLANE_")}
    return {**clean, "RECLANE_REDIS_URL": url, "RECLANE_KEY_PREFIX": prefix}


class Reclane:
    """The command against one server, its keys under a prefix unless it is empty."""

    def __init__(self, url: str, prefix: str = PREFIX) -> None:
        self.url = url
        self.environment = environment(url, prefix)

    def __call__(
        self, *arguments: str, stdin: str = "", code: int = 0
    ) -> "subprocess.CompletedProcess[str]":
        """Run to the end and check the exit code; no run may show a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "reclane.cli", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    @contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Start, and end it whatever the test does."""
        with subprocess.Popen(
            [sys.executable, "-m", "reclane.cli", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A shell's background jobs, and what they start, ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def json(self, *arguments: str, **how: Any) -> Any:
        """Run with --json: stdout is one document."""
        return json.loads(self(*arguments, "--json", **how).stdout)

    def lines(self, *arguments: str, **how: Any) -> list[Any]:
        """Run with --json: stdout is JSON lines."""
        return [json.loads(one) for one in self(*arguments, "--json", **how).stdout.splitlines()]
