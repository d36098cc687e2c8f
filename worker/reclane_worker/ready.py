"""Batches that wait for the device, and whose turn it is: interactive before bulk. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from reclane_worker.preparing import Prepared
from reclane_worker.triage import Job

FLOOR: Final = 10  # beside a flood of interactive requests, bulk gets one place of so many


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests of one class that run together."""

    jobs: list[Job]
    prepared: list[Prepared]
    bulk: bool = False

    def __len__(self) -> int:
        return len(self.jobs)


def places_kept(lease_messages: int) -> int:
    """Of a full lease, for bulk; a lease of one message keeps none."""
    return max(1, lease_messages // FLOOR) if lease_messages > 1 else 0


class Ready:
    """What is prepared and not yet on the device, each class in the order to run."""

    def __init__(self) -> None:
        self._interactive: list[Batch] = []
        self._bulk: deque[Batch] = deque()
        self._owed = 0.0  # requests of bulk that must run before more interactive ones

    def __bool__(self) -> bool:
        return bool(self._interactive or self._bulk)

    @property
    def bulk_requests(self) -> int:
        return sum(map(len, self._bulk))

    def add(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            (self._bulk if batch.bulk else self._interactive).append(batch)

    def clear(self) -> None:
        self._interactive.clear()
        self._bulk.clear()

    def interactive(self) -> list[Batch]:
        """Everything interactive; it runs now."""
        batches, self._interactive = self._interactive, []
        self._owed += sum(map(len, batches)) / FLOOR
        return batches

    def bulk(self, room: bool, beside: bool) -> Batch | None:
        """The next batch of bulk if there is room on the device, or its floor has come due; not
        while bulk is on the device, `beside` which interactive batches pass."""
        if not self._bulk:
            self._owed = min(0.0, self._owed)
        elif room or (self._owed >= 1 and not beside):
            batch = self._bulk.popleft()
            self._owed -= len(batch)
            if room:
                self._owed = max(0.0, self._owed)  # what nobody else wanted is no debt
            return batch
        return None
