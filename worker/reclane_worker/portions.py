"""Bulk that is leased and not prepared yet, a portion at a time. Pure.

A chunk of some hundred requests takes tens of milliseconds to read and tokenise. An interactive
request that comes meanwhile waits for a portion of it at most.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from reclane_worker.preparing import Prepared
from reclane_worker.triage import Job

PORTION: Final = 4_000  # letters, some 5 ms
_EACH: Final = 40  # what a request costs beside its text, in letters


class Portions:
    """Jobs that wait to be prepared, and those of them that are, until all are."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._prepared: list[tuple[Job, Prepared]] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._prepared)

    def add(self, jobs: Iterable[Job]) -> None:
        self._waiting.extend(jobs)

    def take(self) -> list[Job]:
        """The next portion, one job at least while there is any."""
        portion: list[Job] = []
        left = PORTION
        while self._waiting and left > 0:
            job = self._waiting.popleft()
            left -= _EACH + len(job.request.query or "")
            portion.append(job)
        return portion

    def put(self, prepared: Iterable[tuple[Job, Prepared]]) -> None:
        self._prepared.extend(prepared)

    def whole(self) -> list[tuple[Job, Prepared]]:
        """All that was prepared, once nothing waits any more; nothing before."""
        if self._waiting:
            return []
        prepared, self._prepared = self._prepared, []
        return prepared

    def clear(self) -> None:
        self._waiting.clear()
        self._prepared.clear()
