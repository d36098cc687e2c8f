"""Judges queues, workers and what was left behind. Pure: facts in, findings out."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from reclane import __version__, contract, names
from reclane.operations.facts import LaneFacts
from reclane.operations.findings import Finding, Level, ok, problem, unknown, warning
from reclane.operations.queues import Overview, WorkerState

AREA: Final = "lane"
MAX_DEAD_LETTERS: Final = 10_000  # reclane_worker.lane keeps no more
FILLING: Final = 0.80
START_ONE: Final = "start a worker: `reclane worker`"


def judge_lane(facts: LaneFacts, keys: names.Keys, queue_limit: int) -> Iterator[Finding]:
    """All findings about queues and workers, in the order to read them.

    `queue_limit` is how many requests clients let wait in a queue.
    """
    seen = facts.overview
    if seen is None:
        yield unknown(AREA, "queues", "TIME, ZRANGE, LLEN, LINDEX, ZCARD or HLEN")
    else:
        live = [one for one in seen.workers if one.lease_left_s > 0]
        yield _workers(seen, live)
        yield from _lapsed(seen, live)
        yield from _versions(facts.statistics or {}, live)
        yield from _queues(seen, queue_limit)
        yield _scheduled(seen, live)
        yield _dead_letters(seen)
    yield _orphans(facts, keys)
    yield _crashed(facts)
    yield _listeners(facts)


def _workers(seen: Overview, live: list[WorkerState]) -> Finding:
    waiting = sum(state.length for state in seen.queues if state.queue in names.LANE_QUEUES)
    if live:
        held = sum(one.in_flight for one in live)
        return ok(AREA, "workers", f"{len(live)} present, {held} requests in flight")
    if waiting:
        return problem(AREA, "workers", f"none, and {waiting} requests wait", START_ONE)
    return warning(AREA, "workers", "none", START_ONE)


def _lapsed(seen: Overview, live: list[WorkerState]) -> Iterator[Finding]:
    for one in seen.workers:
        if one.lease_left_s > 0:
            continue
        ago = f"its lease lapsed {-one.lease_left_s:.0f} s ago"
        text = f"{one.worker} holds {one.in_flight} requests and {ago}"
        if live or not one.in_flight:
            fix = "wait: another worker takes them over within two leases"
            yield warning(AREA, "lapsed lease", text, fix)
        else:
            yield problem(AREA, "lapsed lease", text, f"{START_ONE}; it takes them over")


def _versions(
    statistics: Mapping[str, Mapping[str, Any]], live: list[WorkerState]
) -> Iterator[Finding]:
    """Versions and counters as each worker last published them; unpublished ones are not said."""
    for one in live:
        known = statistics.get(one.worker, {})
        if not known:
            continue
        for name, tried in _refused(known):
            text = f"{one.worker}: not the version of {name} that is published: {tried}"
            fix = "mend that and publish it again, or `reclane catalog rollback`"
            yield problem(AREA, "catalogs", text, fix)
        text = f"{one.worker}: {', '.join(_said(known))}"
        spoken = known.get("contract", contract.VERSION)
        if spoken != contract.VERSION:
            text += f"; contract {spoken}, here {contract.VERSION}"
            yield problem(AREA, "versions", text, "upgrade whichever side is older")
        elif known.get("version", __version__) != __version__:
            text += f"; here {__version__}"
            yield warning(AREA, "versions", text, "upgrade so that both sides run one release")
        else:
            yield ok(AREA, "versions", text)


def _refused(known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Catalogs of which a worker could not load what is published, and why."""
    refused = known.get("refused")
    for name, tried in refused.items() if isinstance(refused, dict) else ():
        yield name, str(tried.get("why")) if isinstance(tried, dict) else ""


def _said(known: Mapping[str, Any]) -> Iterator[str]:
    if "version" in known:
        yield f"reclane {known['version']}"
    if "model" in known:
        yield f"model {known['model']}"
    catalogs = known.get("catalogs")
    for catalog in catalogs if isinstance(catalogs, list) else ():
        yield f"catalog {catalog}"
    yield f"{known.get('requests', 0)} requests in {known.get('batches', 0)} batches"


def _queues(seen: Overview, limit: int) -> Iterator[Finding]:
    fix = "add workers, or raise RECLANE_QUEUE_LIMIT"
    for state in seen.queues:
        age = "" if state.oldest_s is None else f", the next for {state.oldest_s:.1f} s"
        text = f"{state.length} waiting{age}"
        if state.queue not in names.LANE_QUEUES or state.length < FILLING * limit:
            yield ok(AREA, state.queue, text)
        elif state.length < limit:
            yield warning(AREA, state.queue, f"{text}; clients are refused at {limit}", fix)
        else:
            yield problem(AREA, state.queue, f"{text}; clients are refused at {limit}", fix)


def _scheduled(seen: Overview, live: list[WorkerState]) -> Finding:
    text = f"{seen.scheduled} scheduled, {seen.overdue} overdue"
    if not seen.overdue:
        return ok(AREA, "scheduled", text)
    if not live:
        return problem(AREA, "scheduled", text, START_ONE)
    fix = "look again: a worker moves what is due; if it stays, its log says why"
    return warning(AREA, "scheduled", text, fix)


def _dead_letters(seen: Overview) -> Finding:
    count = seen.dead_letters
    if count >= MAX_DEAD_LETTERS:
        fix = "read them with `reclane dlq ls`; requeue or drop them before the oldest are lost"
        return problem(AREA, "dead letters", f"{count}, as many as are kept", fix)
    if count:
        fix = "read them with `reclane dlq ls`, then requeue or drop them"
        return warning(AREA, "dead letters", str(count), fix)
    return ok(AREA, "dead letters", "none")


def _orphans(facts: LaneFacts, keys: names.Keys) -> Finding:
    if facts.orphans is None:
        text = "SCAN is refused, or the database holds too many keys to look through"
        fix = "allow SCAN to this user, or give reclane a database of its own"
        return Finding(AREA, "leftovers", Level.UNKNOWN, text, fix)
    if facts.orphans:
        held = ", ".join(f"{worker} ({count})" for worker, count in facts.orphans.items())
        fix = f"hand each to recovery: ZADD {keys.leases} 0 WORKER"
        return problem(AREA, "leftovers", f"in flight without a lease: {held}", fix)
    return ok(AREA, "leftovers", "nothing is in flight without a lease")


def _crashed(facts: LaneFacts) -> Finding:
    if facts.crashed is None:
        return unknown(AREA, "crashes", "HLEN")
    if facts.crashed:
        fix = "read the workers' logs; what goes on crashing them becomes a dead letter"
        text = f"{facts.crashed} requests were with a worker when it died"
        return warning(AREA, "crashes", text, fix)
    return ok(AREA, "crashes", "no request is under suspicion")


def _listeners(facts: LaneFacts) -> Finding:
    if facts.listeners is None:
        return unknown(AREA, "clients", "PUBSUB CHANNELS")
    return ok(AREA, "clients", f"{facts.listeners} listen for answers")
