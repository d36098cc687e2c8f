"""Remote control of the lane: Celery's own commands, told about the lane's requests and queues.

`celery inspect active`, Flower and whoever else speaks to Celery workers need not know that there
is a lane. Each command runs Celery's own first or instead, in the thread of Celery's consumer.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from celery import signals
from celery.utils.functional import maybe_list
from celery.worker.control import Panel, ok

from reclane import names
from reclane_worker.celery_side.events import TaskEvents
from reclane_worker.celery_side.holdings import Holdings
from reclane_worker.following import Following
from reclane_worker.loop import LaneLoop

Command = Callable[..., Any]

_ALIASES: Final = {
    "active": "dump_active",
    "reserved": "dump_reserved",
    "scheduled": "dump_schedule",
}


class Remote:
    """The lane's part in remote control and heartbeats, from `install` until `remove`."""

    def __init__(
        self, loop: LaneLoop, following: Following, holdings: Holdings, events: TaskEvents
    ) -> None:
        self._loop = loop
        self._following = following
        self._holdings = holdings
        self._events = events
        self._celery: dict[str, Command] = {}

    def install(self) -> None:
        """Stand in for Celery's commands; before its consumer starts."""
        for name in (
            *("active", "reserved", "scheduled", "query_task", "stats"),
            *("active_queues", "add_consumer", "cancel_consumer", "shutdown"),
        ):
            for alias in filter(None, (name, _ALIASES.get(name))):
                self._celery[alias] = Panel.data[alias]
                Panel.data[alias] = getattr(self, name)
        signals.heartbeat_sent.connect(self._count_in)

    def remove(self) -> None:
        """Give Celery its commands back."""
        signals.heartbeat_sent.disconnect(self._count_in)
        Panel.data.update(self._celery)
        self._celery.clear()
        self._holdings.close()

    # ---- what there is

    def active(self, state: Any, **options: Any) -> list[Any]:
        return [*self._celery["active"](state, **options), *self._holdings.active()]

    def reserved(self, state: Any, **options: Any) -> list[Any]:
        return [*self._celery["reserved"](state, **options), *self._holdings.reserved()]

    def scheduled(self, state: Any, **options: Any) -> list[Any]:
        return [*self._celery["scheduled"](state, **options), *self._holdings.scheduled()]

    def query_task(self, state: Any, ids: Any, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._celery["query_task"](state, ids, **options)
        return found | self._holdings.find(maybe_list(ids))

    def stats(self, state: Any, **options: Any) -> dict[str, Any]:
        """Celery's, the lane's requests counted in, and the lane's own counters."""
        found: dict[str, Any] = self._celery["stats"](state, **options)
        totals = self._loop.totals
        if totals.accepted:
            ours = {names.RECOMMEND: totals.accepted - totals.chunks}
            ours[names.RECOMMEND_MANY] = totals.chunks
            found["total"] = Counter(found["total"]) + Counter(ours)
        found["reclane"] = {"queues": self._loop.queues, "events_dropped": self._events.dropped}
        found["reclane"] |= self._loop.counters() | self._following.told()
        return found

    # ---- queues

    def active_queues(self, state: Any, **options: Any) -> list[Any]:
        make = state.consumer.app.amqp.queues.new_missing
        lane = [dict(make(queue).as_dict(recurse=True)) for queue in self._loop.queues]
        return [*self._celery["active_queues"](state, **options), *lane]

    def add_consumer(self, state: Any, queue: str, **options: Any) -> Any:
        """Take from a lane queue again. Celery itself must not: it would go past the lane."""
        if queue not in names.LANE_QUEUES:
            return self._celery["add_consumer"](state, queue, **options)
        self._loop.take(queue, True)
        return ok(f"add consumer {queue}")

    def cancel_consumer(self, state: Any, queue: str, **options: Any) -> Any:
        if queue not in names.LANE_QUEUES:
            return self._celery["cancel_consumer"](state, queue, **options)
        self._loop.take(queue, False)
        return ok(f"no longer consuming from {queue}")

    # ---- the worker

    def shutdown(self, state: Any, **options: Any) -> Any:
        """Celery stops its own consumer first, which takes seconds: take no more work meanwhile."""
        self._loop.begin_drain()
        return self._celery["shutdown"](state, **options)

    def _count_in(self, sender: Any, **_: Any) -> None:
        """Heartbeats say how many tasks are active and were processed: the lane's, too."""
        if not isinstance(sender.eventer, _Counting):
            sender.eventer = _Counting(sender.eventer, self._loop)


class _Counting:
    """A heartbeat's way to the event channel, with the lane's counts added."""

    def __init__(self, eventer: Any, loop: LaneLoop) -> None:
        self._eventer = eventer
        self._loop = loop

    def send(self, kind: str, **fields: Any) -> Any:
        fields["active"] = fields.get("active", 0) + len(self._loop.running())
        fields["processed"] = fields.get("processed", 0) + self._loop.totals.accepted
        return self._eventer.send(kind, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._eventer, name)
