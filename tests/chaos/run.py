"""One run from start to verdict."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Final

from rich.console import Console

from chaos import plan, verdict
from chaos.kinds import Kind
from chaos.memory import EVERY_S
from chaos.scene import LEASE_S, RESULT_TTL_S, Scene
from proxy import Proxy
from reclane.embedded import EmbeddedServer
from support import TEST_SERVER

SERVER: Final = {"appendonly": "yes", "appendfsync": "always"}
QUIET_S: Final = 30.0  # without a new result: what is missing now will not come
LOOK_S: Final = 0.2
OLD_S: Final = 30.0  # until a worker's memory has settled


@dataclass(frozen=True, slots=True)
class Size:
    """Faults strike, and requests are sent, until there were so many of both; all in time."""

    requests: int
    rounds: int
    deadline_s: float
    workers: int = 3


def run(kind: Kind, size: Size, seed: int, console: Console) -> bool:
    """Print faults and verdict; whether what is promised was kept."""
    with ExitStack() as stack:
        folder = Path(mkdtemp(prefix="reclane-chaos-"))
        server = stack.enter_context(EmbeddedServer(SERVER, binary=TEST_SERVER))
        proxies = [stack.enter_context(Proxy(server.port)) for _ in range(1 + size.workers)]
        scene = Scene(kind, seed, server, proxies, folder)
        stack.callback(scene.close)
        kept = _Run(kind, size, seed, console, scene).run()
        if kept and not scene.fleet.fell():
            stack.callback(rmtree, folder)
        else:
            console.print(f"the workers' logs are in {folder}")
        return kept


class _Run:
    def __init__(self, kind: Kind, size: Size, seed: int, console: Console, scene: Scene) -> None:
        self._kind = kind
        self._size = size
        self._seed = seed
        self._console = console
        self._scene = scene
        self._least = size.rounds * sum(kind.weights().values())
        self._struck = 0

    def run(self) -> bool:
        scene, started = self._scene, time.monotonic()
        self._console.print(f"{self._kind.title}, seed {self._seed}: at least {self._least} faults")
        scene.start()
        scene.working.start("faults", self._strike)
        self._settle(started + self._size.deadline_s)
        scene.stop()
        seconds = time.monotonic() - started
        title = f"{self._kind.title}, seed {self._seed}, {seconds:.0f} s"
        return verdict.show(self._console, title, self._checks())

    def _strike(self) -> None:
        scene, size = self._scene, self._size
        fleet = scene.fleet
        for step in plan.draw(self._seed, self._kind.weights(), size.workers):
            if self._struck >= self._least and scene.load.sent >= size.requests:
                scene.load.enough = True
                return
            if scene.working.stopping.wait(step.gap_s):
                return
            fault = self._kind.faults[step.fault]
            spare = 1 if fault.ends else 0  # the first worker grows old
            slot = fleet.running(fleet.slots[max(spare, step.slot)])
            detail = fault.strike(scene.stage, slot, step.chance)
            self._struck += 1
            line = f"{self._struck:4} after {step.gap_s:.1f} s, worker {slot.number}: {step.fault}"
            self._console.print(f"{line}, {detail}" if detail else line)

    def _settle(self, give_up: float) -> None:
        """Wait until everything is sent, struck, answered and taken over, or nothing comes."""
        scene = self._scene
        missing, since = -1, time.monotonic()
        while not scene.working.stopping.wait(LOOK_S):
            now = time.monotonic()
            left = scene.ledger.missing()
            if left != missing or not scene.load.enough:
                missing, since = left, now
            if scene.load.enough and left == 0 and scene.recovery.open() == 0:
                return
            if now > give_up or now - since > QUIET_S:
                return

    def _checks(self) -> list[verdict.Check]:
        scene = self._scene
        struck = f"{self._struck} faults, {scene.load.sent:,} requests"
        ends = ", ".join(f"{n} {what}" for what, n in sorted(scene.fleet.ends.items()))
        requests = verdict.of_requests(scene.ledger.rows, scene.ledger.strangers)
        common = [
            verdict.Check("done within the deadline", struck, scene.load.enough),
            verdict.of_rest("failures of the harness", scene.failed()),
            verdict.Check("subscriptions of the observer", str(scene.observer.subscribed)),
            verdict.Check("other ends than by SIGKILL", ends),
        ]
        if self._kind.stock:
            ran_twice = sum(runs > 1 for runs in scene.runs().values())
            return [
                *common,
                *map(verdict.told, requests),
                verdict.Check("run more than once", f"{ran_twice:,}"),
            ]
        warm_up = int(RESULT_TTL_S / EVERY_S)
        memory = scene.memory
        return [
            *common,
            *requests,
            *verdict.of_recovery(scene.recovery.losses, LEASE_S),
            verdict.of_rest("left in Redis", scene.leftovers()),
            verdict.of_memory("used_memory a key", memory.used, warm_up),
            verdict.of_memory("used_memory_rss a key", memory.resident, warm_up),
            verdict.of_memory("oldest worker", memory.oldest_worker(), int(OLD_S / EVERY_S)),
        ]
