"""The clients in full: bounds, keys, ids, forgetting, many at once, servers and words lost."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from proxy import Proxy
from reclane import (
    AsyncClient,
    Client,
    ClientClosed,
    InvalidRequest,
    QueueFull,
    RecommendRequest,
    RequestRevoked,
    ResultTimeout,
    Settings,
    UnknownRequest,
    names,
)
from reclane.embedded import EmbeddedServer
from reclane.testing import StubWorker
from reclane.wire import decode_message
from support import DEADLINE_S, KEYS, StartWorker, eventually

FOREVER_S = 3_600.0  # a fallback that would come too late to help


def waiting(raw: "redis.Redis") -> int:
    return int(raw.llen(names.INTERACTIVE_QUEUE))


def asynchronously(
    url: str, scenario: Callable[[AsyncClient], Awaitable[None]], **settings: object
) -> None:
    async def run() -> None:
        async with AsyncClient(settings=Settings.load(redis_url=url, **settings)) as client:
            await asyncio.wait_for(scenario(client), 2 * DEADLINE_S)

    asyncio.run(run())


# ---- the bound at the door


def test_a_full_queue_refuses_and_says_what_to_do(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    with Client(settings=Settings.load(redis_url=server.url, queue_limit=10)) as client:
        client.submit_many(["film"] * 10)
        with pytest.raises(QueueFull, match="RECLANE_QUEUE_LIMIT") as raised:
            client.submit("film")
        assert (raised.value.waiting, raised.value.limit) == (10, 10)
        assert waiting(raw) == 10
        raw.rpop(names.INTERACTIVE_QUEUE)
        client.submit("film")
        assert waiting(raw) == 10


def test_a_submission_is_admitted_whole_or_not_at_all(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    """1,200 requests take three calls; the first decides for all."""
    with Client(settings=Settings.load(redis_url=server.url, queue_limit=1_199)) as client:
        with pytest.raises(QueueFull):
            client.submit_many(["film"] * 1_200)
        assert waiting(raw) == 0
        assert not raw.keys("*task-meta*")
        assert len(client.submit_many(["film"] * 1_199)) == 1_199


def test_a_large_submission_is_admitted_beside_a_fast_worker(
    client: Client, start_worker: StartWorker
) -> None:
    """The first answers are read and forgotten before the last call leaves."""
    start_worker()
    handles = client.submit_many(["film"] * 5_000)
    done = list(client.as_completed(handles, DEADLINE_S))
    assert len(done) == 5_000


def test_known_keys_admit_nothing_new(server: EmbeddedServer, raw: "redis.Redis") -> None:
    with Client(settings=Settings.load(redis_url=server.url, queue_limit=10)) as client:
        known = RecommendRequest(query="film", idempotency_key="known")
        client.submit(known)
        client.submit_many(["film"] * 9)
        new = [RecommendRequest(query="film", idempotency_key=f"{n}") for n in range(999)]
        for ask in ([known, *new], [known] * 600 + new):
            with pytest.raises(QueueFull):
                client.submit_many(ask)
        assert waiting(raw) == 10
        assert not client.submit(known).done(), "joining what waits needs no room"


def test_one_request_where_many_are_wanted_is_refused(client: Client, raw: "redis.Redis") -> None:
    for odd in ("hello", RecommendRequest(query="hello"), {"query": "hello"}):
        with pytest.raises(InvalidRequest, match="list"):
            client.submit_many(odd)
    assert waiting(raw) == 0


def test_every_priority_counts(server: EmbeddedServer, raw: "redis.Redis") -> None:
    raw.lpush(KEYS.list(names.INTERACTIVE_QUEUE, 9), *[b"x"] * 10)
    with (
        Client(settings=Settings.load(redis_url=server.url, queue_limit=10)) as client,
        pytest.raises(QueueFull),
    ):
        client.submit("film")


def test_the_bound_holds_against_many_clients_at_once(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    settings = Settings.load(redis_url=server.url, queue_limit=100)
    clients = [Client(settings=settings) for _ in range(8)]

    def submit(client: Client) -> int:
        accepted = 0
        for _ in range(50):
            try:
                client.submit("film")
                accepted += 1
            except QueueFull:
                pass
        return accepted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, clients)) == 100
    assert waiting(raw) == 100
    for client in clients:
        client.close()


# ---- idempotency keys


def test_one_key_is_one_computation_and_one_answer_for_everyone(
    server: EmbeddedServer, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    settings = Settings.load(redis_url=server.url, reread_interval_s=FOREVER_S)
    with Client(settings=settings) as other:
        handles = [c.submit("film", idempotency_key="k") for c in (client, other) * 5]
        assert waiting(raw) == 1
        start_worker()
        answers = [handle.result(DEADLINE_S) for handle in handles]
        assert all(answer == answers[0] for answer in answers)
        again = other.submit("film", idempotency_key="k", deadline_s=60)
        assert again.result(DEADLINE_S) == answers[0]
        assert waiting(raw) == 0
    assert 0 < raw.ttl(KEYS.result(handles[0].id)) <= 300, "kept for who asks again"


def test_a_conflict_in_one_submission_concerns_nobody_else(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    texts = ["film", "shoes", "shoes", "film"]
    ask = [RecommendRequest(query=text, idempotency_key="k") for text in texts]
    handles = client.submit_many(ask)
    assert waiting(raw) == 1
    for number in (1, 2):
        with pytest.raises(InvalidRequest, match="asks something else"):
            handles[number].result(DEADLINE_S)
    start_worker()
    assert handles[0].result(DEADLINE_S) == handles[3].result(DEADLINE_S)
    assert handles[0].result(0).intent.text == "film"


def test_a_cancelled_key_asked_again_at_once_is_computed_anew(client: Client) -> None:
    """Whatever was read of the cancelled one concerns its own waiter alone."""
    for _ in range(100):
        first = client.submit("film", idempotency_key="k")
        assert first.cancel()
        second = client.submit("film", idempotency_key="k")
        with pytest.raises(RequestRevoked):
            first.result(DEADLINE_S)
        with pytest.raises(ResultTimeout):
            second.result(0.01)
        assert second.cancel()


def test_each_waiter_of_a_key_has_a_deadline_of_its_own(
    server: EmbeddedServer, client: Client, start_worker: StartWorker
) -> None:
    hasty = client.submit("film", idempotency_key="k", deadline_s=0.1)
    patient = client.submit("film", idempotency_key="k")
    with pytest.raises(RequestRevoked) as raised:
        hasty.result(DEADLINE_S)
    assert raised.value.code == "expired"
    start_worker()
    assert patient.result(DEADLINE_S).items


def test_a_key_that_nobody_wants_any_more_is_not_computed(
    client: Client, start_worker: StartWorker
) -> None:
    late = client.submit("film", idempotency_key="k", deadline_s=0.1)
    with pytest.raises(RequestRevoked):
        late.result(DEADLINE_S)
    worker = start_worker()
    client.recommend("another", timeout=DEADLINE_S)
    eventually(lambda: f"{late.id} ended without a run: expired" in worker.log(), "it is dropped")


def test_a_key_whose_old_message_still_waits_answers_the_new_request(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """Cancelled, but its message is in the queue, under the same id."""
    old = client.submit("film", idempotency_key="k", deadline_s=0.2)
    assert old.cancel()
    new = client.submit("shoes", idempotency_key="k")
    assert waiting(raw) == 2
    start_worker()
    assert new.result(DEADLINE_S).intent.text == "shoes"
    again = client.submit("shoes", idempotency_key="k")
    assert again.result(DEADLINE_S) == new.result(0)


def test_a_key_submitted_by_many_threads_at_once_is_pushed_once(
    client: Client, raw: "redis.Redis"
) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: client.submit("film", idempotency_key="k"), range(64)))
    assert waiting(raw) == 1


def test_a_key_used_for_another_request_is_refused_before_and_after_the_answer(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    first = client.submit("film", idempotency_key="k")
    with pytest.raises(InvalidRequest, match="asks something else"):
        client.submit("shoes", idempotency_key="k").result(DEADLINE_S)
    start_worker()
    answer = first.result(DEADLINE_S)
    with pytest.raises(InvalidRequest, match="asks something else"):
        client.submit("shoes", idempotency_key="k").result(DEADLINE_S)
    assert client.submit("film", idempotency_key="k").result(DEADLINE_S) == answer


def test_a_key_twice_in_one_submission_is_pushed_once(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    ask = [RecommendRequest(query=q, idempotency_key="k") for q in ("film", "film", "shoes")]
    first, second, other = client.submit_many(ask)
    assert waiting(raw) == 1
    with pytest.raises(InvalidRequest, match="asks something else"):
        other.result(DEADLINE_S)
    start_worker()
    assert first.result(DEADLINE_S) == second.result(DEADLINE_S)


def test_a_cancelled_key_may_be_asked_again(client: Client, start_worker: StartWorker) -> None:
    first = client.submit("film", idempotency_key="k")
    assert first.cancel()
    with pytest.raises(RequestRevoked):
        first.result(DEADLINE_S)
    second = client.submit("film", idempotency_key="k")
    start_worker()
    assert second.result(DEADLINE_S).items


# ---- ids


def test_an_id_is_awaited_by_another_client_and_wakes_it_at_once(
    server: EmbeddedServer, client: Client, start_worker: StartWorker
) -> None:
    settings = Settings.load(redis_url=server.url, reread_interval_s=FOREVER_S)
    with Client(settings=settings) as other:
        handle = other.handle(client.submit("film", idempotency_key="k").id)
        start_worker()
        assert handle.result(DEADLINE_S).items
        assert client.handle(handle.id).result(DEADLINE_S).items


def test_what_one_process_enqueues_another_awaits(
    server: EmbeddedServer, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    client.recommend("a client that listens", timeout=DEADLINE_S)
    ids = client.enqueue([f"film {n}" for n in range(600)])
    eventually(
        lambda: all(b"SUCCESS" in (v or b"") for v in raw.mget([KEYS.result(i) for i in ids])),
        "all are answered, and none is read here",
    )
    with Client(server.url) as other:
        assert [other.handle(i).result(0).intent.text for i in ids] == [
            f"film {n}" for n in range(600)
        ]
        client.enqueue([RecommendRequest(query="film", idempotency_key="k")])
        with pytest.raises(InvalidRequest, match="asks something else"):
            other.enqueue([RecommendRequest(query="shoes", idempotency_key="k")])


def test_an_unknown_id_is_told_from_a_waiting_one(client: Client, raw: "redis.Redis") -> None:
    submitted = client.submit("film")
    assert not client.handle(submitted.id).done()
    with pytest.raises(UnknownRequest, match="submit it again"):
        client.handle("00000000-0000-4000-8000-000000000000")


def test_an_answer_that_outlived_its_time_is_unknown(
    server: EmbeddedServer, start_worker: StartWorker
) -> None:
    start_worker({"RECLANE_RESULT_TTL_S": "1"})
    with Client(server.url) as client, redis.Redis.from_url(server.url) as raw:
        keyed = client.submit("film", idempotency_key="k")
        keyed.result(DEADLINE_S)
        eventually(lambda: not raw.exists(KEYS.result(keyed.id)), "the answer expires")
        with pytest.raises(UnknownRequest):
            client.handle(keyed.id)


def test_an_id_that_cannot_be_ours_fails_its_own_caller(client: Client) -> None:
    for odd in ("\ud800", "id-ü", ""):
        with pytest.raises(UnknownRequest):
            client.handle(odd)


def test_a_server_that_lost_its_data_fails_who_waits(client: Client, raw: "redis.Redis") -> None:
    handles = client.submit_many(["film"] * 3)
    raw.flushall()
    for handle in handles:
        with pytest.raises(UnknownRequest):
            handle.result(DEADLINE_S)


def test_the_async_client_knows_ids_keys_and_bounds_too(
    server: EmbeddedServer, client: Client, start_worker: StartWorker
) -> None:
    async def scenario(ours: AsyncClient) -> None:
        theirs = client.submit("film", idempotency_key="k")
        attached = await ours.handle(theirs.id)
        (same,) = await ours.enqueue([RecommendRequest(query="film", idempotency_key="k")])
        assert same == theirs.id
        keyed = await ours.submit("film", idempotency_key="k")
        with pytest.raises(UnknownRequest):
            await ours.handle("00000000-0000-4000-8000-000000000000")
        with pytest.raises(QueueFull):
            await ours.submit_many(["film"] * 10)
        await asyncio.to_thread(start_worker)
        assert await attached.result(DEADLINE_S) == await keyed.result(DEADLINE_S)
        assert theirs.result(DEADLINE_S).items

    asynchronously(server.url, scenario, queue_limit=10, reread_interval_s=FOREVER_S)


# ---- forgetting, and deadlines


def test_an_answer_is_forgotten_on_the_server_once_read(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    handles = client.submit_many(["film"] * 700)
    for handle in handles:
        assert handle.result(DEADLINE_S).items
    eventually(lambda: not raw.keys("*task-meta*"), "700 answers are forgotten")
    assert handles[0].result(0).items


def test_closing_forgets_what_was_read(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    with Client(server.url) as client:
        client.recommend("film", timeout=DEADLINE_S)
    assert not raw.keys("*task-meta*")


def test_a_deadline_ends_a_request_also_where_no_worker_runs(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    late = client.submit("film", deadline_s=0.1)
    with pytest.raises(RequestRevoked, match="expired") as raised:
        late.result(DEADLINE_S)
    assert raised.value.code == "expired"
    worker = start_worker()
    assert client.recommend("film", timeout=DEADLINE_S).items
    eventually(lambda: f"{late.id} ended without a run" in worker.log(), "the worker drops it")


def test_a_full_server_and_an_overdue_request_leave_the_answers_readable(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    settings = Settings.load(redis_url=server.url, reread_interval_s=0.1)
    with Client(settings=settings) as client:
        late = client.submit("film", deadline_s=0.1)
        fine = client.submit("film")
        raw.config_set("maxmemory", 1)
        raw.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-eval"])
        with pytest.raises(ResultTimeout):
            late.result(0.5)
        raw.config_set("maxmemory", 0)
        with StubWorker(server.url):
            raw.acl_setuser("default", enabled=True, commands=["+@all"])
            assert fine.result(DEADLINE_S).items
        with pytest.raises(RequestRevoked):
            late.result(DEADLINE_S)


def test_a_cancellation_whose_reply_was_cut_still_says_that_it_cancelled(
    server: EmbeddedServer,
) -> None:
    with (
        Proxy(server.port) as proxy,
        Client(settings=Settings.load(redis_url=proxy.url)) as client,
    ):
        handle = client.submit("film")
        proxy.cut_reply_to(b"TaskRevokedError")
        assert handle.cancel()
        assert proxy.cuts == 1
        with pytest.raises(RequestRevoked):
            handle.result(DEADLINE_S)


def test_a_cancellation_lasts_as_long_as_the_message_may_wait(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    with Client(settings=Settings.load(redis_url=server.url, result_ttl_s=1)) as client:
        handle = client.submit("film")
        assert handle.cancel()
        with pytest.raises(RequestRevoked):
            handle.result(DEADLINE_S)
        assert raw.ttl(KEYS.result(handle.id)) > 86_400


# ---- many at once


def test_ten_thousand_outstanding_on_one_asyncio_client(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    async def scenario(client: AsyncClient) -> None:
        asking = [
            asyncio.create_task(client.recommend(f"film {n}", k=1, timeout=2 * DEADLINE_S))
            for n in range(10_000)
        ]
        while await asyncio.to_thread(waiting, raw) < 10_000:
            await asyncio.sleep(0.05)
        assert len(await asyncio.to_thread(raw.client_list)) < 10
        await asyncio.to_thread(start_worker)
        answers = await asyncio.gather(*asking)
        assert [answer.intent.text for answer in answers] == [f"film {n}" for n in range(10_000)]

    asynchronously(server.url, scenario, queue_limit=10_000)


def test_fifty_threads_share_one_client(
    server: EmbeddedServer, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker()
    ready = threading.Barrier(50)

    def ask(thread: int) -> list[str]:
        ready.wait(DEADLINE_S)
        texts = [f"film {thread} {n}" for n in range(20)]
        return [t for t in texts if client.recommend(t, timeout=DEADLINE_S).intent.text != t]

    before = len(raw.client_list())
    with ThreadPoolExecutor(50) as pool:
        assert [wrong for wrongs in pool.map(ask, range(50)) for wrong in wrongs] == []
    assert len(raw.client_list()) - before < 25


# ---- servers and words lost


def test_a_restart_in_the_middle_loses_nothing(
    server: EmbeddedServer, client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    handles = client.submit_many([f"film {n}" for n in range(300)])

    async def scenario(ours: AsyncClient) -> None:
        theirs = await ours.submit_many([f"book {n}" for n in range(300)])
        server.kill()
        submitting = asyncio.create_task(ours.submit("during the restart"))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.start)
        for one in [*theirs, await submitting]:
            assert (await one.result(DEADLINE_S)).versions

    asynchronously(server.url, scenario)
    assert [h.result(DEADLINE_S).intent.text for h in handles] == [f"film {n}" for n in range(300)]


def test_a_script_that_the_server_forgot_is_loaded_again(
    client: Client, raw: "redis.Redis"
) -> None:
    client.submit("film")
    raw.script_flush()
    client.submit("film")
    assert waiting(raw) == 2


def test_a_killed_subscription_is_made_again_and_all_is_read(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """The words said meanwhile are lost for good: no slow re-read is near."""
    settings = Settings.load(redis_url=server.url, reread_interval_s=FOREVER_S)

    async def scenario(ours: AsyncClient) -> None:
        theirs = await ours.submit_many(["film"] * 50)
        raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.to_thread(start_worker)
        raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for one in theirs:
            assert (await one.result(DEADLINE_S)).versions

    with Client(settings=settings) as client:
        handles = client.submit_many(["film"] * 50)
        asynchronously(server.url, scenario, reread_interval_s=FOREVER_S)
        for handle in handles:
            assert handle.result(DEADLINE_S).versions


def test_a_slow_consumer_is_cut_off_and_still_gets_every_answer(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """The loop hears nothing while its owner computes; Redis drops the subscriber."""
    raw.config_set("client-output-buffer-limit", "pubsub 16kb 0 0")

    async def scenario(client: AsyncClient) -> None:
        handles = await client.submit_many([f"film {n}" for n in range(3_000)])
        subscriber = next(c["id"] for c in raw.client_list(_type="pubsub") if c["sub"] != "0")
        start_worker()
        done = handles[-1].id
        eventually(lambda: b"SUCCESS" in (raw.get(KEYS.result(done)) or b""), "all are computed")
        # The socket's own buffers hold more than these words; noise brings it over the limit.
        channel = client._exchange.channel
        gone = time.monotonic() + DEADLINE_S
        while subscriber in {c["id"] for c in raw.client_list()} and time.monotonic() < gone:
            raw.publish(channel, "x" * 65_536)
        assert subscriber not in {c["id"] for c in raw.client_list()}
        for number, handle in enumerate(handles):
            assert (await handle.result(DEADLINE_S)).intent.text == f"film {number}"

    asynchronously(server.url, scenario, reread_interval_s=FOREVER_S)


# ---- misuse


def test_a_child_process_is_told_to_make_its_own_client(server: EmbeddedServer) -> None:
    """Really forked, in a process of its own: a fork under these tests' threads would warn."""
    script = """
import os, sys
from reclane import Client, ClientClosed
client = Client(sys.argv[1])
handle = client.submit("film")
child = os.fork()
if child == 0:
    told = 0
    for call in (lambda: client.submit("film"), lambda: handle.result(5), handle.cancel):
        try:
            call()
        except ClientClosed as error:
            told += "before a fork" in str(error)
    client.close()
    os._exit(told)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
client.submit("still works in the parent")
client.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, server.url],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr


def test_another_event_loop_is_told_to_make_its_own_client(server: EmbeddedServer) -> None:
    client = AsyncClient(server.url)

    async def first() -> None:
        await client.submit("film")

    async def second() -> None:
        with pytest.raises(ClientClosed, match="another event loop"):
            await client.submit("film")

    async def loops() -> None:
        await first()
        await asyncio.to_thread(asyncio.run, second())
        await client.close()

    asyncio.run(loops())


def test_a_close_that_is_cancelled_leaves_nobody_waiting(server: EmbeddedServer) -> None:
    async def scenario() -> None:
        client = AsyncClient(server.url)
        handle = await client.submit("film")
        waiter = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(ClientClosed):
            await asyncio.wait_for(waiter, DEADLINE_S)
        await client.close()

    asyncio.run(scenario())


def test_a_cancelled_task_leaves_the_others_of_its_pipeline_alone(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.submit("warm up")
        tasks = [asyncio.create_task(client.submit(f"film {n}")) for n in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [one for one in done if not isinstance(one, BaseException)]
        assert len(kept) >= 100
        await asyncio.to_thread(start_worker)
        for handle in kept:
            assert (await handle.result(DEADLINE_S)).items

    asynchronously(server.url, scenario)


def test_stock_celery_reads_a_waiting_request_as_pending(
    server: EmbeddedServer, client: Client, raw: "redis.Redis"
) -> None:
    from celery import Celery

    with Celery(broker=server.url, backend=server.url, set_as_current=False) as app:
        handle = client.submit("film", idempotency_key="k")
        client.handle(handle.id)
        result = app.AsyncResult(handle.id)
        assert (result.state, result.result, result.ready()) == ("PENDING", None, False)
        message = decode_message(raw.lindex(names.INTERACTIVE_QUEUE, 0))
        assert message.digest
