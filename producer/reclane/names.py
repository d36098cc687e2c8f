"""Every task, queue, channel and Redis key name. Nothing else may spell one.

Task and queue names are a public promise: other services enqueue to them.
"""

from typing import Final

# Tasks
RECOMMEND: Final = "reclane.recommend"

# Queues: the lane takes from LANE_QUEUES in this order, Celery itself from TASKS_QUEUE.
INTERACTIVE_QUEUE: Final = "reclane.interactive"
BULK_QUEUE: Final = "reclane.bulk"
TASKS_QUEUE: Final = "reclane.tasks"
LANE_QUEUES: Final = (INTERACTIVE_QUEUE, BULK_QUEUE)

# kombu keeps a priority queue as one Redis list per step, 0 served first
# (kombu.transport.redis: priority_steps, sep, _q_for_pri).
PRIORITY_STEPS: Final = (0, 3, 6, 9)
_PRIORITY_SEPARATOR: Final = "\x06\x16"

# The lane's own keys
LEASES: Final = "reclane:leases"  # ZSET worker id -> lease end, ms of Redis's clock
INCARNATIONS: Final = "reclane:incarnations"  # counter: an incarnation is never reused
SCHEDULED: Final = "reclane:scheduled"  # ZSET origin + message -> due, ms
ATTEMPTS: Final = "reclane:attempts"  # HASH message digest -> crashes while started
DEAD_LETTERS: Final = "reclane:dead-letters"  # LIST, newest first, bounded

_NOTIFY_PREFIX: Final = "reclane:notify:"
_RESULT_PREFIX: Final = "celery-task-meta-"  # celery.backends.base: task_keyprefix


def priority_list(queue: str, priority: int = 0) -> str:
    """The Redis list that kombu uses for `queue` at `priority` (0 to 9, 0 served first)."""
    step = max(s for s in PRIORITY_STEPS if s <= max(0, min(9, priority)))
    return f"{queue}{_PRIORITY_SEPARATOR}{step}" if step else queue


def lane_lists() -> tuple[str, ...]:
    """Every list the lane takes from, in the order it takes: queue first, then priority."""
    return tuple(priority_list(q, step) for q in LANE_QUEUES for step in PRIORITY_STEPS)


def result_key(task_id: str) -> str:
    """Key of a stored result; also the channel on which Celery publishes it."""
    return _RESULT_PREFIX + task_id


def notify_channel(client_id: str) -> str:
    """Channel that tells one reclane client which of its ids are done (ids, one a line)."""
    return _NOTIFY_PREFIX + client_id


def is_notify_channel(reply_to: str) -> bool:
    """Whether a message's `reply_to` asks for reclane's grouped notification."""
    return reply_to.startswith(_NOTIFY_PREFIX)


def inflight_key(worker_id: str) -> str:
    """HASH incarnation:batch:i -> origin list + message of what a worker holds."""
    return f"reclane:inflight:{worker_id}"


def worker_key(worker_id: str) -> str:
    """HASH with a worker's incarnation, last leased batch, started fields and statistics."""
    return f"reclane:worker:{worker_id}"


def enqueue_key(call_id: str) -> str:
    """Marks an enqueue call as done, so that repeating it after a lost reply does nothing."""
    return f"reclane:enqueued:{call_id}"
