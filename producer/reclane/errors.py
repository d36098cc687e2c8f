"""One error hierarchy; every error has a stable `code` and a message that says what to do.

ReclaneError
├── InvalidRequest        the request breaks the contract; nothing was enqueued
├── RequestFailed         a worker answered with a failure (code, message, retry)
│   └── RequestRevoked    cancelled, or expired before a worker reached it
├── QueueFull             too many requests wait already; nothing was enqueued
├── DeadlineUnreachable   no worker could answer in time; nothing was enqueued
├── UnknownRequest        no request of this id waits, and no answer to it is kept
├── ResultTimeout         no answer within the caller's timeout; it may still come
├── BrokerUnavailable     Redis could not be reached
├── ClientClosed          the client was used after close(), a fork or in another event loop
├── InvalidSettings       a setting is missing or impossible
├── WireError             bytes on the queue are not a message we can read
├── UnknownLetter         no dead letter has this id
├── NotRequeueable        a dead letter cannot go back as it is
├── MissingExtra          the command needs an optional part that is not installed
├── BulkError             a bulk run cannot start or go on
│   ├── UnknownRun        no bulk run has this id
│   ├── RunConflict       the run's id or output is taken, or its state does not allow it
│   ├── UnknownSchedule   no schedule has this name
│   └── ScheduleConflict  the schedule's name is taken, there are too many, or it cannot be read
├── ModelUnusable         a model cannot be loaded under the safety rules
├── ModelRejected         a trained model is worse than the one before, and was put aside
├── RunMismatch           an earlier evaluation cannot be read, or measured something else
├── QualityFell           recommendations are worse than in an earlier evaluation
└── CatalogError
    ├── ItemsInvalid      the items file has bad rows
    ├── CatalogDamaged    a catalog folder is incomplete or altered
    ├── CatalogMismatch   a catalog was built with another model
    ├── CatalogBusy       another process changes the catalog folder now
    └── NotPublished      no catalog is published under this name, or none was before
"""


class ReclaneError(Exception):
    """Root of everything reclane raises on purpose."""

    code = "error"


class InvalidRequest(ReclaneError):
    """The request breaks the contract; nothing was enqueued."""

    code = "invalid_request"


class RequestFailed(ReclaneError):
    """A worker answered with a typed failure.

    `code` is stable, `retry` says whether sending the same request again may help.
    The argument order is part of the wire format: Celery rebuilds it by position.
    """

    def __init__(self, message: str, code: str = "failed", retry: bool = False) -> None:
        super().__init__(message, code, retry)
        self.message = message
        self.code = code
        self.retry = retry

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class RequestRevoked(RequestFailed):
    """The request was cancelled, or expired before a worker reached it."""

    def __init__(self, message: str, code: str = "revoked", retry: bool = False) -> None:
        super().__init__(message, code, retry)


class QueueFull(ReclaneError):
    """Too many requests wait already; nothing was enqueued. Try later, or add workers.

    `waiting` is how many wait, `limit` the bound (RECLANE_QUEUE_LIMIT).
    """

    code = "queue_full"

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(
            f"no room: {waiting} requests wait, limit {limit}; try later or in smaller parts, "
            "start more workers, or raise RECLANE_QUEUE_LIMIT"
        )
        self.waiting = waiting
        self.limit = limit


class DeadlineUnreachable(ReclaneError):
    """So much waits before the request that no worker could answer it by its deadline; nothing
    was enqueued. `wait_s` is the predicted wait, `deadline_s` what the request allowed.
    """

    code = "deadline_unreachable"

    def __init__(self, wait_s: float, deadline_s: float) -> None:
        super().__init__(
            f"no answer within {deadline_s:.1f} s: what waits before it takes the workers about "
            f"{wait_s:.1f} s; try later, raise deadline_s, or start more workers"
        )
        self.wait_s = wait_s
        self.deadline_s = deadline_s


class UnknownRequest(ReclaneError):
    """No request of this id waits, and no answer to it is kept.

    It was never submitted by a reclane client, or its answer was read already or outlived its
    time (RECLANE_RESULT_TTL_S), or Redis lost it.
    """

    code = "unknown_request"


class ResultTimeout(ReclaneError, TimeoutError):
    """No answer within the caller's timeout. The request stays queued; wait again or cancel."""

    code = "timeout"


class BrokerUnavailable(ReclaneError, ConnectionError):
    """Redis could not be reached."""

    code = "broker_unavailable"


class ClientClosed(ReclaneError):
    """The client was used after close(), after a fork, or in another event loop."""

    code = "client_closed"


class InvalidSettings(ReclaneError):
    """A setting is missing or impossible."""

    code = "invalid_settings"


class WireError(ReclaneError):
    """Bytes on the queue are not a message we can read; `task_id` is set where it was found."""

    code = "malformed_message"

    def __init__(self, message: str, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id


class UnknownLetter(ReclaneError):
    """No dead letter has this id: it was requeued or dropped, or never was one."""

    code = "unknown_letter"


class NotRequeueable(ReclaneError):
    """A dead letter cannot go back as it is; the message says why."""

    code = "not_requeueable"


class MissingExtra(ReclaneError):
    """The command needs an optional part that is not installed."""

    code = "missing_extra"


class BulkError(ReclaneError):
    """A bulk run cannot start or go on; see also `reclane_worker.bulk.errors`."""

    code = "bulk"


class UnknownRun(BulkError):
    """No bulk run has this id: it never started, or ended long ago and was forgotten."""

    code = "unknown_run"


class RunConflict(BulkError):
    """A bulk run's id or output is taken by another, or its state does not allow what was asked."""

    code = "run_conflict"


class UnknownSchedule(BulkError):
    """No schedule has this name: it was never added, or was removed."""

    code = "unknown_schedule"


class ScheduleConflict(BulkError):
    """A schedule's name is taken, there are too many of them, or what is stored cannot be read."""

    code = "schedule_conflict"


class ModelUnusable(ReclaneError):
    """A model cannot be loaded under the safety rules."""

    code = "model_unusable"


class ModelRejected(ReclaneError):
    """A trained model is worse than the one before, and was put aside."""

    code = "model_rejected"


class RunMismatch(ReclaneError):
    """An earlier evaluation cannot be read, or measured other requests; the message says which."""

    code = "run_mismatch"


class QualityFell(ReclaneError):
    """Recommendations are worse than in an earlier evaluation, by more than was allowed."""

    code = "quality_fell"


class CatalogError(ReclaneError):
    """A catalog cannot be built or loaded."""

    code = "catalog"


class ItemsInvalid(CatalogError):
    """The items file has bad rows; the message names their lines."""

    code = "items_invalid"


class CatalogDamaged(CatalogError):
    """A catalog folder is incomplete or altered; build it again."""

    code = "catalog_damaged"


class CatalogMismatch(CatalogError):
    """A catalog was built with another model than the one that is loaded."""

    code = "catalog_mismatch"


class CatalogBusy(CatalogError):
    """Another process changes the catalog folder now; nothing was changed."""

    code = "catalog_busy"


class NotPublished(CatalogError):
    """No catalog is published under this name, or none was before the one that is."""

    code = "not_published"
