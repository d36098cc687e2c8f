"""Everything that was submitted and what was seen of it, kept outside Redis."""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final

from pydantic import ValidationError

from reclane import ReclaneError, wire
from reclane.errors import WireError

READ_AGAIN_S: Final = 30.0
"""A result that became visible is read once more after so long."""


@dataclass(slots=True)
class Row:
    """One request. `value` is the hash of the first terminal result seen, None before that."""

    accepted: bool = False
    published: int = 0
    value: int | None = None
    changed: bool = False
    """Seen with another value later, or not there any more while it should have been kept."""
    outcome: str = ""
    """Celery's state, and the code of a failure."""


class Ledger:
    """Rows by id. An id is written down before it is sent; threads may share a ledger."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._open: set[str] = set()  # no result so far
        self.strangers = 0
        """Results of ids that were never written down."""
        self._visible: deque[tuple[float, str]] = deque()  # to be read again, oldest first
        self._lock = threading.Lock()

    def write_down(self, ids: Iterable[str]) -> None:
        with self._lock:
            for one in ids:
                self.rows[one] = Row()
                self._open.add(one)

    def accept(self, ids: Iterable[str]) -> None:
        for one in ids:
            self.rows[one].accepted = True

    def published(self, task_id: str, payload: bytes, now: float) -> None:
        """A result was published. `now` is monotonic."""
        row = self.rows.get(task_id)
        if row is None:
            self.strangers += 1
            return
        row.published += 1
        self._saw(task_id, row, payload, now)

    def read(self, task_id: str, stored: bytes | None, now: float) -> None:
        """A result key was read, after everything that was published before had been taken in."""
        row = self.rows[task_id]
        if stored is not None and wire.is_terminal(stored):
            self._saw(task_id, row, stored, now)
        elif row.value is not None:
            row.changed = True

    def _saw(self, task_id: str, row: Row, payload: bytes, now: float) -> None:
        value = hash(payload)
        if row.value is None:
            with self._lock:
                self._open.discard(task_id)
            row.value = value
            row.outcome = outcome(payload)
            self._visible.append((now, task_id))
        elif row.value != value:
            row.changed = True

    def unseen(self) -> list[str]:
        """Ids without a result so far, accepted or not."""
        with self._lock:
            return list(self._open)

    def missing(self) -> int:
        """How many were accepted and have no result so far."""
        with self._lock:
            return sum(self.rows[one].accepted for one in self._open)

    def to_read_again(self, before: float, most: int) -> list[str]:
        """Ids that became visible before then (monotonic); the same until `read_again`."""
        old = takewhile(lambda one: one[0] <= before, self._visible)
        return [task_id for _, task_id in islice(old, most)]

    def read_again(self, ids: Sequence[str]) -> None:
        """The first of those ids have been read."""
        for _ in ids:
            self._visible.popleft()


def outcome(payload: bytes) -> str:
    """SUCCESS, or the state and the code of whatever else it is."""
    try:
        meta = wire.decode_result(payload)
        found = wire.outcome(meta)
    except (WireError, ValidationError):
        return "unreadable"
    return f"{meta.status} {found.code}" if isinstance(found, ReclaneError) else meta.status
