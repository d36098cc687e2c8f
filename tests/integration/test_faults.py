"""The lane under faults that are really caused: every accepted request ends exactly once."""

import contextlib
import signal
import time

import pytest
import redis

from proxy import Proxy
from reclane import Client, ReclaneError, RecommendRequest, RequestFailed, names
from reclane.embedded import EmbeddedServer
from reclane.settings import Settings
from reclane.wire import decode_message, is_pending
from reclane_worker.ending import EXIT_LANE, EXIT_STUCK
from reclane_worker.wait import QueueWatch
from support import (
    DEADLINE_S,
    KEYS,
    StartWorker,
    assert_each_once,
    assert_nothing_left,
    eventually,
    in_flight,
    on_device,
    watch,
)


def test_a_worker_killed_in_the_middle_of_a_batch_loses_nothing(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    first = start_worker(app="faulty_worker")
    with watch(raw) as published:
        handles = client.submit_many(["slowfault film", *(f"film {n}" for n in range(300))])
        eventually(lambda: on_device(first), "a batch is on the device")
        first.kill()
        assert in_flight(raw) > 0
        start_worker(app="faulty_worker")
        for handle in handles:
            assert handle.result(DEADLINE_S).items
        assert_each_once(published, handles)
    assert_nothing_left(raw)


def test_a_worker_killed_while_idle_loses_nothing(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """Stopped first, so that a message which a blocking pop had in hand would be lost."""
    idle = start_worker()
    client.recommend("film", timeout=DEADLINE_S)
    idle.signal(signal.SIGSTOP)
    handles = client.submit_many(["film"] * 20)
    idle.kill()
    start_worker()
    for handle in handles:
        assert handle.result(DEADLINE_S).items
    assert_nothing_left(raw)


def test_a_worker_frozen_past_its_lease_neither_overwrites_nor_publishes_twice(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    frozen = start_worker(app="faulty_worker")
    with watch(raw) as published:
        texts = ["slowfault film", "film one", "film two"]
        kept = [RecommendRequest(query=text, idempotency_key=text) for text in texts]
        handles = client.submit_many(kept)  # the results of keys stay once read
        eventually(lambda: on_device(frozen), "the batch is on the device")
        frozen.signal(signal.SIGSTOP)
        start_worker()
        for handle in handles:
            assert handle.result(DEADLINE_S).items
        before = [raw.get(KEYS.result(handle.id)) for handle in handles]
        assert all(before)
        frozen.signal(signal.SIGCONT)
        eventually(lambda: "answers came too late" in frozen.log(), "the frozen worker wakes")
        assert [raw.get(KEYS.result(handle.id)) for handle in handles] == before
        assert_each_once(published, handles)
    again = client.submit_many(["film"] * 100)
    for handle in again:
        assert handle.result(DEADLINE_S).items
    assert frozen.stop() == 0
    assert_nothing_left(raw)


@pytest.mark.parametrize(
    "marker", [KEYS.incarnations.encode(), KEYS.dead_letters.encode()], ids=["lease", "commit"]
)
def test_a_reply_cut_after_the_server_executed_changes_nothing(
    marker: bytes,
    server: EmbeddedServer,
    client: Client,
    raw: "redis.Redis",
    start_worker: StartWorker,
) -> None:
    with Proxy(server.port) as proxy, watch(raw) as published:
        start_worker(url=proxy.url)
        client.recommend("film", timeout=DEADLINE_S)
        proxy.cut_reply_to(marker)
        handles = client.submit_many([f"film {n}" for n in range(100)])
        for handle in handles:
            assert handle.result(DEADLINE_S).items
        assert proxy.cuts == 1
        assert_each_once(published, handles)
    assert_nothing_left(raw)


def test_an_enqueue_whose_reply_was_cut_enqueues_once(
    server: EmbeddedServer, raw: "redis.Redis"
) -> None:
    with Proxy(server.port) as proxy:
        settings = Settings.load(redis_url=proxy.url)
        with Client(settings=settings) as client:
            client.submit("first")
            proxy.cut_reply_to(KEYS.list(names.INTERACTIVE_QUEUE).encode())
            client.submit_many(["film"] * 100)
            assert proxy.cuts == 1
    assert raw.llen(names.INTERACTIVE_QUEUE) == 101


def test_redis_restarted_under_a_worker_loses_nothing(
    server: EmbeddedServer, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker(app="faulty_worker")
    before = client.submit_many(["slowfault film", *(f"film {n}" for n in range(200))])
    eventually(lambda: on_device(worker), "a batch is on the device")
    server.kill()
    server.start()
    after = client.submit_many([f"film {n}" for n in range(200)])
    for handle in before + after:
        assert handle.result(DEADLINE_S).items
    assert worker.stop() == 0
    assert_nothing_left(raw)
    assert raw.zcard(KEYS.leases) == 0


def test_sigterm_finishes_the_batch_and_gives_the_rest_back_in_order(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    one_by_one = {"RECLANE_BATCH_REQUESTS": "1", "RECLANE_DEVICE_THREADS": "1"}
    worker = start_worker(one_by_one, app="faulty_worker")
    handles = client.submit_many([f"slowfault {n}" for n in range(12)])
    eventually(lambda: on_device(worker), "a batch is on the device")
    assert worker.stop() == 0
    rest = [h.id for h in handles if is_pending(raw.get(KEYS.result(h.id)) or b"")]
    assert 0 < len(rest) < len(handles)
    queued = [decode_message(m).id for m in raw.lrange(names.INTERACTIVE_QUEUE, 0, -1)]
    assert list(reversed(queued)) == rest
    assert in_flight(raw) == 0
    assert raw.zcard(KEYS.leases) == 0
    assert not list(raw.scan_iter(KEYS.worker("*")))


def test_a_request_that_kills_the_process_becomes_a_dead_letter_and_nobody_else_does(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    handles = client.submit_many(["film one", "film exitfault", "film two", "film three"])
    settings = {"RECLANE_MAX_ATTEMPTS": "2"}
    for _ in range(2):
        assert start_worker(settings, app="faulty_worker").wait(DEADLINE_S) == 9
    start_worker(settings, app="faulty_worker")
    with pytest.raises(RequestFailed) as raised:
        handles[1].result(DEADLINE_S)
    assert raised.value.code == "poison"
    for number in (0, 2, 3):
        assert handles[number].result(DEADLINE_S).items
    assert raw.llen(KEYS.dead_letters) == 1
    assert_nothing_left(raw)


def test_a_request_that_kills_the_process_before_the_device_becomes_a_dead_letter(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    handles = client.submit_many(["film one", "film tokenisefault", "film two"])
    settings = {"RECLANE_MAX_ATTEMPTS": "2"}
    for _ in range(2):
        worker = start_worker.prepare(settings, app="faulty_worker")
        with contextlib.suppress(ReclaneError):
            worker.start()  # it dies of its first lease, perhaps before that is seen
        assert worker.wait(DEADLINE_S) == 9
    start_worker(settings, app="faulty_worker")
    with pytest.raises(RequestFailed) as raised:
        handles[1].result(DEADLINE_S)
    assert raised.value.code == "poison"
    for number in (0, 2):
        assert handles[number].result(DEADLINE_S).items
    assert_nothing_left(raw)


@pytest.mark.parametrize("kept", ["0", "100"])
def test_a_model_that_is_broken_for_good_leaves_the_queue_to_healthy_workers(
    kept: str, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker({"RECLANE_ANSWER_CACHE": kept}, app="faulty_worker")
    breaking = client.submit("breakfault")
    assert worker.wait(DEADLINE_S) == EXIT_LANE
    assert "fails on every request" in worker.log()
    assert not breaking.done()
    start_worker()  # this one does not know the fault
    assert breaking.result(DEADLINE_S).items
    assert_nothing_left(raw)


def test_a_server_that_refuses_writes_for_a_while_loses_nothing(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """The lane waits. Celery's own consumer does not: it ends the worker, in order, and a
    supervisor starts the next one."""
    worker = start_worker(app="faulty_worker")
    eventually(lambda: "ready." in worker.log(), "Celery's own consumer has started")
    handles = client.submit_many(["slowfault film", "film one", "film two"])
    eventually(lambda: on_device(worker), "a batch is on the device")
    raw.config_set("min-replicas-to-write", 1)
    eventually(lambda: worker.log().count("lease not renewed") > 3, "the keeper is refused")
    raw.config_set("min-replicas-to-write", 0)
    eventually(lambda: "thread died" in worker.log() or handles[0].done(), "the batch is landed")
    assert "thread died" not in worker.log()
    start_worker()
    for handle in [*handles, client.submit("film")]:
        assert handle.result(DEADLINE_S).items
    assert_nothing_left(raw)


def test_costly_ranking_does_not_look_stuck(client: Client, start_worker: StartWorker) -> None:
    start_worker({"RECLANE_DEVICE_THREADS": "4"})
    requests = [RecommendRequest(query=f"anything {n}", k=300, diversity=0.5) for n in range(400)]
    handles = client.submit_many(requests)
    for handle in client.as_completed(handles, 2 * DEADLINE_S):
        assert len(handle.result(0).items) == 300


def test_a_short_request_does_not_wait_for_a_long_batch_beside_it(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker({"RECLANE_DEVICE_THREADS": "2"}, app="faulty_worker")
    client.recommend("film", timeout=DEADLINE_S)
    slow = client.submit("slowfault")
    time.sleep(0.3)
    assert client.recommend("film", timeout=DEADLINE_S).items
    assert not slow.done()
    assert slow.result(DEADLINE_S).items


def test_the_queue_watch_survives_any_number_of_reconnects(server: EmbeddedServer) -> None:
    watch_ = QueueWatch(Settings.load(redis_url=server.url))
    with redis.Redis.from_url(server.url) as other:
        for _ in range(150):
            watch_.wait(0)
            other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with contextlib.suppress(redis.ConnectionError):
                watch_.wait(5)
        watch_.wait(0)
        other.lpush(names.INTERACTIVE_QUEUE, "x")
        watch_.wait(DEADLINE_S)
        watch_.wake()
        watch_.wait(DEADLINE_S)


def test_the_queue_watch_tells_once_that_something_happened(server: EmbeddedServer) -> None:
    watch_ = QueueWatch(Settings.load(redis_url=server.url))
    assert watch_.woken()  # what came before it looked was not announced
    watch_.wait(0)
    with redis.Redis.from_url(server.url) as other:
        for happens in (watch_.wake, lambda: other.lpush(names.INTERACTIVE_QUEUE, "x")):
            assert not watch_.woken()
            happens()
            eventually(watch_.woken, "word has come")
        assert not watch_.woken()


def test_a_hung_batch_ends_the_process_with_a_reason(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker(app="faulty_worker")
    handle = client.submit("hangfault")
    assert worker.wait(DEADLINE_S) == EXIT_STUCK
    assert "is stuck: over its bound" in worker.log()
    assert handle.cancel()
    start_worker(app="faulty_worker")
    assert client.recommend("film", timeout=DEADLINE_S).items
    assert_nothing_left(raw)


def test_the_death_of_the_lane_thread_ends_the_process(
    raw: "redis.Redis", start_worker: StartWorker
) -> None:
    worker = start_worker()
    raw.set(names.INTERACTIVE_QUEUE, "not a list")  # every lease now fails for good
    assert worker.wait(DEADLINE_S) != 0
    assert "the lane thread died" in worker.log()


def test_messages_that_cannot_be_read_become_dead_letters(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    raw.lpush(names.INTERACTIVE_QUEUE, b"not json", b"{}", b'{"headers": 1, "properties": {}}')
    start_worker()
    assert client.recommend("film", timeout=DEADLINE_S).items
    eventually(lambda: raw.llen(KEYS.dead_letters) == 3, "three dead letters")
    assert_nothing_left(raw)
