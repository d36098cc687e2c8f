"""Everything that takes part in a run, and the threads that drive it."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from chaos.crew import Crew
from chaos.faults import Stage
from chaos.fleet import Fleet, Slot
from chaos.kinds import Kind
from chaos.ledger import Ledger
from chaos.load import ByCelery, ByClient, ByPush, Load, Sender
from chaos.memory import Memory
from chaos.observer import Observer
from chaos.recovery import Recovery, lane_id
from proxy import Proxy
from reclane._connection import connect
from reclane.embedded import EmbeddedServer
from reclane.settings import Settings
from reclane_worker.local import WorkerProcess
from support import StartWorker, build_hash_catalog

LEASE_S: Final = 2.0
RESULT_TTL_S: Final = 120  # much longer than until a result is read again
SUCCEEDED: Final = re.compile(rb"Task reclane\.recommend\[([0-9a-f-]+)\] succeeded")
SETTINGS: Final = {
    "PYTHONPATH": str(Path(__file__).parent.parent),
    "RECLANE_LEASE_MS": str(int(LEASE_S * 1e3)),
    "RECLANE_RESULT_TTL_S": str(RESULT_TTL_S),
    "RECLANE_LEASE_MESSAGES": "32",
    "RECLANE_BATCH_REQUESTS": "8",
    "RECLANE_DEVICE_THREADS": "2",
}


class Scene:
    """A server, workers behind proxies, and who watches, feeds and supervises them."""

    def __init__(
        self, kind: Kind, seed: int, server: EmbeddedServer, proxies: Sequence[Proxy], folder: Path
    ) -> None:
        self._kind = kind
        self.settings = Settings.load(redis_url=server.url)
        self.admin: Any = connect(self.settings)  # redis-py types replies loosely
        self.watching, self.working = Crew(), Crew()
        self.ledger = Ledger()
        catalog = folder / "catalog"
        build_hash_catalog(catalog)
        self._folder = folder
        self._make = StartWorker(server.url, catalog, folder, kind.process)

        producers, *ways = proxies
        self.recovery = Recovery(self.settings, self.watching)
        slots = [Slot(n, way, self.recovery.clock) for n, way in enumerate(ways)]
        identify = partial(lane_id, self.settings)
        self.fleet = Fleet(slots, self._worker, identify, self.recovery.lost, self.working)
        self.observer = Observer(self.settings, self.ledger, self.watching)
        self.memory = Memory(self.settings, self.fleet.pids, self.watching)
        senders = self._senders(seed, producers.url)
        self.load = Load(self.settings, senders, self.ledger, self.working)
        self.stage = Stage(
            server=server,
            fleet=self.fleet,
            producers=producers,
            admin=self.admin,
            settings=self.settings,
            lease_s=LEASE_S,
            pause=self.working.stopping.wait,
        )

    def _senders(self, seed: int, url: str) -> list[Sender]:
        settings = Settings.load(redis_url=url)
        random = Random(seed)
        if self._kind.stock:
            return [ByCelery(settings, random)]
        return [ByClient(settings, seed), ByPush(settings, random)]

    def _worker(self, slot: Slot) -> WorkerProcess:
        return self._make.prepare(
            {**SETTINGS, **self._kind.settings},
            url=slot.proxy.url,
            app=self._kind.app,
            arguments=self._kind.arguments,
        )

    def start(self) -> None:
        self.watching.start("observer", self.observer.watch)
        self.watching.start("recovery", partial(self.recovery.follow, self.fleet.slots))
        self.watching.start("memory", self.memory.sample)
        for slot in self.fleet.slots:
            self.working.start(f"worker {slot.number}", partial(self.fleet.supervise, slot))
        self.working.start("load", self.load.feed)

    def stop(self) -> None:
        """Drain the workers under the eyes of the observer, then end watching."""
        self.working.stop()
        self.fleet.stop()
        self.watching.stop()
        self.observer.finish()

    def close(self) -> None:
        for crew in (self.working, self.watching):
            crew.stopping.set()
        self._make.kill_all()
        self.admin.close()

    def failed(self) -> list[str]:
        """What went wrong in the harness itself."""
        return self.working.failed + self.watching.failed

    def runs(self) -> Counter[bytes]:
        """How often each request was run to its end, from the logs of stock workers."""
        logs = self._folder.glob("worker-*.log")
        return Counter(one for log in logs for one in SUCCEEDED.findall(log.read_bytes()))

    def leftovers(self) -> list[str]:
        """Keys of reclane that nobody should have left."""
        keys = self.settings.keys
        staying = {keys.incarnations, keys.dead_letters}
        found = {key.decode() for key in self.admin.scan_iter("reclane*", count=1_000)}
        return sorted(found - staying)
