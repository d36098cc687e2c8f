"""Schedules of bulk runs as anyone sees them: add, pause, resume, remove, run now, give a turn.

A schedule is a hash in Redis beside RedBeat's set of when each is due. `reclane beat` gives one
its turn when it is due. A turn begins one run, whose id follows from the schedule's name and the
slot: whoever else gives the same turn begins nothing. All times are Redis's.
"""

import json
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from reclane import _scripts, names
from reclane.bulk import cron, runs
from reclane.bulk.cron import Cron
from reclane.bulk.spec import RunSpec, parse_run
from reclane.errors import (
    BulkError,
    InvalidRequest,
    RunConflict,
    ScheduleConflict,
    UnknownRun,
    UnknownSchedule,
)

MAX_SCHEDULES: Final = 1_000
LEAST_WITHIN_S: Final = 60  # a beat that takes over from a dead one may need half of it

_ADD: Final = _scripts.load("reclane/schedule_add")
_NOTE: Final = _scripts.load("reclane/schedule_note", allow_oom=True)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")  # a run's id has a moment after it


@dataclass(frozen=True, slots=True)
class Plan:
    """What a schedule is told: when to run what.

    A slot that is more than `within_s` seconds late is left out; None: none is.
    """

    cron: Cron
    spec: RunSpec
    within_s: int | None = None

    def __post_init__(self) -> None:
        if self.within_s is not None and self.within_s < LEAST_WITHIN_S:
            raise InvalidRequest(f"within: {LEAST_WITHIN_S} s is the least")

    def to_json(self) -> str:
        """With URLs in full, as `RunSpec`."""
        when = {"cron": self.cron.text, "zone": self.cron.zone, "within_s": self.within_s}
        return json.dumps({**when, "spec": self.spec.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Raises:
        InvalidRequest, ValueError, LookupError, TypeError: it was made by no `to_json`.
        """
        told = json.loads(text)
        when = cron.parse(told["cron"], told["zone"])
        return cls(when, parse_run(told["spec"]), told["within_s"])


@dataclass(frozen=True, slots=True)
class Skip:
    """A slot that began no run, and why."""

    slot: int
    reason: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it is now. `run` is the id of the last run that it began.

    Slots at or before `since` are done with: they were run or skipped, or passed before it was
    added, replaced or resumed.
    """

    name: str
    plan: Plan
    paused: bool
    since: int
    run: str | None
    skipped: Skip | None
    definition: str

    def due(self, now: float) -> int | None:
        """The slot to run now: the newest, however many were missed."""
        slot = self.plan.cron.latest(now)
        return slot if slot > self.since and not self.paused else None

    def next(self) -> int:
        """The next slot; past where no beat has come to it."""
        return self.plan.cron.next(self.since)


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of a turn: `run` was begun, or `skipped` says why not; or nothing was due.

    The next one is due in `wait_s` seconds.
    """

    wait_s: float
    run: str | None = None
    skipped: Skip | None = None


def add(client: Any, keys: names.Keys, name: str, plan: Plan, replace: bool = False) -> Schedule:
    """Begin to run by a plan, from its next slot on. One that is replaced stays paused if it was.

    Raises:
        InvalidRequest: the name cannot be one.
        ScheduleConflict: it is taken and not to be replaced, or there are too many schedules.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest("a schedule's name has up to 40 letters, digits, _ and -")
    now = int(_now(client))
    done = client.eval(
        _ADD,
        2,
        *(keys.beat_entry(name), keys.beat_schedule),
        *(plan.to_json(), now, plan.cron.next(now), int(replace), MAX_SCHEDULES),
    )
    if done == 0:
        raise ScheduleConflict(
            f"there is a schedule {name}; --replace puts this one in its place, "
            f"`reclane schedule rm {name}` removes it"
        )
    if done < 0:
        raise ScheduleConflict(f"there are {MAX_SCHEDULES} schedules, and may be no more")
    return read(client, keys, name)


def read(client: Any, keys: names.Keys, name: str) -> Schedule:
    """Raises:
    UnknownSchedule: there is none of this name.
    ScheduleConflict: what is stored cannot be read.
    """
    return _schedule(name, client.hgetall(keys.beat_entry(name)))


def known(client: Any, keys: names.Keys) -> list[Schedule]:
    """All schedules by name.

    Raises:
        ScheduleConflict: what is stored of one cannot be read.
    """
    prefix = keys.beat_entry("")
    found = [key.decode().removeprefix(prefix) for key in client.zrange(keys.beat_schedule, 0, -1)]
    with client.pipeline(transaction=False) as pipe:
        for name in sorted(found):
            pipe.hgetall(keys.beat_entry(name))
        return [
            _schedule(name, one)
            for name, one in zip(sorted(found), pipe.execute(), strict=True)
            if one
        ]


def remove(client: Any, keys: names.Keys, name: str) -> None:
    """Forget a schedule. A run that it began goes on.

    Raises:
        UnknownSchedule: there is none of this name.
    """
    with client.pipeline() as pipe:
        pipe.zrem(keys.beat_schedule, keys.beat_entry(name))
        pipe.delete(keys.beat_entry(name))
        if not any(pipe.execute()):
            raise _unknown(name)


def pause(client: Any, keys: names.Keys, name: str) -> None:
    """Begin no more runs. One that it began goes on.

    Raises:
        UnknownSchedule, ScheduleConflict: as `read`.
    """
    while not (one := read(client, keys, name)).paused:
        _note(client, keys, one, one.since, paused="1")


def resume(client: Any, keys: names.Keys, name: str) -> None:
    """Run again, from the next slot on: what passed while it was paused is not made up for.

    Raises:
        UnknownSchedule, ScheduleConflict: as `read`.
    """
    while (one := read(client, keys, name)).paused:
        _note(client, keys, one, int(_now(client)), paused="")


def run_now(client: Any, keys: names.Keys, name: str) -> str:
    """Begin a run at once, whatever the cron says, and return its id.

    Raises:
        UnknownSchedule, ScheduleConflict: as `read`.
        RunConflict: an earlier run is not over, or another writes to the same output.
    """
    schedule = read(client, keys, name)
    run_id = f"{name}-{moment(_now(client))}-now"
    _refuse_two(client, keys, schedule.run)
    if not runs.start(client, keys, run_id, schedule.plan.spec):
        raise RunConflict(f"run {run_id} began this very second")
    _note(client, keys, schedule, schedule.since, run=run_id)
    return run_id


def turn(client: Any, keys: names.Keys, name: str) -> Turn:
    """Begin the run of the slot that is due, if one is.

    Written down after the run has begun: who dies in between is followed by another turn, which
    begins nothing.

    Raises:
        UnknownSchedule, ScheduleConflict: as `read`.
    """
    schedule, now = read(client, keys, name), _now(client)
    slot = schedule.due(now)
    if slot is None:
        _note(client, keys, schedule, schedule.since)  # it was looked at: its due time is wrong
        return Turn(schedule.next() - now)
    wait_s = schedule.plan.cron.next(slot) - now
    run_id = f"{name}-{moment(slot)}"
    reason = _too_late(schedule.plan, now - slot)
    if reason is None:
        try:
            _refuse_two(client, keys, schedule.run)
            runs.start(client, keys, run_id, schedule.plan.spec)
        except (BulkError, InvalidRequest) as error:
            reason = str(error)
    if reason is None:
        _note(client, keys, schedule, slot, run=run_id)
        return Turn(wait_s, run=run_id)
    _note(client, keys, schedule, slot, skipped=json.dumps([slot, reason]))
    return Turn(wait_s, skipped=Skip(slot, reason))


def moment(seconds: float) -> str:
    """A moment as it stands in ids of runs."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def _too_late(plan: Plan, late_s: float) -> str | None:
    if plan.within_s is None or late_s <= plan.within_s:
        return None
    return f"no beat ran until {late_s:.0f} s after it; it was wanted within {plan.within_s} s"


def _refuse_two(client: Any, keys: names.Keys, run_id: str | None) -> None:
    """Raises:
    RunConflict: the run that a schedule began last is not over.
    """
    if run_id is None:
        return
    with suppress(UnknownRun):  # it was forgotten
        earlier = runs.read(client, keys, run_id)
        if not earlier.over:
            raise RunConflict(f"run {earlier.id} is still {earlier.state}")


def _note(client: Any, keys: names.Keys, one: Schedule, since: int, **fields: str) -> bool:
    flat: Iterable[str] = (text for pair in fields.items() for text in pair)
    return bool(
        client.eval(
            _NOTE,
            2,
            *(keys.beat_entry(one.name), keys.beat_schedule),
            *(one.definition, one.since, since, one.plan.cron.next(since), *flat),
        )
    )


def _now(client: Any) -> float:
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)


def _schedule(name: str, stored: dict[bytes, bytes]) -> Schedule:
    text = {field.decode(): value.decode() for field, value in stored.items()}
    if "definition" not in text:
        raise _unknown(name)
    try:
        return Schedule(
            name=name,
            plan=Plan.from_json(text["definition"]),
            paused="paused" in text,
            since=int(text["since"]),
            run=text.get("run"),
            skipped=Skip(*json.loads(text["skipped"])) if "skipped" in text else None,
            definition=text["definition"],
        )
    except (InvalidRequest, ValueError, LookupError, TypeError) as error:
        why = str(error) if isinstance(error, InvalidRequest) else type(error).__name__
        raise ScheduleConflict(
            f"schedule {name} cannot be read here ({why}); `reclane schedule rm {name}` removes "
            "it, `add --replace` puts another in its place"
        ) from None


def _unknown(name: str) -> UnknownSchedule:
    return UnknownSchedule(
        f"there is no schedule {name}; `reclane schedule list` lists those there are"
    )
