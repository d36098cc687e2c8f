"""What the model found, each by itself: one worker's calls on a real server (worker/LANE.md)."""

from collections.abc import Iterator

import pytest
import redis

from reclane import Client, RecommendRequest, names
from reclane.embedded import EmbeddedServer
from reclane.operations.purging import purge
from reclane_worker.lane import Ending, Lane
from reclane_worker.settings import WorkerSettings
from support import KEYS

LONG_AGO_MS = 1


@pytest.fixture
def settings(server: EmbeddedServer) -> WorkerSettings:
    return WorkerSettings.load(redis_url=server.url, lease_ms=600_000)


@pytest.fixture
def lane(settings: WorkerSettings) -> Iterator[Lane]:
    made = Lane(settings, "one")
    yield made
    made.close()


@pytest.fixture
def other(settings: WorkerSettings) -> Iterator[Lane]:
    made = Lane(settings, "two")
    yield made
    made.close()


def test_a_lease_of_an_earlier_batch_that_comes_late_takes_and_overwrites_nothing(
    client: Client, raw: "redis.Redis", lane: Lane
) -> None:
    client.submit_many(["film"] * 4)
    held = [*lane.lease(0, 1).entries, *lane.lease(1, 1).entries]
    before = raw.hgetall(KEYS.inflight("one"))
    assert lane.lease(0, 1).entries == ()
    assert raw.hgetall(KEYS.inflight("one")) == before
    assert lane.held() == [entry.field for entry in held]
    assert raw.llen(names.INTERACTIVE_QUEUE) == 2


def test_a_lease_that_comes_late_after_a_recovery_takes_nothing_that_nobody_knows_of(
    client: Client, raw: "redis.Redis", lane: Lane, other: Lane
) -> None:
    client.submit_many(["film"] * 4)
    lane.lease(0, 1)
    raw.zadd(KEYS.leases, {"one": LONG_AGO_MS})
    assert other.recover() == [("one", 1, 0)]
    late = lane._lease(1, 4, names.LANE_QUEUES, (0, 4))  # its sender hears nothing of it
    assert late.entries == ()
    leased = lane.lease(2, 4)
    assert leased.incarnation == late.incarnation
    assert lane.held() == [entry.field for entry in leased.entries]
    assert len(leased.entries) == 4


def test_what_falls_due_together_is_served_in_the_order_it_was_due(
    client: Client, raw: "redis.Redis", lane: Lane
) -> None:
    handles = client.submit_many([f"film {n}" for n in range(3)])
    for due_ms, entry in enumerate(lane.lease(0, 3).entries):
        lane.give_back([entry.field], due_ms)
    served = [entry.raw for entry in lane.lease(1, 3).entries]
    assert [handle.id.encode() in one for handle, one in zip(handles, served, strict=True)] == (
        [True] * 3
    )


def test_a_dropped_revocation_leaves_its_time_to_who_asked_the_key_again(
    client: Client, raw: "redis.Redis", lane: Lane
) -> None:
    request = RecommendRequest(query="film", idempotency_key="key")
    client.submit(request).cancel()
    (entry,) = lane.lease(0, 1).entries
    again = client.submit(request)
    lane.commit([Ending(entry.field, again.id, revoked=True)])
    assert raw.ttl(KEYS.result(again.id)) > 86_400


def test_a_purge_forgets_the_crashes_of_what_it_takes(
    client: Client, raw: "redis.Redis", settings: WorkerSettings, lane: Lane, other: Lane
) -> None:
    client.submit("film")
    assert lane.start([entry.field for entry in lane.lease(0, 1).entries])
    raw.zadd(KEYS.leases, {"one": LONG_AGO_MS})
    assert other.recover() == [("one", 1, 1)]
    assert raw.hlen(KEYS.attempts) == 1
    assert purge(raw, settings, names.INTERACTIVE_QUEUE).ended == 1
    assert raw.hlen(KEYS.attempts) == 0
