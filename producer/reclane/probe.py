"""Whether the worker beside us lives and is ready: for container health checks.

A worker writes its id into the file that RECLANE_ID_FILE names, and the probe looks up that id's
lease. A host name or a process id would not do: containers share host names, and a restarted
container has its predecessor's host name and process id, whose lease may not have lapsed yet.
"""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import redis

from reclane import _scripts
from reclane._connection import connect
from reclane._refusal import refusal
from reclane.errors import InvalidSettings
from reclane.settings import Settings

_T = TypeVar("_T")

Kind = Literal["live", "ready"]
STARTING: Final = ""
SHOWN_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Away:
    """Redis did not answer, or does not take writes now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What Redis knows of a worker: ms left of its lease, None without one; what is late there,
    as the worker says itself, or ''."""

    left_ms: int | None
    late: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found; `lease_left_ms` by Redis's clock, None where there is no lease."""

    probe: Kind
    ok: bool
    reason: str
    worker: str | None = None
    lease_left_ms: int | None = None


def announce(path: Path, worker_id: str) -> None:
    """Write the id at once or not at all; STARTING while there is none yet.

    Raises:
        InvalidSettings: the file cannot be written.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        scratch.write_text(worker_id, "utf-8")
        scratch.replace(path)
    except OSError as error:
        raise InvalidSettings(
            f"RECLANE_ID_FILE: cannot write {path} ({error.strerror}); name a file in a folder "
            "that this user may write"
        ) from None


def withdraw(path: Path) -> None:
    """The worker has left."""
    path.unlink(missing_ok=True)


def probe(kind: Kind, settings: Settings, timeout_s: float) -> Verdict:
    """Look at the worker that `settings.id_file` names; takes `timeout_s` at most.

    Raises:
        InvalidSettings: RECLANE_ID_FILE is not set.
    """
    path = settings.id_file
    if path is None:
        raise InvalidSettings(
            "RECLANE_ID_FILE is not set; give the worker and the probe the same file"
        )
    try:
        worker_id = path.read_text("utf-8").strip()
    except OSError:
        reason = f"no id in {path}: no worker has started, it has left, or it runs without the lane"
        return Verdict(kind, False, reason)
    except UnicodeDecodeError:
        return Verdict(kind, False, f"{path} holds no worker id; is it the file that it names?")
    if worker_id == STARTING:
        return Verdict(kind, False, "the worker is starting; its model is not loaded yet")
    return decide(kind, worker_id, _look(settings, worker_id, timeout_s))


def decide(kind: Kind, worker_id: str, found: Seen | Away) -> Verdict:
    """Judge what was found.

    Without Redis nobody can renew a lease, and restarting workers does not bring it back: such a
    worker is live and not ready. So is one whose batch is late: if it is stuck, it ends by itself.
    """
    if isinstance(found, Away):
        reason = found.reason
        if kind == "live":
            reason += "; restarting the worker would not help"
        return Verdict(kind, kind == "live", reason, worker_id)
    left_ms = found.left_ms
    if left_ms is None:
        reason = f"{worker_id} holds no lease: it has none yet, or lost it while frozen or stuck"
        return Verdict(kind, False, reason, worker_id)
    if left_ms <= 0:
        reason = f"the lease of {worker_id} lapsed {-left_ms} ms ago: it is frozen, stuck or gone"
        return Verdict(kind, False, reason, worker_id, left_ms)
    if found.late:
        reason = f"{worker_id} holds its lease, but {found.late}"
        return Verdict(kind, kind == "live", reason, worker_id, left_ms)
    return Verdict(kind, True, f"{worker_id} holds its lease", worker_id, left_ms)


def _look(settings: Settings, worker_id: str, timeout_s: float) -> Seen | Away:
    def ask() -> Seen:
        with connect(settings) as client:
            script = _scripts.load("reclane/probe", allow_oom=True)
            keys = settings.keys.leases, settings.keys.worker(worker_id)
            left_ms, statistics = client.eval(script, 2, *keys, worker_id)
            return Seen(left_ms, _late(statistics))

    try:
        return _within(timeout_s, ask)
    except TimeoutError:
        return Away(f"Redis did not answer within {timeout_s:g} s")
    except redis.RedisError as error:
        away = isinstance(error, redis.ConnectionError)
        what = "Redis cannot be reached" if away else "Redis refuses"
        return Away(refusal(error) or f"{what}: {_first_line(error)}")


def read_statistics(stored: bytes | None) -> dict[str, Any]:
    """Counters and versions as a worker published them; what cannot be read says nothing."""
    try:
        value = json.loads(stored or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _late(statistics: bytes | None) -> str:
    """What a worker says is late; '' where it says nothing of it."""
    late = read_statistics(statistics).get("late")
    return late[:SHOWN_CHARACTERS] if isinstance(late, str) else ""


def _within(timeout_s: float, call: Callable[[], _T]) -> _T:
    """The whole call within `timeout_s`, looking up a host name included, or TimeoutError."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout_s)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:SHOWN_CHARACTERS]
