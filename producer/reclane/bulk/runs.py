"""Bulk runs as anyone sees them: start one, look at it, pause, resume, cancel. A few commands each.

A run is a hash in Redis. Workers take it on, a short step at a time (`reclane_worker/bulk/`); here
nobody waits for anything.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import uuid4

from pydantic import ValidationError

from reclane import _scripts, names
from reclane.bulk.spec import RunSpec
from reclane.errors import BulkError, InvalidRequest, RunConflict, UnknownRun

State: TypeAlias = Literal["running", "paused", "failed", "cancelling", "cancelled", "done"]
"""`failed` and `paused` can be resumed; `cancelling` is `cancelled` once a worker cleaned up."""

STATES: Final[tuple[State, ...]] = get_args(State)
ENDED: Final = frozenset({"failed", "cancelled", "done"})
COUNTS: Final = ("read", "bad", "unchanged", "answered", "failed", "carried")
FAILED_WITH: Final = "failed:"  # and a code: so many rows failed with it
MAX_RUNS: Final = 1_000  # that are known; the oldest are forgotten
KEPT_S: Final = 30 * 86_400  # how long an ended run is known

_START: Final = _scripts.load("reclane/bulk_start")
_MOVE: Final = _scripts.load("reclane/bulk_move", allow_oom=True)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FROM: Final[dict[State, tuple[State, ...]]] = {
    "paused": ("running",),
    "running": ("paused", "failed"),
    "cancelling": ("running", "paused", "failed"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is now. Times are seconds since the epoch.

    `counts` are of rows: `read` from the source (good ones) and `bad` ones; of those read how many
    were `unchanged` since an earlier run, `answered` and `failed`; and how many were `carried` over
    from the earlier result; `failures` are those that failed by the code that they failed with.
    `done` of `total` rows are computed; `total` is None where only reading
    them would tell. `trouble` (code, message) is why it does not go on, or not now.
    """

    id: str
    state: State
    stored_spec: str = field(repr=False)  # with its passwords
    started: float
    ended: float | None
    total: int | None
    done: int
    counts: dict[str, int]
    trouble: tuple[str, str] | None
    read_whole: bool
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def spec(self) -> RunSpec:
        """What it reads and where it writes.

        Raises:
            BulkError: another release wrote it, which this one cannot read.
        """
        return read_spec(self.stored_spec)

    @property
    def why(self) -> str:
        """The trouble as a person reads it; '' where there is none."""
        return f"{self.trouble[1]} [{self.trouble[0]}]" if self.trouble else ""

    @property
    def over(self) -> bool:
        """Whether it will not change any more, unless somebody resumes it."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that made no request: where it stands, and why."""

    place: str
    reason: str


def read_spec(stored: str) -> RunSpec:
    """The spec of a run that has begun.

    Raises:
        BulkError: another release wrote it, which this one cannot read.
    """
    try:
        return RunSpec.model_validate_json(stored)
    except ValidationError:  # its words may quote a password
        raise BulkError("another release of reclane began this run; use that one") from None


def new_id() -> str:
    """An id for a run that nobody names: when, and something random."""
    return time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + uuid4().hex[:6]


def check_id(run_id: str) -> None:
    """Raises:
    InvalidRequest: it is no id of a run.
    """
    if not isinstance(run_id, str) or not _ID.fullmatch(run_id):
        raise InvalidRequest("a run's id has up to 64 letters, digits, _ and -")


def start(client: Any, keys: names.Keys, run_id: str, spec: RunSpec) -> bool:
    """Begin a run; False where one of this id has begun before, which does nothing.

    Raises:
        InvalidRequest: the id cannot be one.
        RunConflict: another run writes to the same output.
    """
    check_id(run_id)
    output = spec.output()
    reply = client.eval(
        _START,
        4,
        *(keys.bulk_run(run_id), keys.bulk_runs, keys.bulk_due, keys.bulk_output(output)),
        *(run_id, spec.model_dump_json(), output, keys.bulk_woken),
        *(MAX_RUNS, keys.bulk_run("")),
    )
    if reply[0] < 0:
        raise RunConflict(
            f"run {reply[1].decode()} writes to the same output; wait for it, or cancel it"
        )
    return bool(reply[0])


def read(client: Any, keys: names.Keys, run_id: str) -> Run:
    """Raises:
    UnknownRun: there is none of this id.
    """
    check_id(run_id)
    return _run(run_id, client.hgetall(keys.bulk_run(run_id)))


