"""A private PostgreSQL: a cluster in a temporary folder, reachable from this machine alone."""

import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path
from tempfile import mkdtemp

from support import missing

_START_S = 60
_OPTIONS = {"listen_addresses": "127.0.0.1", "fsync": "off", "max_connections": "20"}


class PrivatePostgres:
    """A running server and the URL of an empty database; PostgreSQL refuses to run as root."""

    def __init__(self) -> None:
        self._user = "postgres" if os.geteuid() == 0 else None
        # Beside pytest's own folders, which only their owner may enter.
        self._folder = Path(mkdtemp(prefix="reclane-postgres-"))
        if self._user:
            owner = pwd.getpwnam(self._user)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        self._data = self._folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"postgresql://reclane@127.0.0.1:{port}/postgres"
        options = {**_OPTIONS, "port": str(port), "unix_socket_directories": str(self._folder)}
        try:
            self._run("initdb", "--no-sync", "--auth=trust", "--username=reclane", "-E", "UTF8")
            given = " ".join(f"-c {name}={value}" for name, value in options.items())
            self._run("pg_ctl", "start", "-w", "-l", str(self._folder / "log"), "-o", given)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, command: str, *arguments: str) -> None:
        said = self._folder / "commands.log"  # a file: the server keeps a pipe open
        with said.open("ab") as log:
            done = subprocess.run(
                [_binary(command), "-D", str(self._data), *arguments],
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                timeout=_START_S,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"{command} failed: {said.read_text()[-1_000:]}")


def _binary(command: str) -> str:
    """Debian keeps the server's commands out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{command}"))
    path = shutil.which(command) or (str(found[-1]) if found else None)
    return path or missing("needs PostgreSQL: apt-get install postgresql")
