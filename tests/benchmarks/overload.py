"""`make overload`: what holds under too much work, as ratios inside one run. Some minutes.

Real weights (all-MiniLM-L6-v2) on a real server; the flood for memory runs on the stand-in model.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic_core import from_json
from rich.console import Console
from rich.table import Table

from reclane import Client, DeadlineUnreachable, RecommendRequest, names
from reclane_worker.bench.measures import quantile, quantiles, rounds
from reclane_worker.bench.sides import BESIDE_MS, KEYS, LEASE, Side, Sides

OVERLOAD = 1.5
OVERLOAD_S = 30.0
WINDOW_S = 5.0
ROUNDS = 4
FLOOD = 50_000


def main() -> None:
    table = Table("", "measured", "goal", title="overload", title_justify="left")
    console = Console(width=110)
    with TemporaryDirectory(prefix="reclane-overload-") as name, ExitStack() as stack:
        sides = Sides(stack, Path(name))
        side = sides.make()
        side.push(names.BULK_QUEUE, 500)
        side.drain()
        for part in (slices(side, sides), beside_bulk(side), flood(side), deadlines(side)):
            for row in part:
                table.add_row(*row)
                console.print(*row, sep="  ", style="dim")
        side.worker.stop()
        for row in memory(sides.make("hash:384", RECLANE_RESULT_TTL_S="5")):
            table.add_row(*row)
    console.print(table)


Rows = Iterator[tuple[str, str, str]]


def slices(side: Side, sides: Sides) -> Rows:
    """Bulk alone, in slices and without; in turns, each worker idle while the other works."""
    whole = sides.make(RECLANE_BULK_SLICE_MS="10000")
    seconds: dict[str, list[float]] = {"sliced": [], "whole": []}
    for number in range(ROUNDS + 1):
        for name, one in (("sliced", side), ("whole", whole)):
            one.push(names.BULK_QUEUE, 600)
            took = one.drain()
            if number:  # the first taught both their costs
                seconds[name].append(took)
    whole.worker.stop()
    yield "bulk alone, slices / none", rounds(seconds["whole"], seconds["sliced"]), ">= 0.90"


def beside_bulk(side: Side) -> Rows:
    """One interactive request at a time, on an idle worker and beside a backlog of bulk."""
    with Client(side.server.url) as client:
        alone = side.latencies_ms(client, 0.02, count=80)
        rates: dict[bool, list[float]] = {True: [], False: []}
        beside: list[float] = []
        _fill(side)
        for _ in range(ROUNDS):
            for busy in (False, True):
                _fill(side)
                before, started = side.left(), time.perf_counter()
                if busy:
                    beside += side.latencies_ms(client, 0.1, window_s=WINDOW_S)
                else:
                    time.sleep(WINDOW_S)
                done = before - side.left()
                rates[busy].append(done / (time.perf_counter() - started))
    yield "interactive alone", quantiles(alone), ""
    worst = quantile(alone, 0.99) + BESIDE_MS
    yield f"beside bulk ({len(beside)} requests)", quantiles(beside), f"p99 <= {worst:.0f} ms"
    yield "bulk beside interactive / alone", rounds(rates[True], rates[False]), ">= 0.90"
    side.raw.delete(*KEYS.lists(names.BULK_QUEUE))
    side.drain()


def _fill(side: Side) -> None:
    while side.left(names.BULK_QUEUE) < 8_000:
        side.push(names.BULK_QUEUE, 1_000)


def flood(side: Side) -> Rows:
    """Bulk's share of what is done while more interactive requests wait than a lease holds."""
    side.push(names.BULK_QUEUE, 1_000)
    side.push(names.INTERACTIVE_QUEUE, 2_000)
    while side.left(names.INTERACTIVE_QUEUE) > LEASE:
        time.sleep(0.01)
    interactive = 2_000 - side.left(names.INTERACTIVE_QUEUE)
    bulk = 1_000 - side.left(names.BULK_QUEUE)
    yield "bulk's share in a flood", f"{bulk / (bulk + interactive):.1%} of messages", "~ 10 %"
    side.drain()


def deadlines(side: Side) -> Rows:
    """Half more than the worker can do, each with a deadline: twice the time of a full lease."""
    deadline_s = 2 * LEASE / _capacity(side)
    yield "deadline of each request", f"{deadline_s:.1f} s", ""
    with Client(side.server.url) as client:

        def through_the_door(count: int) -> dict[str, float]:
            sent = {}
            for text in islice(side.texts, count):
                request = RecommendRequest(query=text, deadline_s=deadline_s)
                now = time.time()
                try:
                    sent[client.enqueue([request])[0]] = now + deadline_s
                except DeadlineUnreachable:
                    continue
            return sent

        def past_it(count: int) -> dict[str, float]:
            return side.push(names.INTERACTIVE_QUEUE, count, deadline_s)

        for name, send in (("past the door", past_it), ("through the door", through_the_door)):
            yield from _overloaded(side, name, send)


def _capacity(side: Side) -> float:
    """Requests per second, now."""
    side.push(names.INTERACTIVE_QUEUE, 800)
    return 800 / side.drain()


def _overloaded(side: Side, name: str, send: Callable[[int], dict[str, float]]) -> Rows:
    """So much for every request that it computes, as other work on the machine comes and goes."""
    before, offered, sent = side.told("requests"), 0, dict[str, float]()
    started = time.perf_counter()
    while time.perf_counter() - started < OVERLOAD_S:
        count = int(LEASE + OVERLOAD * (side.told("requests") - before)) - offered
        if count > 0:
            sent |= send(count)
            offered += count
        time.sleep(0.02)
    side.drain()
    done = [(at, sent[one]) for one, at in _answered(side, list(sent))]
    computed, wanted = len(done), sum(at <= expires for at, expires in done)
    share = f"{wanted / computed:.3f} of {computed} computed were wanted"
    yield f"1.5x, {name}", share, ">= 0.95"
    yield (
        f"  at {computed / OVERLOAD_S:.0f} requests/s",
        f"{offered} offered, {offered - len(sent)} refused, {wanted} in time",
        "",
    )


def _answered(side: Side, ids: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Those that were computed, and when: nobody here revokes while they run."""
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        stored = side.raw.mget([KEYS.result(one) for one in part])
        for one, raw in zip(part, stored, strict=True):
            meta = from_json(raw or b"{}")
            if meta.get("status") == "SUCCESS":
                yield one, datetime.fromisoformat(meta["date_done"]).timestamp()


def memory(side: Side) -> Rows:
    """Resident memory of a worker over a flood, after a first part that fills its caches."""
    seen = []
    for _ in range(10):
        for _ in range(FLOOD // 10 // 1_000):
            side.push(names.INTERACTIVE_QUEUE, 1_000)
        side.drain()
        seen.append(side.rss_mb())
    shown = " ".join(f"{mb:.0f}" for mb in seen)
    yield f"RSS over {FLOOD:,} messages", f"{shown} MB", "flat"


if __name__ == "__main__":
    main()