def known(client: Any, keys: names.Keys, limit: int = MAX_RUNS) -> list[Run]:
    """Runs, newest first; those that ended long ago are forgotten."""
    ids = [i.decode() for i in reversed(client.zrange(keys.bulk_runs, -limit, -1))]
    with client.pipeline(transaction=False) as pipe:
        for run_id in ids:
            pipe.hgetall(keys.bulk_run(run_id))
        found = pipe.execute()
    return [_run(run_id, one) for run_id, one in zip(ids, found, strict=True) if one]


def bad_rows(client: Any, keys: names.Keys, run_id: str) -> list[Bad]:
    """The first rows that made no request, a hundred at most."""
    return [Bad(*json.loads(one)) for one in client.lrange(keys.bulk_bad(run_id), 0, -1)]


def pause(client: Any, keys: names.Keys, run_id: str) -> None:
    """Send nothing more; what is under way is finished and written.

    Raises:
        UnknownRun, RunConflict: there is no such run, or it does not run.
    """
    _move(client, keys, run_id, "paused")


def resume(client: Any, keys: names.Keys, run_id: str) -> None:
    """Go on with a run that was paused or failed, where it stood.

    Raises:
        UnknownRun, RunConflict: there is no such run, it is over, or its output is another's.
    """
    _move(client, keys, run_id, "running")


def cancel(client: Any, keys: names.Keys, run_id: str) -> None:
    """Give a run up; the earlier result stays as it was where the sink shows runs as a whole.

    Raises:
        UnknownRun, RunConflict: there is no such run, or it is over.
    """
    _move(client, keys, run_id, "cancelling")


def _move(client: Any, keys: names.Keys, run_id: str, state: State) -> None:
    check_id(run_id)
    # As it was when the run began: another release, or folder, might name it differently.
    output = client.hget(keys.bulk_run(run_id), "output")
    if output is None:
        raise _unknown(run_id)
    reply = client.eval(
        _MOVE,
        6,
        *(keys.bulk_run(run_id), keys.bulk_due, keys.bulk_output(output.decode())),
        *(keys.bulk_chunks(run_id), keys.bulk_parts(run_id), keys.bulk_bad(run_id)),
        *(run_id, state, keys.bulk_woken, keys.bulk_run(""), *_FROM[state]),
    )
    if reply[0] > 0:
        return
    said = reply[1].decode()
    if reply[0] < 0:
        other = f"run {said} writes" if said else "a newer run has written"
        raise RunConflict(f"{other} to the same output; start a new run instead")
    if not said:
        raise _unknown(run_id)
    allowed = " or ".join(_FROM[state])
    raise RunConflict(f"run {run_id} is {said}; only one that is {allowed} can become {state}")


def watch(client: Any, keys: names.Keys, run_id: str, every_s: float) -> Iterator[Run]:
    """The run again and again, until it is over."""
    while True:
        run = read(client, keys, run_id)
        yield run
        if run.over:
            return
        time.sleep(every_s)


def _run(run_id: str, stored: dict[bytes, bytes]) -> Run:
    if not stored:
        raise _unknown(run_id)
    text = {name.decode(): value.decode() for name, value in stored.items()}
    trouble = json.loads(text["trouble"]) if "trouble" in text else None
    state = text["state"]
    assert state in STATES
    return Run(
        id=run_id,
        state=state,
        stored_spec=text["spec"],
        started=int(text["started"]) / 1e3,
        ended=int(text["ended"]) / 1e3 if "ended" in text else None,
        total=int(text["total"]) if "total" in text else None,
        done=int(text.get("done", 0)),
        counts={name: int(text.get(name, 0)) for name in COUNTS},
        trouble=(trouble[0], trouble[1]) if trouble else None,
        read_whole="exhausted" in text,
        failures={
            name.removeprefix(FAILED_WITH): int(count)
            for name, count in sorted(text.items())
            if name.startswith(FAILED_WITH)
        },
    )


def shown_failures(failures: Mapping[str, int]) -> str:
    """`unknown_user 3, empty_query 1`, the most frequent code first."""
    by_count = sorted(failures.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{code} {count:,}" for code, count in by_count)


def _unknown(run_id: str) -> UnknownRun:
    return UnknownRun(f"there is no run {run_id}; `reclane bulk status` lists those there are")
