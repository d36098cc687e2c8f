"""Every task, queue, channel and Redis key name. Nothing else may spell one.

Task and queue names are a public promise: other services enqueue to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Tasks
RECOMMEND: Final = "reclane.recommend"
RECOMMEND_MANY: Final = "reclane.recommend_many"
LANE_TASKS: Final = (RECOMMEND, RECOMMEND_MANY)
BULK_START: Final = "reclane.bulk.start"  # an ordinary task, on TASKS_QUEUE

# Queues: the lane takes from LANE_QUEUES in this order, Celery itself from TASKS_QUEUE.
INTERACTIVE_QUEUE: Final = "reclane.interactive"
BULK_QUEUE: Final = "reclane.bulk"
TASKS_QUEUE: Final = "reclane.tasks"
LANE_QUEUES: Final = (INTERACTIVE_QUEUE, BULK_QUEUE)

# kombu keeps a priority queue as one Redis list per step, 0 served first
# (kombu.transport.redis: priority_steps, sep, _q_for_pri).
PRIORITY_STEPS: Final = (0, 3, 6, 9)
_PRIORITY_SEPARATOR: Final = "\x06\x16"

_NOTIFY_PREFIX: Final = "reclane:notify:"
_RESULT_PREFIX: Final = "celery-task-meta-"  # celery.backends.base: task_keyprefix


def priority_list(queue: str, priority: int = 0) -> str:
    """The list that kombu uses for `queue` at `priority` (0 to 9, 0 served first), unprefixed."""
    step = max(s for s in PRIORITY_STEPS if s <= max(0, min(9, priority)))
    return f"{queue}{_PRIORITY_SEPARATOR}{step}" if step else queue


def queue_of(origin: str) -> str:
    """The queue that a list, unprefixed, is one of."""
    return origin.partition(_PRIORITY_SEPARATOR)[0]


def is_bulk(origin: str) -> bool:
    """Whether a list, unprefixed, is one of the bulk queue's."""
    return queue_of(origin) == BULK_QUEUE


def notify_channel(client_id: str) -> str:
    """The `reply_to` that asks for one message with many ids, one a line, on this channel."""
    return _NOTIFY_PREFIX + client_id


def is_notify_channel(reply_to: str) -> bool:
    """Whether a message's `reply_to` asks for reclane's grouped notification."""
    return reply_to.startswith(_NOTIFY_PREFIX)


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys and channels as they are on the server, each under `prefix`.

    Celery's `global_keyprefix` (broker and result backend) set to the same prefix meets them.
    """

    prefix: str = ""

    @property
    def leases(self) -> str:
        """ZSET worker id -> lease end, ms of Redis's clock."""
        return self.prefix + "reclane:leases"

    @property
    def incarnations(self) -> str:
        """Counter: an incarnation is never reused."""
        return self.prefix + "reclane:incarnations"

    @property
    def scheduled(self) -> str:
        """ZSET origin + message -> due, ms."""
        return self.prefix + "reclane:scheduled"

    @property
    def attempts(self) -> str:
        """HASH message digest -> crashes while started."""
        return self.prefix + "reclane:attempts"

    @property
    def pace(self) -> str:
        """HASH worker id -> requests per second that it achieves when busy."""
        return self.prefix + "reclane:pace"

    @property
    def dead_letters(self) -> str:
        """LIST, newest first, bounded."""
        return self.prefix + "reclane:dead-letters"

    @property
    def catalogs(self) -> str:
        """HASH catalog name -> what is published, JSON; see `publishing.py`."""
        return self.prefix + "reclane:catalogs"

    @property
    def catalogs_changed(self) -> str:
        """Channel on which workers hear that another version was published."""
        return self.channel(notify_channel("catalogs"))

    def inflight(self, worker_id: str) -> str:
        """HASH incarnation:batch:i -> origin list + message of what a worker holds."""
        return f"{self.prefix}reclane:inflight:{worker_id}"

    def worker(self, worker_id: str) -> str:
        """HASH with a worker's incarnation, last leased batch, started fields and statistics."""
        return f"{self.prefix}reclane:worker:{worker_id}"

    def admission(self, call_id: str) -> str:
        """Marks a submission of several calls as admitted by its first, for the later ones."""
        return f"{self.prefix}reclane:admission:{call_id}"

    @property
    def bulk_runs(self) -> str:
        """ZSET run id -> started, ms: bulk runs that are known, bounded."""
        return self.prefix + "reclane:bulk:runs"

    @property
    def bulk_due(self) -> str:
        """ZSET run id -> when some worker may take it on, ms; a lease's end while one has it."""
        return self.prefix + "reclane:bulk:due"

    @property
    def bulk_woken(self) -> str:
        """Channel on which waiting workers hear that a run is due."""
        return self.channel(notify_channel("bulk"))

    def bulk_run(self, run_id: str) -> str:
        """HASH of all that a run is and has become; see `bulk/runs.py`."""
        return f"{self.prefix}reclane:bulk:run:{run_id}"

    def bulk_chunks(self, run_id: str) -> str:
        """HASH number -> chunk that was sent and not written yet, JSON."""
        return f"{self.prefix}reclane:bulk:chunks:{run_id}"

    def bulk_parts(self, run_id: str) -> str:
        """LIST of what the sink says of each part that it wrote, JSON."""
        return f"{self.prefix}reclane:bulk:parts:{run_id}"

    def bulk_bad(self, run_id: str) -> str:
        """LIST of the first rows that made no request, JSON."""
        return f"{self.prefix}reclane:bulk:bad:{run_id}"

    def bulk_output(self, output: str) -> str:
        """HASH of one output: who writes there now, when the last run that was done started."""
        return f"{self.prefix}reclane:bulk:output:{output}"

    def beat_entry(self, name: str) -> str:
        """HASH of all that a schedule is and has become; see `bulk/schedules.py`."""
        return f"{self.prefix}reclane:beat:{name}"

    @property
    def beat_schedule(self) -> str:
        """ZSET entry key -> when it is due, s; -1 while it is paused. RedBeat's name for it."""
        return self.beat_entry(":schedule")

    @property
    def beat_lock(self) -> str:
        """Held by the beat that works, while others wait. RedBeat's name for it."""
        return self.beat_entry(":lock")

    def result(self, task_id: str) -> str:
        """A stored result; also the channel on which it is published, as Celery does."""
        return f"{self.prefix}{_RESULT_PREFIX}{task_id}"

    def channel(self, reply_to: str) -> str:
        """The channel that a message's `reply_to` names."""
        return self.prefix + reply_to

    def list(self, queue: str, priority: int = 0) -> str:
        """The list that holds `queue` at `priority`."""
        return self.prefix + priority_list(queue, priority)

    def lists(self, queue: str) -> tuple[str, ...]:
        """Every list of a queue, the one served first at the front."""
        return tuple(self.list(queue, step) for step in PRIORITY_STEPS)

    def lane_lists(self, queues: Sequence[str] = LANE_QUEUES) -> tuple[str, ...]:
        """The lists of these lane queues in the order it takes: queue first, then priority."""
        return tuple(key for queue in queues for key in self.lists(queue))

    def served_before(self, queue: str, priority: int = 0) -> tuple[str, ...]:
        """The lists whose messages are served before a new one of `queue`, its own included."""
        lists = self.lane_lists(LANE_QUEUES if queue in LANE_QUEUES else (queue,))
        return lists[: lists.index(self.list(queue, priority)) + 1]
