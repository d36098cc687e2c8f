"""What is put under faults: the lane, and stock Celery beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chaos.faults import LANE_FAULTS, STOCK_FAULTS, Fault
from parity import ALL_QUEUES, StockWorker
from reclane_worker.local import WorkerProcess

PACED: Final = "chaos.paced_worker"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of worker, and the faults that strike it."""

    title: str
    faults: Mapping[str, Fault]
    app: str
    process: type[WorkerProcess]
    settings: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()

    @property
    def stock(self) -> bool:
        return self.process is StockWorker

    def weights(self) -> dict[str, int]:
        return {name: fault.weight for name, fault in self.faults.items()}


def _stock(title: str, app: str) -> Kind:
    settings = {"RECLANE_LANE": "false"}
    return Kind(title, STOCK_FAULTS, app, StockWorker, settings, ("-Q", ALL_QUEUES))


LANE: Final = Kind("reclane's lane", LANE_FAULTS, PACED, WorkerProcess)
STOCK: Final = (
    _stock("stock Celery", PACED),
    _stock("stock Celery, acks_late, visibility_timeout 5 s", "chaos.late_worker"),
)
