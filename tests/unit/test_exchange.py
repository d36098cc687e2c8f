"""What both clients share: merging, grouping into bounded calls, retrying, settling answers."""

import json
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from reclane import _exchange, names, wire
from reclane._exchange import EnqueueCall, Outgoing, Outstanding, Retrying
from reclane.contract import Failure, Recommendation, RecommendRequest
from reclane.errors import (
    BrokerUnavailable,
    ClientClosed,
    InvalidRequest,
    ReclaneError,
    RequestFailed,
    RequestRevoked,
    WireError,
)
from reclane.settings import Settings
from support import KEYS

ANSWER = json.loads((Path(__file__).parent / "golden/answer_v1.json").read_text("utf-8"))
NOW = 1_700_000_000.0


def success(task_id: str = "a") -> bytes:
    return wire.encode_success(task_id, ANSWER, NOW)


def send(size: int, number: int, queue_list: str = "q") -> Outgoing:
    return Outgoing(str(number), queue_list, b"%0*d" % (size, number))


def payload(call: EnqueueCall) -> tuple[bytes | int, ...]:
    return call.args[1:]


# ---- enqueueing


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1_234])
def test_calls_hold_at_most_500_messages_in_order_each_exactly_once(count: int) -> None:
    calls = list(_exchange.enqueue_calls([send(10, n) for n in range(count)], KEYS))
    assert [raw for call in calls for raw in payload(call)] == [b"%010d" % n for n in range(count)]
    assert len(calls) == -(-count // 500)
    assert all(1 <= len(payload(call)) <= 500 for call in calls)


def test_calls_hold_at_most_a_million_bytes() -> None:
    calls = list(_exchange.enqueue_calls([send(250_000, n) for n in range(9)], KEYS))
    assert [len(payload(call)) for call in calls] == [4, 4, 1]


def test_a_message_larger_than_a_call_goes_alone() -> None:
    sizes = (10, 1_000_001, 10)
    calls = list(_exchange.enqueue_calls([send(size, n) for n, size in enumerate(sizes)], KEYS))
    assert [[len(raw) for raw in payload(call)] for call in calls] == [[10], [1_000_001], [10]]


def test_lists_are_kept_apart_and_each_in_order() -> None:
    messages = [send(10, n, f"q{n % 2}") for n in range(10)]
    calls = {call.keys[1]: payload(call) for call in _exchange.enqueue_calls(messages, KEYS)}
    assert calls == {
        f"q{which}": tuple(b"%010d" % n for n in range(which, 10, 2)) for which in (0, 1)
    }


def test_every_call_has_an_id_of_its_own_and_bounds_how_long_it_is_known() -> None:
    calls = list(_exchange.enqueue_calls([send(10, n) for n in range(1_001)], KEYS))
    assert len({call.keys[0] for call in calls}) == 3
    assert all(call.args[0] == 60 for call in calls)


def test_a_request_becomes_a_message_for_the_interactive_queue() -> None:
    message = _exchange.outgoing(RecommendRequest(query="shoes"), "reclane:notify:c", NOW)
    assert message.queue_list == names.INTERACTIVE_QUEUE
    read = wire.decode_message(message.raw)
    assert (read.id, read.reply_to, read.sent) == (message.id, "reclane:notify:c", NOW)


def test_the_same_idempotency_key_gives_the_same_id_and_another_another() -> None:
    ids = [
        _exchange.outgoing(RecommendRequest(query=query, idempotency_key=key), "", NOW).id
        for query, key in (("a", "k1"), ("b", "k1"), ("a", "k2"))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_without_an_idempotency_key_every_id_is_new() -> None:
    request = RecommendRequest(query="a")
    assert len({_exchange.outgoing(request, "", NOW).id for _ in range(10)}) == 10


def test_a_request_larger_than_the_limit_is_refused_before_it_is_sent() -> None:
    request = RecommendRequest(exclude=tuple(f"{n:0256}" for n in range(1_000)), query="a")
    with pytest.raises(InvalidRequest, match="limit 262144"):
        _exchange.outgoing(request, "", NOW)


def test_a_cancellation_stores_a_revocation_under_the_result_key() -> None:
    key, meta, ttl_s, channel, task_id = _exchange.cancel_call(
        "t-1", "reclane:notify:c", Settings(), NOW
    )
    assert (key, ttl_s, channel, task_id) == (
        "celery-task-meta-t-1",
        300,
        "reclane:notify:c",
        "t-1",
    )
    found = wire.outcome(wire.decode_result(meta))
    assert isinstance(found, RequestRevoked)
    assert found.code == "cancelled"


# ---- merging


def test_a_string_is_the_query() -> None:
    assert _exchange.merge("shoes", {"k": 3}) == RecommendRequest(query="shoes", k=3)


def test_fields_alone_are_a_request() -> None:
    assert _exchange.merge(None, {"user_id": "u"}) == RecommendRequest(user_id="u")


def test_a_ready_request_is_taken_as_it_is() -> None:
    request = RecommendRequest(query="shoes")
    assert _exchange.merge(request, {}) is request


def test_a_ready_request_with_fields_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not both"):
        _exchange.merge(RecommendRequest(query="shoes"), {"k": 3})


@pytest.mark.parametrize(
    ("request_", "fields"),
    [(None, {}), ("", {}), ("shoes", {"k": 0}), ("shoes", {"kk": 1}), (5, {}), (b"shoes", {})],
)
def test_what_breaks_the_contract_is_refused(request_: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        _exchange.merge(request_, fields)


def test_a_query_given_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        _exchange.merge("shoes", {"query": "boots"})


# ---- retrying


def test_pauses_double_up_to_a_second() -> None:
    retry = Retrying(60.0, now=0.0)
    pauses = [retry.pause_s(redis.ConnectionError(), 0.0) for _ in range(7)]
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


@pytest.mark.parametrize(
    "error", [redis.ConnectionError(), redis.TimeoutError(), redis.BusyLoadingError()]
)
def test_a_passing_error_is_repeated_until_the_time_is_up(error: redis.RedisError) -> None:
    retry = Retrying(15.0, now=100.0)
    assert retry.pause_s(error, 114.9) == 0.05
    with pytest.raises(BrokerUnavailable, match="RECLANE_REDIS_URL") as caught:
        retry.pause_s(error, 114.95)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        redis.ResponseError("OOM command not allowed"),
        redis.AuthenticationError("WRONGPASS"),
        redis.exceptions.ReadOnlyError("READONLY"),
        redis.exceptions.NoPermissionError("NOPERM"),
    ],
)
def test_a_refusal_is_not_repeated(error: redis.RedisError) -> None:
    with pytest.raises(BrokerUnavailable, match=f"Redis refuses: {error}") as caught:
        Retrying(15.0, now=0.0).pause_s(error, 0.0)
    assert caught.value.__cause__ is error


def test_the_sum_of_all_pauses_stays_within_the_time() -> None:
    retry, now, pauses = Retrying(15.0, now=0.0), 0.0, 0
    with suppress(BrokerUnavailable):
        while pauses < 1_000:
            now += retry.pause_s(redis.ConnectionError(), now)
            pauses += 1
    assert pauses < 1_000
    assert 13.0 < now <= 15.0


# ---- settling


def waiting(*ids: str) -> tuple[Outstanding, list[Future[Recommendation]]]:
    outstanding = Outstanding()
    futures: list[Future[Recommendation]] = [Future() for _ in ids]
    for task_id, future in zip(ids, futures, strict=True):
        outstanding.add(task_id, future)
    return outstanding, futures


def test_an_answer_settles_its_future_and_no_other() -> None:
    outstanding, (a, b) = waiting("a", "b")
    outstanding.settle(["a", "b"], [success(), None])
    assert a.result(0) == Recommendation.model_validate(ANSWER)
    assert not b.done()
    assert outstanding.ids() == ["b"]


def test_a_failure_settles_its_future_with_the_typed_error() -> None:
    outstanding, (a,) = waiting("a")
    failure = Failure(code="poison", message="died", retry=True)
    outstanding.settle(["a"], [wire.encode_failure("a", failure, NOW)])
    error = a.exception(0)
    assert isinstance(error, RequestFailed)
    assert (error.code, error.retry) == ("poison", True)


def test_a_revocation_settles_its_future() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.settle(["a"], [wire.encode_revoked("a", "expired", NOW)])
    assert isinstance(a.exception(0), RequestRevoked)


def test_two_handles_of_one_id_get_the_same_answer() -> None:
    outstanding, (first, second) = waiting("a", "a")
    assert len(outstanding) == 1
    outstanding.settle(["a"], [success()])
    assert first.result(0) is second.result(0)


def test_a_result_that_is_not_ready_stays_outstanding() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.settle(["a"], [b'{"status": "STARTED", "result": null}'])
    assert not a.done()
    assert outstanding.ids() == ["a"]


def test_an_answer_that_breaks_the_contract_is_a_failure_that_says_upgrade() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.settle(["a"], [wire.encode_success("a", ANSWER | {"novel": 1}, NOW)])
    error = a.exception(0)
    assert isinstance(error, RequestFailed)
    assert error.code == "version"


def test_bytes_that_are_no_result_fail_their_future() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.settle(["a"], [b"garbage"])
    assert isinstance(a.exception(0), WireError)


def test_an_id_that_nobody_awaits_is_ignored() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.settle(["x"], [success("x")])
    assert outstanding.wanted(["x", "a", "y"]) == ["a"]
    assert not a.done()


def test_settling_twice_changes_nothing() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.settle(["a"], [success()])
    outstanding.settle(["a"], [wire.encode_revoked("a", "expired", NOW)])
    assert a.exception(0) is None


def test_a_cancelled_future_does_not_stop_its_neighbour() -> None:
    outstanding, (a, b) = waiting("a", "b")
    assert a.cancel()
    outstanding.settle(["a", "b"], [success("a"), success("b")])
    assert b.done()
    assert len(outstanding) == 0


def test_as_many_ids_as_stored_values_are_needed() -> None:
    outstanding, _ = waiting("a", "b")
    with pytest.raises(ValueError, match="zip"):
        outstanding.settle(["a", "b"], [success()])


def test_a_dropped_id_is_never_settled() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.drop("a", a)
    outstanding.drop("never there", a)
    outstanding.settle(["a"], [success()])
    assert not a.done()


def test_dropping_one_waiter_leaves_another_of_the_same_id() -> None:
    outstanding, (first, second) = waiting("a", "a")
    outstanding.drop("a", second)
    outstanding.settle(["a"], [success()])
    assert first.done()
    assert not second.done()


def test_closing_fails_all_that_wait() -> None:
    outstanding, futures = waiting("a", "a", "b")
    error: ReclaneError = ClientClosed("closed")
    outstanding.fail_all(error)
    assert [future.exception(0) for future in futures] == [error] * 3
    assert len(outstanding) == 0


# ---- small helpers


def test_a_notification_is_one_id_a_line() -> None:
    assert _exchange.notified_ids("a\nß\nc".encode()) == ["a", "ß", "c"]


def test_a_notification_that_is_no_utf8_harms_nobody() -> None:
    assert _exchange.notified_ids(b"a\n\xff\nb")[::2] == ["a", "b"]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (6, [3, 3]), (7, [3, 3, 1])])
def test_chunks_are_slices_in_order(count: int, sizes: list[int]) -> None:
    parts = list(_exchange.chunks(range(count), 3))
    assert [len(part) for part in parts] == sizes
    assert [value for part in parts for value in part] == list(range(count))
