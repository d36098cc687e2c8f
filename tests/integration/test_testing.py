"""The stub that users test with behaves as the lane does, and its answers are as valid."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError

from reclane import (
    AsyncClient,
    Client,
    Recommendation,
    RecommendRequest,
    RequestFailed,
    RequestRevoked,
    ResultTimeout,
    names,
)
from reclane.embedded import EmbeddedServer
from reclane.testing import StubWorker, item
from support import DEADLINE_S, KEYS, StartWorker, eventually, shape

RECOMMEND = {"queue": names.INTERACTIVE_QUEUE}


@pytest.fixture
def stub(server: EmbeddedServer) -> Iterator[StubWorker]:
    with StubWorker(server.url) as running:
        yield running


def ids(answer: Recommendation) -> list[str]:
    return [one.id for one in answer.items]


# ---- as valid as the lane's -------------------------------------------------------------------

FILMS = ("film/alien", "film/interstellar", "film/gravity", "film/arrival")

ASKED: tuple[dict[str, Any], ...] = (
    {"query": " a  story ", "k": 3},
    {"query": "a story", "k": 2, "fields": ["year", "nothing"]},
    {"history": ["film/gravity", ["film/alien", 0.5]], "k": 2, "variant": "b"},
    {"query": "a story", "candidates": list(FILMS), "exclude": ["film/alien"], "offset": 1},
    {"query": "a story", "candidates": ["film/alien"], "exclude": ["film/alien"]},
    {"query": "a story", "k": 0},
    {"query": "a story", "colour": "red"},
)


def test_what_the_stub_stores_has_the_shape_of_what_the_lane_stores(
    server: EmbeddedServer, stock: Celery, raw: "redis.Redis", start_worker: StartWorker
) -> None:
    def stored() -> list[Any]:
        results = [stock.send_task(names.RECOMMEND, args=[one], **RECOMMEND) for one in ASKED]
        for result in results:
            result.get(timeout=DEADLINE_S, propagate=False)
        return [json.loads(raw.get(KEYS.result(result.id)) or b"") for result in results]

    worker = start_worker()
    real = stored()
    worker.stop()
    with StubWorker(server.url, [item(film, "A film", year=1999) for film in FILMS]):
        stubbed = stored()
    for asked, ours, theirs in zip(ASKED, stubbed, real, strict=True):
        assert shape(ours) == shape(theirs), asked
        if theirs["status"] == "FAILURE":
            assert ours["result"] == theirs["result"]
        else:
            Recommendation.model_validate(ours["result"])
            assert ours["result"]["flags"] == theirs["result"]["flags"]
            assert ours["result"]["intent"] == theirs["result"]["intent"] | {"encoder_trust": 1.0}
            ranks = [[one["rank"] for one in meta["result"]["items"]] for meta in (ours, theirs)]
            assert ranks[0] == ranks[1]


# ---- every client -----------------------------------------------------------------------------


def test_all_three_clients_get_answers(
    stub: StubWorker, server: EmbeddedServer, client: Client, stock: Celery
) -> None:
    expected = ["item-1", "item-2"]
    assert ids(client.recommend("a film", k=2, timeout=DEADLINE_S)) == expected

    async def scenario() -> list[str]:
        async with AsyncClient(server.url) as made:
            return ids(await made.recommend("a book", k=2, timeout=DEADLINE_S))

    assert asyncio.run(scenario()) == expected
    request = {"query": "shoes", "k": 2}
    positional = stock.send_task(names.RECOMMEND, args=[request], **RECOMMEND)
    assert [i["id"] for i in positional.get(timeout=DEADLINE_S)["items"]] == expected
    keywords = stock.send_task(names.RECOMMEND, kwargs=request, **RECOMMEND)
    assert [i["id"] for i in keywords.get(timeout=DEADLINE_S)["items"]] == expected
    queries = [request.query for request in stub.requests]
    assert queries == ["a film", "a book", "shoes", "shoes"]


def test_many_requests_are_answered_each_to_its_own_handle(
    stub: StubWorker, client: Client
) -> None:
    handles = client.submit_many([f"film {n}" for n in range(300)])
    assert {handle.id for handle in client.as_completed(handles, DEADLINE_S)} == {
        handle.id for handle in handles
    }
    for number, handle in enumerate(handles):
        assert handle.result(0).intent.text == f"film {number}"


def test_every_list_of_the_lane_is_served(stub: StubWorker, stock: Celery) -> None:
    for queue in names.LANE_QUEUES:
        for priority in names.PRIORITY_STEPS:
            options = {"queue": queue, "priority": priority}
            result = stock.send_task(names.RECOMMEND, args=[{"query": "anything"}], **options)
            assert result.get(timeout=DEADLINE_S)["items"]


# ---- what it answers --------------------------------------------------------------------------


def test_the_request_narrows_what_the_test_gave(stub: StubWorker, client: Client) -> None:
    def ask(**fields: Any) -> list[str]:
        return ids(client.recommend("x", timeout=DEADLINE_S, **fields))

    stub.answer_with(["a", "b", "c", "d", "e"])
    assert ask() == ["a", "b", "c", "d", "e"]
    assert ask(k=2) == ["a", "b"]
    assert ask(k=2, offset=1) == ["b", "c"]
    assert ask(exclude=["a"], history=["b", ["c", 2.0]]) == ["d", "e"]
    assert ask(candidates=["e", "a", "unknown"]) == ["a", "e"]
    stub.answer_with([])
    empty = client.recommend("x", timeout=DEADLINE_S)
    assert (ids(empty), [flag.code for flag in empty.flags]) == ([], ["nothing_fits"])
    stub.answer_with(None)
    assert ask(candidates=["e", "a", "e"]) == ["e", "a"]
    assert ask(k=1, offset=2) == ["item-3"]


def test_a_function_may_answer_and_may_fail(stub: StubWorker, client: Client) -> None:
    def answer(request: RecommendRequest) -> list[str]:
        if request.query == "nothing":
            raise RequestFailed("sold out", "sold_out", retry=True)
        return [f"{request.query}/{n}" for n in range(request.k)]

    stub.answer_with(answer)
    assert ids(client.recommend("shoe", k=2, timeout=DEADLINE_S)) == ["shoe/0", "shoe/1"]
    with pytest.raises(RequestFailed) as raised:
        client.recommend("nothing", timeout=DEADLINE_S)
    assert (raised.value.message, raised.value.code, raised.value.retry) == (
        "sold out",
        "sold_out",
        True,
    )


def test_a_whole_recommendation_is_given_as_it_is(stub: StubWorker, client: Client) -> None:
    made = client.recommend("x", k=1, timeout=DEADLINE_S)
    mine = made.model_copy(update={"variant": "mine"})
    stub.answer_with(lambda request: mine)
    assert client.recommend("y", k=5, timeout=DEADLINE_S) == mine


def test_an_error_in_the_answer_function_reaches_the_test(
    server: EmbeddedServer, client: Client
) -> None:
    def answer(request: RecommendRequest) -> list[str]:
        raise KeyError("a mistake in the test")

    with pytest.raises(KeyError, match="a mistake"), StubWorker(server.url, answer):  # noqa: PT012
        with pytest.raises(RequestFailed, match="KeyError"):
            client.recommend("x", timeout=DEADLINE_S)
        with pytest.raises(RequestFailed, match="KeyError"):  # it goes on
            client.recommend("x", timeout=DEADLINE_S)


# ---- as told ----------------------------------------------------------------------------------


def test_it_fails_as_told_until_told_otherwise(
    stub: StubWorker, client: Client, stock: Celery
) -> None:
    stub.fail_with("pipeline_error", "the pipeline raised OutOfMemoryError", retry=True)
    with pytest.raises(RequestFailed, match="OutOfMemoryError") as raised:
        client.recommend("x", timeout=DEADLINE_S)
    assert (raised.value.code, raised.value.retry) == ("pipeline_error", True)
    result = stock.send_task(names.RECOMMEND, args=[{"query": "x"}], **RECOMMEND)
    with pytest.raises(RequestFailed) as stock_raised:
        result.get(timeout=DEADLINE_S)
    assert stock_raised.value.args == raised.value.args
    stub.answer_with(["a"])
    assert ids(client.recommend("x", timeout=DEADLINE_S)) == ["a"]
    assert len(stub.requests) == 3


def test_it_is_silent_as_told(stub: StubWorker, client: Client) -> None:
    stub.keep_silent()
    handle = client.submit("never answered")
    assert [r.query for r in stub.wait_for(1, DEADLINE_S)] == ["never answered"]
    with pytest.raises(ResultTimeout):
        handle.result(0.01)
    stub.answer_with(["a"])
    assert ids(client.recommend("x", timeout=DEADLINE_S)) == ["a"]
    assert not handle.done()
    with pytest.raises(ResultTimeout, match="2 of 3 requests"):
        stub.wait_for(3, 0.01)


# ---- as the lane does -------------------------------------------------------------------------


def test_an_expired_request_is_revoked_and_not_seen(
    server: EmbeddedServer, client: Client, stock: Celery
) -> None:
    late = client.submit("x", deadline_s=0.01)
    stock_late = stock.send_task(names.RECOMMEND, args=[{"query": "x"}], expires=0.01, **RECOMMEND)
    queued = time.time()
    eventually(lambda: time.time() > queued + 0.05, "both expired")
    with StubWorker(server.url) as stub:
        with pytest.raises(RequestRevoked) as raised:
            late.result(DEADLINE_S)
        assert raised.value.code == "expired"
        with pytest.raises(TaskRevokedError):
            stock_late.get(timeout=DEADLINE_S)
        assert stub.requests == []


def test_a_cancelled_request_is_not_seen(server: EmbeddedServer, client: Client) -> None:
    cancelled = client.submit("x")
    assert cancelled.cancel()
    with StubWorker(server.url) as stub:
        assert client.recommend("y", timeout=DEADLINE_S)
        assert [request.query for request in stub.requests] == ["y"]
    with pytest.raises(RequestRevoked, match="cancelled"):
        cancelled.result(DEADLINE_S)


def test_a_result_never_changes_once_visible(stub: StubWorker, client: Client) -> None:
    first = client.recommend("x", idempotency_key="order-7", timeout=DEADLINE_S)
    stub.fail_with("broken")
    again = client.recommend("x", idempotency_key="order-7", timeout=DEADLINE_S)
    assert again == first
    assert len(stub.requests) == 1


def test_two_clients_with_one_key_are_both_told(server: EmbeddedServer) -> None:
    with Client(server.url) as one, Client(server.url) as other:
        handles = [c.submit("x", idempotency_key="order-8") for c in (one, other)]
        with StubWorker(server.url) as stub:
            answers = [handle.result(DEADLINE_S) for handle in handles]
            assert answers[0] == answers[1]
            assert len(stub.requests) == 1


def test_it_keeps_to_the_key_prefix(
    server: EmbeddedServer, raw: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECLANE_KEY_PREFIX", "shop:")
    with StubWorker(server.url), Client(server.url) as client:
        answer = client.recommend("x", idempotency_key="order-9", timeout=DEADLINE_S)
        assert ids(answer)[0] == "item-1"
    keys = raw.keys()
    assert keys
    assert all(key.startswith(b"shop:") for key in keys)


def test_a_message_for_later_is_answered_later(
    stub: StubWorker, stock: Celery, client: Client
) -> None:
    before = time.time()
    result = stock.send_task(names.RECOMMEND, args=[{"query": "later"}], countdown=1, **RECOMMEND)
    client.recommend("now", timeout=DEADLINE_S)
    assert result.get(timeout=DEADLINE_S)["items"]
    assert time.time() >= before + 1
    assert [request.query for request in stub.requests] == ["now", "later"]


def test_an_ignored_result_is_not_stored(
    stub: StubWorker, stock: Celery, raw: "redis.Redis"
) -> None:
    stock.send_task(names.RECOMMEND, args=[{"query": "x"}], ignore_result=True, **RECOMMEND)
    result = stock.send_task(names.RECOMMEND, args=[{"query": "y"}], **RECOMMEND)
    assert result.get(timeout=DEADLINE_S)["items"]
    assert [request.query for request in stub.requests] == ["x", "y"]
    assert raw.keys(KEYS.result("*")) == [KEYS.result(result.id).encode()]


def test_what_cannot_be_read_fails_as_with_the_lane(
    stub: StubWorker, stock: Celery, raw: "redis.Redis"
) -> None:
    raw.lpush(names.INTERACTIVE_QUEUE, b"not a message")  # no id: nobody to tell
    foreign = stock.send_task("somebody.elses", **RECOMMEND)
    with pytest.raises(RequestFailed) as raised:
        foreign.get(timeout=DEADLINE_S)
    assert raised.value.code == "unknown_task"
    both = stock.send_task(names.RECOMMEND, args=[{"query": "x"}], kwargs={"k": 1}, **RECOMMEND)
    with pytest.raises(RequestFailed) as raised:
        both.get(timeout=DEADLINE_S)
    assert raised.value.code == "malformed_message"
    assert stub.requests == []


def test_it_survives_a_restart_of_the_server(client: Client) -> None:
    with EmbeddedServer() as own, StubWorker(own.url) as stub:
        own.kill()
        own.start()
        with Client(own.url) as made:
            assert made.recommend("x", timeout=DEADLINE_S).items
        assert len(stub.requests) == 1


# ---- the fixtures, as a user's tests have them ------------------------------------------------

USERS_CONFTEST = """
from reclane.testing import item

pytest_plugins = ["reclane.testing"]
"""

USERS_TESTS = """
import redis
from reclane import Client


def test_the_service_reaches_the_stub_by_the_environment(reclane_stub):
    with Client() as client:
        assert client.recommend("x", k=1, timeout=60).items[0].id == "item-1"
    assert len(reclane_stub.requests) == 1


def test_nothing_is_left_of_the_test_before(reclane_stub, reclane_server):
    assert reclane_stub.requests == []
    with redis.Redis.from_url(reclane_server.url) as connection:
        assert connection.dbsize() == 0


def test_that_is_meant_to_fail(reclane_stub):
    with Client() as client:
        assert client.recommend("x", k=1, timeout=60).items == ()
"""


def test_a_users_own_tests_run_with_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(USERS_CONFTEST)
    (tmp_path / "test_users.py").write_text(USERS_TESTS)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "-v"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED test_users.py::test_that_is_meant_to_fail" in done.stdout
