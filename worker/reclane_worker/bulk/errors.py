"""What can be wrong with a run's source or sink.

StepFailed                a BulkError
├── SourceUnusable    the source cannot be read as the spec says: fix the spec or the data
├── SourceChanged     files were changed while a run read them: start a new run
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
