"""Worker processes and the supervisor that starts the next where one ended."""

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from chaos.crew import Crew
from chaos.recovery import Clock
from proxy import Proxy
from reclane import ReclaneError
from reclane_worker.local import WorkerProcess

LOOK_S: Final = 0.2
WAIT_S: Final = 60.0
ORDERLY: Final = "exit code 0"
DID_NOT_START: Final = "did not start"


class Slot:
    """A place for one worker at a time, with a way to Redis of its own."""

    def __init__(self, number: int, proxy: Proxy, clock: Clock) -> None:
        self.number = number
        self.proxy = proxy
        self.worker_id = ""
        self.steady_since: float | None = None
        self.struck: signal.Signals | None = None  # what ends it on purpose
        self.process: WorkerProcess | None = None
        self._clock = clock

    def disturb(self, after_s: float | None = None) -> None:
        """It can do nothing from now on; with `after_s` it can again so many seconds later."""
        self.steady_since = None if after_s is None else self._clock.now + after_s


class Fleet:
    """Workers, each supervised by a thread."""

    def __init__(
        self,
        slots: list[Slot],
        make: Callable[[Slot], WorkerProcess],
        identify: Callable[[int], str],
        lost: Callable[[str], None],
        crew: Crew,
    ) -> None:
        self.slots = slots
        self.ends: Counter[str] = Counter()
        """Exit codes, those of our SIGKILLs left out."""
        self._make = make
        self._identify = identify
        self._lost = lost
        self._crew = crew
        self._making = threading.Lock()

    def supervise(self, slot: Slot) -> None:
        while not self._crew.stopping.is_set():
            with self._making:
                process = self._make(slot)
            try:
                process.start()
            except ReclaneError:
                self.ends[DID_NOT_START] += 1
                continue
            slot.worker_id = self._identify(process.pid)
            slot.struck = None
            slot.disturb(0.0)
            slot.process = process
            self._until_it_ends(slot, process)

    def _until_it_ends(self, slot: Slot, process: WorkerProcess) -> None:
        while not self._crew.stopping.is_set():
            try:
                code = process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                continue
            slot.process = None
            slot.disturb()
            if slot.struck != signal.SIGKILL:
                self.ends[f"exit code {code}"] += 1
                if code != 0:
                    self._lost(slot.worker_id)
            return

    def running(self, slot: Slot) -> Slot:
        """That slot if a worker runs there, else the next one that has one, the first excepted."""
        order = [slot, *(s for s in self.slots[1:] if s is not slot)]
        give_up = time.monotonic() + WAIT_S
        while time.monotonic() < give_up and not self._crew.stopping.is_set():
            for one in order:
                if one.process is not None and not one.struck:
                    return one
            self._crew.stopping.wait(LOOK_S)
        raise TimeoutError("no worker is running")

    def end(self, slot: Slot, how: signal.Signals) -> None:
        """End it by a signal; what a killed one held is followed from now on."""
        assert slot.process is not None
        slot.struck = how
        slot.disturb()
        slot.process.signal(how)
        if how == signal.SIGKILL:
            self._lost(slot.worker_id)

    def fell(self) -> bool:
        """Whether one ended by itself, or did not start or stop as it should."""
        return bool(set(self.ends) - {ORDERLY})

    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self.slots if slot.process is not None]

    def stop(self) -> None:
        """Warm shutdown of all that is left, once nobody supervises; counts their exit codes."""
        left = [slot.process for slot in self.slots if slot.process is not None]
        for process in left:
            process.signal(signal.SIGTERM)
        for process in left:
            try:
                self.ends[f"exit code {process.wait(WAIT_S)}"] += 1
            except subprocess.TimeoutExpired:
                process.kill()
                self.ends["did not stop"] += 1
