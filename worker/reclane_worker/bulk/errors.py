"""What can be wrong with a run's source or sink.

StepFailed                a BulkError
├── SourceUnusable    the source cannot be read as the spec says: fix the spec or the data
├── SourceChanged     files were changed while a run read them: start a new run
├── TooManyBad        more bad rows than the run allows: mend them, or allow more
├── NothingAnswered   every request failed: mend the rows or the spec, and start a new run
├── GivenUp           workers died of a step, or failed without a known reason, again and again
├── AnswersUnreadable what stands where the answers to a chunk should cannot be read: resume
├── OtherRelease      the run was begun by a release that this worker cannot read: update it
├── NoWorker          nobody says what would answer: start a worker; the run goes on then
├── RedisFull         reclane's own Redis has no room: give it some; the run goes on then
├── SinkUnusable      the sink cannot be written as the spec says: fix the spec or the store
├── SinkFull          no room: free some and write again
└── StoreUnavailable  a database or Redis could not be reached: try again later

`retry` says whether doing the same again later may help. Messages never quote a row.
"""

from typing import ClassVar

from reclane.errors import BulkError


class StepFailed(BulkError):
    """A bulk run cannot go on, or not now."""

    retry: ClassVar[bool] = False


class SourceUnusable(StepFailed):
    """The source cannot be read as its spec says; fix the spec or the data."""

    code = "source_unusable"


class SourceChanged(StepFailed):
    """Files were changed, added or removed while a run read them; start a new run."""

    code = "source_changed"


class TooManyBad(StepFailed):
    """More bad rows than the run allows; mend them, or allow more."""

    code = "too_many_bad_rows"


class NothingAnswered(StepFailed):
    """Every request failed, and the earlier result stays; mend the rows or the spec."""

    code = "nothing_answered"


class GivenUp(StepFailed):
    """Workers died of a step, or failed without a known reason, again and again; see their logs."""

    code = "given_up"


class AnswersUnreadable(StepFailed):
    """What stands where the answers to a chunk should cannot be read; resuming sends it again."""

    code = "answers_unreadable"


class OtherRelease(StepFailed):
    """Another release began the run; update this worker, or let others take on runs."""

    code = "other_release"
    retry = True


class NoWorker(StepFailed):
    """No worker says what it answers with; start one, and the run goes on."""

    code = "no_worker"
    retry = True


class RedisFull(StepFailed):
    """reclane's own Redis has no room; give it some, and the run goes on."""

    code = "redis_full"
    retry = True


class SinkUnusable(StepFailed):
    """The sink cannot be written as its spec says; fix the spec or the store."""

    code = "sink_unusable"


class SinkFull(StepFailed):
    """The disk, the quota or Redis has no room; nothing half was left. Free some, write again."""

    code = "sink_full"
    retry = True


class StoreUnavailable(StepFailed):
    """A database or Redis could not be reached, or was busy too long; try again later."""

    code = "store_unavailable"
    retry = True
