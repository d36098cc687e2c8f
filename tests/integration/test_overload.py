"""Too much work: who goes first, who is dropped, who is refused. Real server, real workers."""

import asyncio
import time
from uuid import uuid4

import pytest
import redis

from proxy import Proxy
from reclane import AsyncClient, Client, DeadlineUnreachable, RecommendRequest, names, wire
from reclane.embedded import EmbeddedServer
from reclane_worker.lane import Lane, Leased
from reclane_worker.settings import WorkerSettings
from support import (
    DEADLINE_S,
    KEYS,
    StartWorker,
    assert_nothing_left,
    eventually,
    on_device,
    statistics,
    watch,
)

INTERACTIVE, BULK = names.INTERACTIVE_QUEUE, names.BULK_QUEUE
ONE_BY_ONE = {"RECLANE_BATCH_REQUESTS": "1", "RECLANE_DEVICE_THREADS": "1"}


def push(raw: "redis.Redis", queue: str, *texts: str, deadline_s: float | None = None) -> list[str]:
    """Messages of a client that knows no door; their ids."""
    ids = [str(uuid4()) for _ in texts]
    for task_id, text in zip(ids, texts, strict=True):
        request = RecommendRequest(query=text, deadline_s=deadline_s)
        raw.lpush(
            KEYS.list(queue),
            wire.encode_request(
                request, task_id=task_id, queue=queue, reply_to="", now=time.time()
            ),
        )
    return ids


def lane(server: EmbeddedServer, **settings: object) -> Lane:
    return Lane(WorkerSettings.load(redis_url=server.url, **settings), "w")


def classes(leased: Leased) -> tuple[int, int]:
    """How many leased messages are interactive, and how many bulk."""
    bulk = sum(entry.bulk for entry in leased.entries)
    return len(leased.entries) - bulk, bulk


# ---- what a lease takes


