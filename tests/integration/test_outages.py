"""The world around a worker fails: Redis is away, stands still or is full, clocks differ, the
process is ended from outside or dies of itself. Nothing is lost, and no innocent is condemned."""

import contextlib
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from reclane import BrokerUnavailable, Client, RecommendRequest, RequestFailed, names
from reclane.embedded import EmbeddedServer
from reclane.operations import letters
from reclane.probe import probe
from reclane.settings import Settings
from reclane_worker.ending import EXIT_LANE, EXIT_STUCK
from support import (
    DEADLINE_S,
    KEYS,
    LEASE_MS,
    StartWorker,
    assert_each_once,
    assert_nothing_left,
    eventually,
    missing,
    on_device,
    statistics,
    watch,
)

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


# ---- Redis


def test_a_long_outage_condemns_no_innocent(
    server: EmbeddedServer, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """Both workers hold started requests, and both leases lapse many times over."""
    settings = {"RECLANE_MAX_ATTEMPTS": "2", "RECLANE_LEASE_MESSAGES": "50"}
    workers = [start_worker(settings, app="faulty_worker") for _ in range(2)]
    handles = client.submit_many(["slowfault film", *["film"] * 49] * 4)
    eventually(lambda: all(map(on_device, workers)), "both have a batch on the device")
    server.kill()
    time.sleep(5 * LEASE_MS / 1e3)
    server.start()
    for handle in handles:
        assert handle.result(DEADLINE_S).items
    assert raw.llen(KEYS.dead_letters) == 0
    assert_nothing_left(raw)
    assert [worker.stop() for worker in workers] == [0, 0]


@pytest.mark.parametrize("started", ["before", "afterwards"])
def test_a_full_server_refuses_loudly_is_drained_and_then_takes_more(
    started: str, stock: Celery, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """Also by a worker that was started there, whose Celery side has to wait for room."""
    worker = start_worker.prepare()
    if started == "before":
        worker.start()
        eventually(lambda: "ready." in worker.log(), "Celery's own consumer has started")
        worker.signal(signal.SIGSTOP)
    handles = client.submit_many(["film"] * 300)
    raw.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match="refuses"):
        client.submit("film")
    worker.signal(signal.SIGCONT) if started == "before" else worker.start()
    for handle in handles:
        assert handle.result(DEADLINE_S).items
    with pytest.raises(BrokerUnavailable, match="refuses"):
        client.submit("film")
    raw.config_set("maxmemory", 0)
    assert client.recommend("film", timeout=DEADLINE_S).items
    ordinary = stock.send_task(names.RECOMMEND, args=[{"query": "film"}], queue=names.TASKS_QUEUE)
    assert ordinary.get(timeout=DEADLINE_S)["items"]
    assert worker.stop() == 0
    assert_nothing_left(raw)


def test_a_worker_that_waits_for_room_can_be_told_to_stop(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    raw.config_set("maxmemory", 1)
    worker = start_worker()
    eventually(lambda: "Redis is full" in worker.log(), "it waits for room")
    assert worker.stop() == 0
    assert "lane drained" in worker.log()
    assert raw.zcard(KEYS.leases) == 0


# ---- messages that nobody should send


def test_odd_messages_end_as_typed_failures_and_their_neighbours_are_answered(
    stock: Celery, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    def send(task: str, **options: Any) -> AsyncResult:
        return stock.send_task(task, queue=names.INTERACTIVE_QUEUE, **options)

    before = client.submit("film")
    odd = {
        "too_large": send(names.RECOMMEND, args=[{"query": "film " * 300_000}]),
        "malformed_message": send(names.RECOMMEND, args=[{"query": "x"}], serializer="pickle"),
        "unknown_task": send("shop.clean"),
        "invalid_request": send(names.RECOMMEND, args=[{"v": 2, "query": "film"}]),
    }
    raw.lpush(names.INTERACTIVE_QUEUE, b"\x80\x04\x95 not even JSON")
    after = client.submit("film")
    worker = start_worker()
    for code, result in odd.items():
        with pytest.raises(Exception, match=code) as raised:
            result.get(timeout=DEADLINE_S)
        assert type(raised.value).__name__ == "RequestFailed"
    assert before.result(DEADLINE_S).items
    assert after.result(DEADLINE_S).items
    kept = {one.code for one in letters.newest(raw, KEYS)}
    assert kept == {"too_large", "malformed_message", "unknown_task"}
    assert raw.llen(KEYS.dead_letters) == 4
    assert worker.stop() == 0
    assert_nothing_left(raw)


def test_one_key_asked_fifty_times_at_once_is_computed_once(
    server: EmbeddedServer, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    request = RecommendRequest(query="film", idempotency_key="k")
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(50) as pool:
        clients = [stack.enter_context(Client(server.url)) for _ in range(5)]
        worker = start_worker()
        barrier = threading.Barrier(50)

        def ask(number: int) -> list[str]:
            barrier.wait(DEADLINE_S)
            answer = clients[number % 5].recommend(request, timeout=DEADLINE_S)
            return [item.id for item in answer.items]

        answers = list(pool.map(ask, range(50)))
    assert all(answer == answers[0] for answer in answers)
    eventually(
        lambda: statistics(raw).get("requests") == 1, "the worker says that it ran one request"
    )
    assert worker.stop() == 0


# ---- clocks


def test_workers_whose_clocks_are_an_hour_off_work_as_any_other(
    client: Client, raw: "redis.Redis", start_worker: StartWorker, stock: Celery
) -> None:
    """Leases, deadlines and due times all go by Redis's clock."""
    if not FAKETIME:
        missing("needs libfaketime: apt-get install faketime")
    fake = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    handles = client.submit_many([RecommendRequest(query="film", deadline_s=1800)] * 20)
    late = client.submit("film", deadline_s=0.01)
    with pytest.raises(RequestFailed, match="expired"):
        late.result(DEADLINE_S)
    soon = stock.send_task(
        names.RECOMMEND, args=[{"query": "film"}], countdown=1, queue=names.INTERACTIVE_QUEUE
    )
    few = {**fake, "RECLANE_LEASE_MESSAGES": "4"}
    workers = [start_worker({**few, "FAKETIME": offset}) for offset in ("-1h", "+1h")]
    for handle in handles:
        assert handle.result(DEADLINE_S).items
    assert soon.get(timeout=DEADLINE_S)["items"]
    more = client.submit_many(["film"] * 200)
    for handle in more:
        answer = handle.result(DEADLINE_S)
        assert 0 <= answer.timing_ms.queued < 1e3 * DEADLINE_S
    for worker in workers:
        assert "is gone" not in worker.log()
        assert worker.stop() == 0
    assert_nothing_left(raw)


# ---- the process


def test_a_worker_killed_after_its_grace_period_loses_nothing(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """It hangs when it is told to stop, and whoever told it loses patience."""
    hung = start_worker({"RECLANE_DRAIN_S": "600"}, app="faulty_worker")
    with watch(raw) as published:
        handles = client.submit_many(["slowfault film", *["film"] * 100])
        eventually(lambda: on_device(hung), "a batch is on the device")
        hung.signal(signal.SIGTERM)
        eventually(lambda: "Warm shutdown" in hung.log(), "it is shutting down")
        hung.kill()
        start_worker(app="faulty_worker")
        for handle in handles:
            assert handle.result(DEADLINE_S).items
        assert_each_once(published, handles)
    assert_nothing_left(raw)


def test_after_the_lane_thread_died_of_the_unexpected_a_restart_picks_up(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    """The exception leaves the loop where nothing expects one."""
    broken = start_worker({"FAULTY_LAND": "1"}, app="faulty_worker")
    handles = client.submit_many(["film"] * 50)
    assert broken.wait(DEADLINE_S) == EXIT_LANE
    assert "the lane thread died of ZeroDivisionError" in broken.log()
    start_worker()
    for handle in handles:
        assert handle.result(DEADLINE_S).items
    assert raw.llen(KEYS.dead_letters) == 0
    assert_nothing_left(raw)


def test_the_probe_says_that_a_batch_is_stuck_before_the_process_ends(
    client: Client, server: EmbeddedServer, start_worker: StartWorker, tmp_path: Path
) -> None:
    id_file = tmp_path / "id"
    worker = start_worker({"RECLANE_ID_FILE": str(id_file)}, app="faulty_worker")
    settings = Settings.load(redis_url=server.url, id_file=id_file)
    assert probe("ready", settings, DEADLINE_S).ok
    client.submit("hangfault")
    red = []

    def ended() -> bool:
        verdict = probe("ready", settings, DEADLINE_S)
        if not verdict.ok and "should have ended" in verdict.reason:
            red.append(probe("live", settings, DEADLINE_S).ok)
        return worker.ended()

    eventually(ended, "the stuck worker ends")
    assert worker.wait() == EXIT_STUCK
    assert red
    assert any(red)  # not yet a reason to kill it
