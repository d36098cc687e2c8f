"""A TCP proxy on the loopback that misbehaves when told to, as networks do."""

import contextlib
import socket
import threading
import time
from typing import Self


class Proxy:
    """Passes everything on to a port of this machine until it is told otherwise.

    - `cut_reply_to(marker)` loses one reply: the next request that contains `marker` is passed
      on, the server's reply is awaited and thrown away, and the connection is closed.
    - `delay_s` is how long each piece of a reply is held back.
    - While `silent`, whatever arrives on a connection is swallowed, and that connection stays open
      and dead, also afterwards; new ones are accepted and no better.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._marker: bytes | None = None
        self._lock = threading.Lock()
        self.delay_s = 0.0
        self.silent = False
        self.cuts = 0
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def cut_reply_to(self, marker: bytes) -> None:
        with self._lock:
            self._marker = marker

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                _close(near)
                continue
            link = _Link(self, near, far)
            threading.Thread(target=link.requests, daemon=True).start()
            threading.Thread(target=link.replies, daemon=True).start()

    def takes(self, request: bytes) -> bool:
        """Whether the reply to this is the one to lose."""
        with self._lock:
            if self._marker is None or self._marker not in request:
                return False
            self._marker = None
            self.cuts += 1
            return True


class _Link:
    """One connection through the proxy: a thread for each direction."""

    def __init__(self, proxy: Proxy, near: socket.socket, far: socket.socket) -> None:
        self._proxy = proxy
        self._near = near
        self._far = far
        self._cut = False
        self._dead = False

    def requests(self) -> None:
        try:
            while data := self._near.recv(1 << 20):
                if self._swallowed():
                    continue
                self._cut = self._cut or self._proxy.takes(data)
                self._far.sendall(data)
        except OSError:
            pass
        finally:
            _close(self._near, self._far)

    def replies(self) -> None:
        try:
            while data := self._far.recv(1 << 20):
                if self._cut:
                    return
                if self._proxy.delay_s:
                    time.sleep(self._proxy.delay_s)
                if not self._swallowed():
                    self._near.sendall(data)
        except OSError:
            pass
        finally:
            if not self._dead:
                _close(self._near, self._far)

    def _swallowed(self) -> bool:
        self._dead = self._dead or self._proxy.silent
        return self._dead


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