def test_a_lease_keeps_places_for_bulk_while_any_waits(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    push(raw, INTERACTIVE, *["film"] * 60)
    push(raw, BULK, *["film"] * 3)
    one = lane(server)
    leases = [one.lease(n, 20, bulk_kept=2, bulk_most=10) for n in range(4)]
    assert [classes(leased) for leased in leases] == [(18, 2), (18, 1), (20, 0), (4, 0)]
    again = one.lease(3, 20, bulk_kept=2, bulk_most=10)
    assert again.entries == leases[3].entries
    assert [entry.bulk for entry in leases[0].entries] == [False] * 18 + [True] * 2
    one.close()


def test_a_lease_takes_only_so_much_bulk(server: EmbeddedServer, raw: "redis.Redis") -> None:
    push(raw, BULK, *["film"] * 60)
    one = lane(server)
    assert classes(one.lease(0, 20, bulk_kept=2, bulk_most=5)) == (0, 5)
    push(raw, INTERACTIVE, *["film"] * 4)
    assert classes(one.lease(1, 20, bulk_kept=2, bulk_most=0)) == (4, 0)
    assert classes(one.lease(2, 20, [BULK], bulk_kept=2, bulk_most=50)) == (0, 20)
    one.close()


def test_large_interactive_messages_leave_bulk_its_share(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    """Bytes bound a lease, too; a class's first message is taken whatever its size."""
    push(raw, INTERACTIVE, *["a long wish " * 400] * 20)
    push(raw, BULK, "film", "film", "a long wish " * 400)
    one = lane(server, lease_bytes=20_000)
    interactive, bulk = classes(one.lease(0, 20, bulk_kept=2, bulk_most=5))
    assert 0 < interactive < 4
    assert bulk == 2
    assert classes(one.lease(1, 20, bulk_kept=2, bulk_most=5))[1] == 1
    one.close()


# ---- who runs first


def test_interactive_requests_do_not_wait_for_a_backlog_of_bulk(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """Neither does one because another passes bulk just then."""
    worker = start_worker(ONE_BY_ONE, app="faulty_worker")
    with watch(raw) as published:
        bulk = push(raw, BULK, *["slowfault film"] * 5)
        eventually(lambda: on_device(worker), "bulk is on the device")
        for turn in range(5):
            handles = client.submit_many([f"film {turn} {number}" for number in range(9)])
            for handle in handles:
                handle.result(DEADLINE_S)
        done = [KEYS.result(task_id) in published.counts for task_id in bulk]
        assert done.count(True) < 3
        ids = {KEYS.result(task_id) for task_id in bulk}
        eventually(lambda: ids <= set(published.counts), "bulk is answered", 2 * DEADLINE_S)
        assert set(published.counts.values()) == {1}
    assert_nothing_left(raw)


def test_a_flood_of_interactive_requests_leaves_bulk_its_floor(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """A worker that finds both served a tenth of bulk by the time the flood is over."""
    bulk = push(raw, BULK, *["film"] * 50)
    handles = client.submit_many(["film"] * 1_000)
    with watch(raw) as published:
        start_worker({"RECLANE_LEASE_MESSAGES": "50", "RECLANE_BATCH_REQUESTS": "5"})
        for handle in handles:
            handle.result(DEADLINE_S)
        expected = {KEYS.result(task_id) for task_id in bulk}
        eventually(lambda: expected <= set(published.counts), "bulk is answered")
        order = list(published.counts)
    beside = order[: order.index(KEYS.result(handles[-1].id))]
    assert len(expected.intersection(beside[: len(beside) // 2])) >= 20


def test_within_a_class_the_oldest_deadline_runs_first(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    deadlines: list[float | None] = [None, 900.0, 500.0, 700.0, 300.0]
    words = [1, 2, 4, 3, 5]  # by length alone, they would run the other way round
    requests = [
        RecommendRequest(query="film " * count, deadline_s=at)
        for count, at in zip(words, deadlines, strict=True)
    ]
    handles = client.submit_many(requests)
    with watch(raw) as published:
        start_worker(ONE_BY_ONE)
        for handle in handles:
            handle.result(DEADLINE_S)
        wanted = [KEYS.result(handles[n].id) for n in (4, 2, 3, 1, 0)]
        eventually(lambda: set(wanted) <= set(published.counts), "all are published")
        assert list(published.counts) == wanted


# ---- what is dropped


def test_what_cannot_be_answered_in_time_is_dropped_without_a_run(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker(ONE_BY_ONE, app="faulty_worker")
    for _ in range(4):  # the model is slow, and the worker learns it
        client.recommend("slowfault film", timeout=DEADLINE_S)
    sent: list[str] = []

    def dropped() -> bool:
        sent.extend(push(raw, INTERACTIVE, "film", deadline_s=0.5))
        key = KEYS.result(sent[-1])
        eventually(lambda: raw.exists(key), "it has an ending")
        return statistics(raw).get("too_late", 0) > 0

    eventually(dropped, "one is dropped while its deadline is still to come")
    assert "ended without a run: expired" in worker.log()
    assert wire.is_revoked(raw.get(KEYS.result(sent[-1])) or b"")
    assert client.recommend("film", timeout=DEADLINE_S).items
    assert_nothing_left(raw)


# ---- who is refused


def test_a_deadline_that_no_worker_can_meet_is_refused_at_the_door(
    client: Client, raw: "redis.Redis"
) -> None:
    raw.hset(KEYS.pace, mapping={"w1": 6, "w2": 4})
    client.submit_many(["film"] * 19)
    client.submit("film", deadline_s=2.05)  # the 20th is done after 2 s at 10 a second
    with pytest.raises(DeadlineUnreachable, match="raise deadline_s") as refused:
        client.submit("film", deadline_s=2.05)
    wait_s, deadline_s = refused.value.wait_s, refused.value.deadline_s
    assert (wait_s, deadline_s) == (pytest.approx(2.1, abs=0.01), pytest.approx(2.05, abs=0.01))
    assert refused.value.code == "deadline_unreachable"
    assert raw.llen(INTERACTIVE) == 20
    client.submit("film", deadline_s=2.2)
    client.submit("film")


def test_without_a_known_pace_every_deadline_is_admitted(
    client: Client, raw: "redis.Redis"
) -> None:
    client.submit_many(["film"] * 1_000)
    client.submit("film", deadline_s=0.5)
    assert raw.llen(INTERACTIVE) == 1_001


def test_only_what_is_served_before_counts(client: Client, raw: "redis.Redis") -> None:
    raw.hset(KEYS.pace, "w1", 10)
    push(raw, BULK, *["film"] * 100)
    for message in raw.lrange(BULK, 0, -1):
        raw.lpush(KEYS.list(INTERACTIVE, 3), message)
    client.submit("film", deadline_s=0.5)
    assert raw.llen(INTERACTIVE) == 1


@pytest.mark.parametrize("count", [2, 1_200])
def test_one_deadline_refuses_the_whole_submission(
    client: Client, raw: "redis.Redis", count: int
) -> None:
    """Also where it stands in a later one of several calls."""
    raw.hset(KEYS.pace, "w1", 10)
    late = RecommendRequest(query="film", deadline_s=0.15)
    with pytest.raises(DeadlineUnreachable):
        client.submit_many([*["film"] * (count - 1), late])
    assert raw.llen(INTERACTIVE) == 0
    assert not raw.keys("*task-meta*")
    client.submit_many([late, *["film"] * (500 - 1)])


def test_who_joins_a_request_with_the_same_key_is_not_refused(
    client: Client, raw: "redis.Redis"
) -> None:
    raw.hset(KEYS.pace, "w1", 10)
    client.submit("film", idempotency_key="one", deadline_s=60.0)
    client.submit_many(["film"] * 100)
    client.submit("film", idempotency_key="one", deadline_s=1.0)
    with pytest.raises(DeadlineUnreachable):
        client.submit("film", idempotency_key="two", deadline_s=1.0)


def test_a_submission_whose_reply_was_lost_is_not_refused_the_second_time(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    """Its own messages wait before it then."""
    raw.hset(KEYS.pace, "w1", 10)
    with Proxy(server.port) as proxy, Client(proxy.url) as client:
        client.submit("film")
        proxy.cut_reply_to(KEYS.pace.encode())
        client.submit_many([RecommendRequest(query="film", deadline_s=2.0)] * 19)
        assert proxy.cuts == 1
    assert raw.llen(INTERACTIVE) == 20


async def _refused(url: str) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(DeadlineUnreachable):
            await client.submit_many([RecommendRequest(query="film", deadline_s=0.1)] * 2)
        with pytest.raises(DeadlineUnreachable):
            await client.enqueue([RecommendRequest(query="film", deadline_s=0.1)] * 2)


def test_the_asynchronous_client_is_refused_alike(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:

    raw.hset(KEYS.pace, "w1", 10)
    asyncio.run(asyncio.wait_for(_refused(server.url), DEADLINE_S))
    assert raw.llen(INTERACTIVE) == 0


# ---- the pace that workers tell


def test_a_worker_tells_its_pace_and_takes_it_back_when_it_goes(
    raw: "redis.Redis", start_worker: StartWorker
) -> None:
    leaving, dying, staying = start_worker(), start_worker(), start_worker()

    def told() -> set[int]:
        return {int(name.split(b":")[1]) for name in raw.hkeys(KEYS.pace)}

    eventually(lambda: told() == {leaving.pid, dying.pid, staying.pid}, "all tell")
    assert all(float(pace) > 0 for pace in raw.hvals(KEYS.pace))
    assert leaving.stop() == 0
    dying.kill()
    eventually(lambda: told() == {staying.pid}, "who is gone is forgotten")
    stats = statistics(raw)
    assert stats["pace_per_s"] > 0
    assert set(stats["cost"]) == {"token_s", "batch_s"}
