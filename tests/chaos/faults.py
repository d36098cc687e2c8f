"""The faults. One more is one function and one row of the table."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from chaos.crew import patiently
from chaos.fleet import Fleet, Slot
from proxy import Proxy
from reclane import names
from reclane.embedded import EmbeddedServer
from reclane.settings import Settings

SLOWEST_REPLY_S: Final = 0.5
DELAYED_S: Final = 3.0
SILENT_S: Final = 3.0
KEYS: Final = names.Keys()
MARKERS: Final = {
    "lease": KEYS.incarnations.encode(),
    "commit": KEYS.dead_letters.encode(),
    "enqueue": KEYS.admission("").encode(),
    "whatever comes next": b"",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """What faults can strike. `pause` waits so many seconds, or until the run is stopped."""

    server: EmbeddedServer
    fleet: Fleet
    producers: Proxy
    """The producers' way to Redis."""
    admin: Any
    """A connection of our own."""
    settings: Settings
    lease_s: float
    pause: Callable[[float], object]


Strike = Callable[[Stage, Slot, float], str]
"""Strikes at a worker and heals; `chance` (0 to 1) is drawn for it. Returns what it did."""


def sigkill(stage: Stage, slot: Slot, chance: float) -> str:
    stage.fleet.end(slot, signal.SIGKILL)
    return ""


def sigterm(stage: Stage, slot: Slot, chance: float) -> str:
    stage.fleet.end(slot, signal.SIGTERM)
    return ""


def freeze(stage: Stage, slot: Slot, chance: float) -> str:
    """SIGSTOP until others have taken over, then SIGCONT."""
    assert slot.process is not None
    frozen_s = stage.lease_s * (1.5 + chance)
    slot.disturb()
    slot.process.signal(signal.SIGSTOP)
    stage.pause(frozen_s)
    slot.process.signal(signal.SIGCONT)
    slot.disturb(0.0)
    return f"for {frozen_s:.1f} s"


def freeze_and_kill(stage: Stage, slot: Slot, chance: float) -> str:
    """SIGSTOP, then SIGKILL a moment later: what it was just handed is in nobody's hands."""
    assert slot.process is not None
    slot.disturb()
    slot.process.signal(signal.SIGSTOP)
    stage.pause(chance)
    stage.fleet.end(slot, signal.SIGKILL)
    return f"{chance:.1f} s later"


def crash_redis(stage: Stage, slot: Slot, chance: float) -> str:
    """SIGKILL, and a restart on the same data."""
    for one in stage.fleet.slots:
        one.disturb()
    stage.server.kill()
    stage.pause(chance)
    stage.server.start()
    _disturb_running(stage)
    return f"for {chance:.1f} s"


def kill_clients(stage: Stage, slot: Slot, chance: float) -> str:
    return _kill(stage, "normal")


def kill_subscribers(stage: Stage, slot: Slot, chance: float) -> str:
    return _kill(stage, "pubsub")


def slow_replies(stage: Stage, slot: Slot, chance: float) -> str:
    delay_s = chance * SLOWEST_REPLY_S
    slot.disturb()
    slot.proxy.delay_s = delay_s
    stage.pause(DELAYED_S)
    slot.proxy.delay_s = 0.0
    slot.disturb(DELAYED_S)  # what was held back still arrives one by one
    return f"{delay_s:.2f} s each"


def lost_reply(stage: Stage, slot: Slot, chance: float) -> str:
    """The server executes a call, nobody hears, the connection is gone."""
    name = list(MARKERS)[int(chance * len(MARKERS))]
    proxy = stage.producers if name == "enqueue" else slot.proxy
    proxy.cut_reply_to(MARKERS[name])
    slot.disturb(0.0)
    return f"to {name}"


def half_open(stage: Stage, slot: Slot, chance: float) -> str:
    """Connections stay open and dead, new ones no better, until the other side gives up."""
    slot.disturb()
    slot.proxy.silent = True
    stage.pause(SILENT_S)
    slot.proxy.silent = False
    slot.disturb(2 * stage.settings.socket_timeout_s)
    return f"for {SILENT_S:.1f} s"


@dataclass(frozen=True, slots=True)
class Fault:
    """`weight` is how often it strikes in a round. `ends` says that the process is lost: the first
    worker is spared such faults, so that one grows old."""

    strike: Strike
    weight: int
    ends: bool = False


LANE_FAULTS: Final = {
    "SIGKILL": Fault(sigkill, 6, ends=True),
    "SIGTERM": Fault(sigterm, 1, ends=True),
    "SIGSTOP, SIGCONT": Fault(freeze, 1),
    "SIGSTOP, SIGKILL": Fault(freeze_and_kill, 1, ends=True),
    "Redis SIGKILL": Fault(crash_redis, 1),
    "CLIENT KILL normal": Fault(kill_clients, 1),
    "CLIENT KILL pubsub": Fault(kill_subscribers, 1),
    "slow replies": Fault(slow_replies, 1),
    "lost reply": Fault(lost_reply, 2),
    "half-open": Fault(half_open, 1),
}
STOCK_FAULTS: Final = {
    "SIGKILL": Fault(sigkill, 6, ends=True),
    "SIGSTOP, SIGKILL": Fault(freeze_and_kill, 4, ends=True),
}


def _kill(stage: Stage, kind: str) -> str:
    killed = patiently(
        lambda: stage.admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    )
    _disturb_running(stage)
    return f"{killed} connections"


def _disturb_running(stage: Stage) -> None:
    for slot in stage.fleet.slots:
        if slot.process is not None and slot.struck is None:
            slot.disturb(0.0)
