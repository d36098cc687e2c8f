"""What a client sees of a healthy worker."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from reclane import (
    AsyncClient,
    BrokerUnavailable,
    Client,
    ClientClosed,
    InvalidRequest,
    RequestFailed,
    RequestRevoked,
    ResultTimeout,
    names,
)
from reclane.embedded import EmbeddedServer
from support import DEADLINE_S, StartWorker, eventually, statistics


def test_a_request_is_answered_with_items_and_versions(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    answer = client.recommend("科幻电影", k=4, fields=["year"], timeout=DEADLINE_S)
    assert [item.rank for item in answer.items] == [1, 2, 3, 4]
    assert all("year" in item.fields for item in answer.items)
    assert answer.versions.model == "hash:384@1"
    assert answer.versions.catalog.startswith("demo@")


def test_many_requests_come_back_each_to_its_own_handle(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    handles = client.submit_many([f"film number {n}" for n in range(1_500)])
    done = list(client.as_completed(handles, DEADLINE_S))
    assert {handle.id for handle in done} == {handle.id for handle in handles}
    for number, handle in enumerate(handles):
        assert handle.result(0).intent.text == f"film number {number}"


def test_requests_queued_before_run_together(client: Client, start_worker: StartWorker) -> None:
    handles = client.submit_many([f"a film about space {n}" for n in range(64)])
    start_worker()
    sizes = [handle.result(DEADLINE_S).batch.size for handle in handles]
    assert max(sizes) > 16


def test_equal_requests_of_one_lease_run_once_and_fail_together(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    texts = [*["running shoes"] * 40, *(f"film {n}" for n in range(20)), *["raisefault"] * 3]
    handles = client.submit_many(texts)
    start_worker(app="faulty_worker")
    answers = [handle.result(DEADLINE_S) for handle in handles[:-3]]
    assert [answer.intent.text for answer in answers] == texts[:-3]
    assert all(answer.items == answers[0].items for answer in answers[:40])
    assert max(answer.batch.size for answer in answers) <= 21
    for handle in handles[-3:]:
        with pytest.raises(RequestFailed, match="pipeline_error"):
            handle.result(DEADLINE_S)
    eventually(lambda: statistics(raw).get("requests") == 63, "it counts every message")
    assert statistics(raw)["shared"] == 39 + 2


def test_a_kept_answer_is_given_again_and_says_so(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    start_worker({"RECLANE_ANSWER_CACHE": "100"})
    first, *others = (client.recommend("shoes", timeout=DEADLINE_S) for _ in range(3))
    for other in others:
        assert other.items == first.items
        assert other.timing_ms.model == other.timing_ms.rank == 0.0
        assert [flag.code for flag in other.flags] == ["cached"]
    assert first.flags == ()
    eventually(lambda: statistics(raw).get("cache_hits") == 2, "it counts what it found")
    assert statistics(raw)["requests"] == 1


def test_the_async_client_does_what_the_sync_client_does(
    server: EmbeddedServer, start_worker: StartWorker
) -> None:
    start_worker()

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            answer = await client.recommend("running shoes", k=3, timeout=DEADLINE_S)
            assert len(answer.items) == 3
            handles = await client.submit_many([f"film {n}" for n in range(600)])
            seen = {handle.id async for handle in client.as_completed(handles, DEADLINE_S)}
            assert seen == {handle.id for handle in handles}
            with pytest.raises(RequestFailed, match="no attribute"):
                await client.recommend("x", filters={"nope": 1}, timeout=DEADLINE_S)
        with pytest.raises(ClientClosed):
            await client.submit("x")

    asyncio.run(scenario())


def test_a_user_error_is_raised_before_anything_is_enqueued(
    client: Client, raw: "redis.Redis"
) -> None:
    with pytest.raises(InvalidRequest, match="k: "):
        client.submit("film", k=0)
    with pytest.raises(InvalidRequest, match="at least one of"):
        client.submit()
    with pytest.raises(InvalidRequest):
        client.submit_many(["fine", "   "])
    assert raw.llen(names.INTERACTIVE_QUEUE) == 0


def test_a_request_that_raises_fails_alone(client: Client, start_worker: StartWorker) -> None:
    texts = [f"space film {n}" for n in range(20)]
    texts[7] = "space raisefault film"
    texts[13] = "space nanfault film"
    handles = client.submit_many(texts)
    start_worker(app="faulty_worker")
    with pytest.raises(RequestFailed) as raised:
        handles[7].result(DEADLINE_S)
    assert (raised.value.code, raised.value.retry) == ("pipeline_error", True)
    with pytest.raises(RequestFailed) as not_finite:
        handles[13].result(DEADLINE_S)
    assert not_finite.value.code == "non_finite"
    for number, handle in enumerate(handles):
        if number not in (7, 13):
            assert handle.result(DEADLINE_S).items


def test_no_request_text_reaches_the_log(client: Client, start_worker: StartWorker) -> None:
    worker = start_worker(app="faulty_worker")
    client.recommend("secretword film", timeout=DEADLINE_S)
    with pytest.raises(RequestFailed):
        client.recommend("secretword raisefault", timeout=DEADLINE_S)
    with pytest.raises(RequestFailed):
        client.recommend("secretword", filters={"nope": "secretword"}, timeout=DEADLINE_S)
    assert "secretword" not in worker.log()
    assert "failed alone with RuntimeError" in worker.log()


def test_a_cancelled_request_is_revoked_and_never_runs(
    client: Client, start_worker: StartWorker
) -> None:
    handle = client.submit("film")
    assert handle.cancel()
    with pytest.raises(RequestRevoked, match="cancelled"):
        handle.result(DEADLINE_S)
    worker = start_worker()
    client.recommend("another film", timeout=DEADLINE_S)
    eventually(lambda: f"{handle.id} ended without a run" in worker.log(), "the worker drops it")


def test_cancelling_an_answered_request_is_too_late(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    handle = client.submit("film")
    answer = handle.result(DEADLINE_S)
    assert not handle.cancel()
    assert handle.result(0) == answer


def test_a_request_past_its_deadline_is_expired(client: Client, start_worker: StartWorker) -> None:
    handle = client.submit("film", deadline_s=0.05)
    fresh = client.submit("film", deadline_s=600)
    start_worker()
    with pytest.raises(RequestRevoked, match="expired"):
        handle.result(DEADLINE_S)
    assert fresh.result(DEADLINE_S).items


def test_waiting_has_a_timeout_and_the_request_survives_it(
    client: Client, start_worker: StartWorker
) -> None:
    handle = client.submit("film")
    with pytest.raises(ResultTimeout):
        handle.result(0.05)
    with pytest.raises(ResultTimeout):
        list(client.as_completed([handle], timeout=0.05))
    start_worker()
    assert handle.result(DEADLINE_S).items


def test_a_lost_notification_is_made_good_by_reading_again(
    client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    handles = client.submit_many(["film"] * 50)
    raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    start_worker()
    raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    for handle in handles:
        assert handle.result(DEADLINE_S).items


def test_a_failed_submit_leaves_another_waiter_of_its_key_alone(
    server: EmbeddedServer, client: Client, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    first = client.submit("film", idempotency_key="one")
    raw.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match="refuses"):
        client.submit("film", idempotency_key="one")
    raw.config_set("maxmemory", 0)
    start_worker()
    assert first.result(DEADLINE_S).items


def test_a_client_used_after_a_fork_says_so(client: Client) -> None:
    client.submit("film")
    pid = client._pid
    client._pid = pid + 1  # what a child sees: forking under pytest's threads would warn
    with pytest.raises(ClientClosed, match="before a fork"):
        client.submit("film")
    client._pid = pid


def test_closing_a_client_ends_its_waiters(server: EmbeddedServer) -> None:
    client = Client(server.url)
    handle = client.submit("film")
    client.close()
    with pytest.raises(ClientClosed):
        handle.result(DEADLINE_S)
    with pytest.raises(ClientClosed):
        client.submit("film")


def test_reclane_worker_that_cannot_start_says_so_by_its_exit_code(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "reclane.cli", "worker", "--model", "hash:384"]
    done = subprocess.run(
        [*command, "--catalog", str(tmp_path / "nowhere")],
        env={**os.environ, "RECLANE_REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode != 0
    assert "nowhere" in done.stderr


@pytest.mark.parametrize("lane", ["true", "false"])
def test_reclane_worker_is_the_same_worker(
    lane: str, server: EmbeddedServer, client: Client, hash_catalog: Path
) -> None:
    command = [str(Path(sys.executable).parent / "reclane"), "worker"]
    options = ["--model", "hash:384", "--catalog", f"shop={hash_catalog}"]
    environment = {**os.environ, "RECLANE_REDIS_URL": server.url, "RECLANE_LANE": lane}
    with subprocess.Popen(
        command + options,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            answer = client.recommend("film", timeout=DEADLINE_S)
            assert answer.versions.catalog.startswith("shop@")
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
