"""Runs one thing on a stock Celery worker and on the lane, and compares what a client sees.

Each side has a server, a client application of somebody else's and a worker of its own. Both
workers take one message at a time, so that orders can be compared.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import redis
from celery import Celery
from celery.canvas import Signature
from celery.result import AsyncResult

from reclane import names
from reclane.embedded import EmbeddedServer
from reclane.wire import decode_message
from reclane_worker.local import WorkerProcess
from support import DEADLINE_S, StartWorker, eventually

STOCK, LANE = "stock", "lane"
KEPT, DIFFERENT, NOT_KEPT = "kept", "kept differently", "not kept"  # the README's verdicts
SPACE = {"query": "space film", "k": 3}
SLOW = {"query": "slowfault film"}
BAD = {"query": "film", "k": 0}
PLAIN = ("--concurrency", "1", "--without-mingle", "--without-gossip", "--heartbeat-interval", "1")
ALL_QUEUES = ",".join((*names.LANE_QUEUES, names.TASKS_QUEUE))

T = TypeVar("T")


class StockWorker(WorkerProcess):
    """The same app without the lane, on the lane's queues; it holds no lease."""

    def _leased(self, client: "redis.Redis") -> bool:
        return "ready." in self.log()


class Side:
    """A worker of one kind, and the stock client that observes it."""

    def __init__(self, kind: str, catalog: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.kind = kind
        self.server = EmbeddedServer()
        self.server.start()
        url = self.server.url
        self.app = Celery(f"client-of-{kind}", broker=url, backend=url, set_as_current=False)
        self.raw = redis.Redis.from_url(url)
        make = StockWorker if kind == STOCK else WorkerProcess
        self._workers = StartWorker(url, catalog, folder, make)
        self._thread = ThreadPoolExecutor(1)  # Celery keeps connections by thread
        self.worker: WorkerProcess

    def run(self, what: "Callable[[Side], T]") -> Any:
        return self._thread.submit(what, self)

    def close(self) -> None:
        self._workers.kill_all()
        self._thread.shutdown()
        gc.collect()  # a result unsubscribes when it is collected; the server must still be there
        self.app.close()
        self.raw.close()
        self.server.stop()

    # ---- the worker

    def start(
        self,
        app: str = "faulty_worker",
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        one_by_one = {"RECLANE_LEASE_MESSAGES": "1", "RECLANE_DEVICE_THREADS": "1"}
        settings = {**one_by_one, "RECLANE_RESULT_TTL_S": "600", **(environment or {})}
        more = list(PLAIN)
        if self.kind == STOCK:
            settings["RECLANE_LANE"] = "false"
            more += ["-Q", ALL_QUEUES]
        self.worker = self._workers(settings, app=app, arguments=[*more, *arguments])
        asking = self.app.control.inspect(timeout=1, limit=1)
        eventually(asking.ping, "remote control is there")  # what is broadcast before is lost

    def restart(self, **how: Any) -> int:
        """Warm shutdown and a new worker; the exit code."""
        code = self.worker.stop()
        self.start(**how)
        return code

    # ---- the client

    def send(self, *args: Any, queue: str = names.INTERACTIVE_QUEUE, **options: Any) -> AsyncResult:
        return self.app.send_task(names.RECOMMEND, args=args, queue=queue, **options)

    def step(self, *args: Any, **options: Any) -> Signature:
        """A request as a link of a canvas; it ignores what its parent returned."""
        options.setdefault("queue", names.INTERACTIVE_QUEUE)
        return self.app.signature(names.RECOMMEND, args=args, immutable=True, options=options)

    def listener(self, queue: str) -> Signature:
        """A task that no worker here takes, so that its message can be read from `queue`."""
        return self.app.signature("somebody.listens", options={"queue": queue})

    def outcome(self, result: AsyncResult) -> dict[str, Any]:
        """What becomes of a result, without what differs from run to run."""
        value = result.get(timeout=DEADLINE_S, propagate=False)
        if isinstance(value, Exception):
            return {"state": result.state, "error": type(value).__name__, "args": value.args}
        return {"state": result.state, "items": [item["id"] for item in value["items"]]}

    def meta(self, result: AsyncResult) -> dict[str, Any]:
        """What is stored of a result."""
        found: dict[str, Any] = self.app.backend.get_task_meta(result.id)
        return found

    def heard(self, queue: str) -> tuple[str, list[Any]]:
        """The message that was sent to a listener on `queue`: its task and arguments."""
        eventually(lambda: self.raw.llen(queue) == 1, f"a message on {queue}")
        raw: Any = self.raw.rpop(queue)
        message = decode_message(raw)
        return message.task, message.args

    def ask(self, command: str, *args: Any) -> Any:
        """The worker's reply to an inspect command."""
        replies = getattr(self.app.control.inspect(timeout=DEADLINE_S, limit=1), command)(*args)
        (reply,) = replies.values()
        return reply

    def tell(self, command: str, *args: Any, **arguments: Any) -> Any:
        """The worker's reply to a control command."""
        method = getattr(self.app.control, command)
        (reply,) = method(*args, reply=True, limit=1, timeout=DEADLINE_S, **arguments)
        (said,) = reply.values()
        return said

    def holding(self, command: str, *results: AsyncResult | Signature) -> bool:
        """Whether inspect `command` lists all of these."""
        shown = [one.get("request", one)["id"] for one in self.ask(command)]
        return all(result.id in shown for result in results)

    def run_slow(self, **options: Any) -> AsyncResult:
        """A request that is running now and will for a while."""
        result = self.send(SLOW, **options)
        eventually(lambda: self.holding("active", result), f"a request runs on {self.kind}")
        return result


class Sides:
    """Both sides, for one observation at a time."""

    def __init__(self, catalog: Path, folder: Path) -> None:
        self.all = [Side(STOCK, catalog, folder / STOCK), Side(LANE, catalog, folder / LANE)]

    def both(self, observe: Callable[[Side], T]) -> tuple[T, T]:
        """What is observed on the stock worker and on the lane, side by side."""
        stock, lane = [side.run(observe) for side in self.all]
        return stock.result(), lane.result()

    def same(self, observe: Callable[[Side], T]) -> T:
        """What is observed, which must be the same on both."""
        stock, lane = self.both(observe)
        assert lane == stock
        return lane

    def start(self, **how: Any) -> None:
        self.both(lambda side: side.start(**how))

    def close(self) -> None:
        for side in self.all:
            side.close()


class Watching:
    """What a monitor hears, from the moment that its channel is known to work."""

    def __init__(self, side: Side) -> None:
        self.events: list[dict[str, Any]] = []
        self._connection = side.app.connection_for_read()
        self._receiver = side.app.events.Receiver(
            self._connection, handlers={"*": self.events.append}
        )
        listen = partial(self._receiver.capture, wakeup=False)
        self._thread = Thread(target=listen, daemon=True)
        self._thread.start()

    def of(self, result: AsyncResult) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("uuid") == result.id]

    def until(self, result: AsyncResult, kind: str) -> list[dict[str, Any]]:
        """The events of a request, once the last of them has come."""
        last = f"task-{kind}"
        eventually(lambda: self.of(result) and self.of(result)[-1]["type"] == last, last)
        return self.of(result)

    def close(self) -> None:
        self._receiver.should_stop = True
        self._thread.join(DEADLINE_S)
        self._connection.close()
