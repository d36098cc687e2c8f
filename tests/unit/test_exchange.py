"""What both clients share: merging, grouping into bounded calls, retrying, settling answers."""

import json
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
import redis

from reclane import _exchange, _outgoing, names, wire
from reclane._outbox import Outbox, Pause
from reclane._outgoing import EnqueueCall, Outgoing
from reclane._outstanding import Outstanding
from reclane.contract import Failure, Recommendation, RecommendRequest
from reclane.errors import (
    BrokerUnavailable,
    ClientClosed,
    InvalidRequest,
    ReclaneError,
    RequestFailed,
    RequestRevoked,
    UnknownRequest,
    WireError,
)
from reclane.settings import Settings
from support import KEYS

ANSWER = json.loads((Path(__file__).parent / "golden/answer_v1.json").read_text("utf-8"))
NOW = 1_700_000_000.0
CHANNEL = names.notify_channel("c")


def success(task_id: str = "a") -> bytes:
    return wire.encode_success(task_id, ANSWER, NOW)


def send(size: int, number: int, queue: str = "q", digest: str = "") -> Outgoing:
    return Outgoing(str(number), queue, b"%0*d" % (size, number), digest)


def calls_for(messages: Iterable[Outgoing]) -> list[EnqueueCall]:
    return list(_outgoing.enqueue_calls(messages, CHANNEL, Settings(), NOW))


def payload(call: EnqueueCall) -> tuple[Any, ...]:
    """The messages in a command: EVALSHA sha n keys, eight arguments, four for each message."""
    count = call.command[2]
    assert isinstance(count, int)
    return call.command[3 + count + 8 :: 4]


def coming(call: EnqueueCall) -> object:
    count = call.command[2]
    assert isinstance(count, int)
    return call.command[3 + count + 3]


def urgent(call: EnqueueCall) -> object:
    count = call.command[2]
    assert isinstance(count, int)
    return call.command[3 + count + 4]


# ---- enqueueing


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1_234])
def test_calls_hold_at_most_500_messages_in_order_each_exactly_once(count: int) -> None:
    calls = calls_for(send(10, n) for n in range(count))
    assert [raw for call in calls for raw in payload(call)] == [b"%010d" % n for n in range(count)]
    assert len(calls) == -(-count // 500)
    assert all(1 <= len(payload(call)) <= 500 for call in calls)


def test_calls_hold_at_most_a_million_bytes() -> None:
    calls = calls_for(send(250_000, n) for n in range(9))
    assert [len(payload(call)) for call in calls] == [4, 4, 1]


def test_a_message_larger_than_a_call_goes_alone() -> None:
    sizes = (10, 1_000_001, 10)
    calls = calls_for(send(size, n) for n, size in enumerate(sizes))
    assert [[len(raw) for raw in payload(call)] for call in calls] == [[10], [1_000_001], [10]]


def test_queues_are_kept_apart_and_each_in_order() -> None:
    calls = calls_for(send(10, n, f"q{n % 2}") for n in range(10))
    assert {call.command[5]: payload(call) for call in calls} == {
        f"q{which}": tuple(b"%010d" % n for n in range(which, 10, 2)) for which in (0, 1)
    }


def test_the_first_call_decides_for_all_and_the_others_look_whether_it_was_admitted() -> None:
    calls = calls_for(send(10, n) for n in range(1_200))
    assert [coming(call) for call in calls] == [700, -1, -1]
    assert len({call.command[3] for call in calls}) == 1


def test_the_first_call_knows_the_nearest_deadline_of_the_later_ones() -> None:
    later = {700: NOW + 9.0, 1_100: NOW + 5.0}
    calls = calls_for(replace(send(10, n), expires=later.get(n)) for n in range(1_200))
    assert [urgent(call) for call in calls] == ["5.000", "", ""]
    assert [urgent(call) for call in calls_for(send(10, n) for n in range(501))] == ["", ""]


def test_a_request_becomes_a_message_for_the_interactive_queue() -> None:
    message = _outgoing.outgoing(RecommendRequest(query="shoes"), "reclane:notify:c", NOW)
    assert message.queue == names.INTERACTIVE_QUEUE
    read = wire.decode_message(message.raw)
    assert (read.id, read.reply_to, read.sent) == (message.id, "reclane:notify:c", NOW)


def test_the_same_idempotency_key_gives_the_same_id_and_another_another() -> None:
    ids = [
        _outgoing.outgoing(RecommendRequest(query=query, idempotency_key=key), "", NOW).id
        for query, key in (("a", "k1"), ("b", "k1"), ("a", "k2"))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_without_an_idempotency_key_every_id_is_new() -> None:
    request = RecommendRequest(query="a")
    assert len({_outgoing.outgoing(request, "", NOW).id for _ in range(10)}) == 10


def test_a_request_larger_than_the_limit_is_refused_before_it_is_sent() -> None:
    request = RecommendRequest(exclude=tuple(f"{n:0256}" for n in range(1_000)), query="a")
    with pytest.raises(InvalidRequest, match="limit 262144"):
        _outgoing.outgoing(request, "", NOW)


def test_a_cancellation_stores_a_revocation_under_the_result_key() -> None:
    exchange = _exchange.Exchange(Settings())
    (command,) = next(exchange.cancel("t-1"))
    assert command[3] == "celery-task-meta-t-1"
    assert command[5:] == (300, exchange.channel, "t-1")
    assert isinstance(command[4], bytes)
    found = wire.outcome(wire.decode_result(command[4]))
    assert isinstance(found, RequestRevoked)
    assert found.code == "cancelled"


def test_ids_of_keys_can_be_told_from_others() -> None:
    keyed = RecommendRequest(query="a", idempotency_key="k")
    assert _outgoing.is_keyed(_outgoing.outgoing(keyed, "", NOW).id)
    assert not _outgoing.is_keyed(_outgoing.outgoing(RecommendRequest(query="a"), "", NOW).id)
    assert not _outgoing.is_keyed("")


def test_a_digest_tells_requests_apart_but_not_deadlines() -> None:
    one = wire.request_digest(RecommendRequest(query="a", idempotency_key="k"))
    later = RecommendRequest(query="a", idempotency_key="k", deadline_s=5)
    assert wire.request_digest(later) == one
    ways = ({"y": 2000, "x": "b"}, {"x": "b", "y": 2000.0})
    assert len({wire.request_digest(RecommendRequest(query="a", filters=w)) for w in ways}) == 1
    assert wire.request_digest(RecommendRequest(query="b", idempotency_key="k")) != one


# ---- merging


def test_a_string_is_the_query() -> None:
    assert _outgoing.merge("shoes", {"k": 3}) == RecommendRequest(query="shoes", k=3)


def test_fields_alone_are_a_request() -> None:
    assert _outgoing.merge(None, {"user_id": "u"}) == RecommendRequest(user_id="u")


def test_a_ready_request_is_taken_as_it_is() -> None:
    request = RecommendRequest(query="shoes")
    assert _outgoing.merge(request, {}) is request


def test_a_ready_request_with_fields_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not both"):
        _outgoing.merge(RecommendRequest(query="shoes"), {"k": 3})


@pytest.mark.parametrize(
    ("request_", "fields"),
    [(None, {}), ("", {}), ("shoes", {"k": 0}), ("shoes", {"kk": 1}), (5, {}), (b"shoes", {})],
)
def test_what_breaks_the_contract_is_refused(request_: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        _outgoing.merge(request_, fields)


def test_a_query_given_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        _outgoing.merge("shoes", {"query": "boots"})


# ---- the outbox


class Server:
    """Answers flushes from a script: replies, or an error to raise, in order."""

    def __init__(self, *turns: object) -> None:
        self.turns = list(turns)
        self.asked: list[list[Any]] = []
        self.pauses: list[float] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def flush(self, outbox: Outbox) -> None:
        steps = outbox.flush()
        with suppress(StopIteration):
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = steps.send([])
                    continue
                self.asked.append(list(step))
                turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
                if isinstance(turn, Exception):
                    step = steps.throw(turn)
                else:
                    assert isinstance(turn, list)
                    step = steps.send(turn)


def test_tickets_go_out_together_and_each_gets_its_own_replies() -> None:
    server = Server([1, 2, 3])
    outbox = Outbox(15.0, server.clock)
    first, second = outbox.put([("A",), ("B",)]), outbox.put([("C",)])
    server.flush(outbox)
    assert server.asked == [[(b"A",), (b"B",), (b"C",)]]
    assert (first.take(), second.take()) == ([1, 2], [3])


def test_a_flush_is_bounded_in_bytes_and_the_rest_goes_next() -> None:
    server = Server([1, 2], [3])
    outbox = Outbox(15.0, server.clock)
    tickets = [outbox.put([("A", b"x" * 1_500_000)]) for _ in range(3)]
    server.flush(outbox)
    assert [ticket.done for ticket in tickets] == [True, True, False]
    server.flush(outbox)
    assert tickets[2].take() == [3]


def test_what_cannot_be_encoded_fails_its_own_caller_before_it_joins_others() -> None:
    outbox = Outbox(15.0, lambda: 0.0)
    with pytest.raises(UnicodeEncodeError):
        outbox.put([("GET", "\ud800")])
    fine = outbox.put([("A",)])
    Server([1]).flush(outbox)
    assert fine.take() == [1]


def test_a_withdrawn_ticket_is_not_sent() -> None:
    server = Server([1])
    outbox = Outbox(15.0, server.clock)
    gone, kept = outbox.put([("A",)]), outbox.put([("B",)])
    outbox.withdraw(gone)
    server.flush(outbox)
    assert server.asked == [[(b"B",)]]
    assert kept.done


def test_a_sender_that_is_cancelled_leaves_the_tickets_to_the_next() -> None:
    outbox = Outbox(15.0, lambda: 0.0)
    ticket = outbox.put([("A",)])
    steps = outbox.flush()
    next(steps)
    steps.close()
    assert not ticket.done
    Server([1]).flush(outbox)
    assert ticket.take() == [1]


@pytest.mark.parametrize(
    "error", [redis.ConnectionError(), redis.TimeoutError(), redis.BusyLoadingError()]
)
def test_a_passing_error_is_repeated_with_growing_pauses_until_the_time_is_up(
    error: redis.RedisError,
) -> None:
    server = Server(error)
    outbox = Outbox(15.0, server.clock)
    ticket = outbox.put([("A",)])
    server.flush(outbox)
    assert server.pauses[:6] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
    assert 13.0 < server.now <= 15.0
    with pytest.raises(BrokerUnavailable, match="RECLANE_REDIS_URL") as caught:
        ticket.take()
    assert caught.value.__cause__ is error


def test_each_caller_has_a_time_of_its_own() -> None:
    server = Server(redis.ConnectionError())
    outbox = Outbox(15.0, server.clock)
    early = outbox.put([("A",)])
    server.now = 10.0
    late = outbox.put([("B",)])
    server.flush(outbox)
    assert early.done
    assert late.done
    assert server.now > 20.0
    assert (b"A",) not in server.asked[-1]


def test_a_loading_server_among_the_replies_is_away_too() -> None:
    server = Server([redis.BusyLoadingError()], [1])
    outbox = Outbox(15.0, server.clock)
    ticket = outbox.put([("A",)])
    server.flush(outbox)
    assert ticket.take() == [1]


def test_an_unknown_script_is_loaded_and_everything_repeated() -> None:
    server = Server([redis.exceptions.NoScriptError("NOSCRIPT")], ["sha", 1])
    outbox = Outbox(15.0, server.clock)
    ticket = outbox.put([("EVALSHA",)])
    server.flush(outbox)
    assert server.asked[1][0][:2] == ("SCRIPT", "LOAD")
    assert ticket.take() == [1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.ResponseError("OOM command not allowed"), "Redis refuses: OOM command not allowed"),
        (redis.exceptions.ReadOnlyError("READONLY"), "Redis refuses: READONLY"),
        (redis.exceptions.NoPermissionError("NOPERM"), "Redis forbids its user"),
    ],
)
def test_a_refusal_is_not_repeated_and_reaches_its_own_caller_alone(
    error: Exception, words: str
) -> None:
    server = Server([error, 2])
    outbox = Outbox(15.0, server.clock)
    refused, fine = outbox.put([("A",)]), outbox.put([("B",)])
    server.flush(outbox)
    assert fine.take() == [2]
    with pytest.raises(BrokerUnavailable, match=words) as caught:
        refused.take()
    assert caught.value.__cause__ is error
    assert server.pauses == []


def test_a_wrong_password_is_not_repeated() -> None:
    server = Server(redis.AuthenticationError("WRONGPASS"))
    outbox = Outbox(15.0, server.clock)
    ticket = outbox.put([("A",)])
    server.flush(outbox)
    with pytest.raises(BrokerUnavailable, match="refuses the user or the password"):
        ticket.take()
    assert server.pauses == []


# ---- settling


def waiting(*ids: str) -> tuple[Outstanding, list[Future[Recommendation]]]:
    outstanding = Outstanding()
    futures: list[Future[Recommendation]] = [Future() for _ in ids]
    for task_id, future in zip(ids, futures, strict=True):
        outstanding.add(task_id, future)
    return outstanding, futures


def settle(outstanding: Outstanding, stored: dict[str, bytes | None]) -> None:
    """As a read does that began just now."""
    outstanding.settle(outstanding.watched(stored), stored)


def test_an_answer_settles_its_future_and_no_other() -> None:
    outstanding, (a, b) = waiting("a", "b")
    settle(outstanding, {"a": success(), "b": None})
    assert a.result(0) == Recommendation.model_validate(ANSWER)
    assert not b.done()
    assert outstanding.wanted(["a", "b"]) == ["b"]


def test_a_failure_settles_its_future_with_the_typed_error() -> None:
    outstanding, (a,) = waiting("a")
    failure = Failure(code="poison", message="died", retry=True)
    settle(outstanding, {"a": wire.encode_failure("a", failure, NOW)})
    error = a.exception(0)
    assert isinstance(error, RequestFailed)
    assert (error.code, error.retry) == ("poison", True)


def test_a_revocation_settles_its_future() -> None:
    outstanding, (a,) = waiting("a")
    settle(outstanding, {"a": wire.encode_revoked("a", "expired", NOW)})
    assert isinstance(a.exception(0), RequestRevoked)


def test_two_handles_of_one_id_get_the_same_answer() -> None:
    outstanding, (first, second) = waiting("a", "a")
    assert len(outstanding) == 1
    settle(outstanding, {"a": success()})
    assert first.result(0) is second.result(0)


def test_a_result_that_is_not_ready_stays_outstanding() -> None:
    outstanding, (a,) = waiting("a")
    settle(outstanding, {"a": b'{"status": "STARTED", "result": null}'})
    assert not a.done()
    assert outstanding.wanted(["a"]) == ["a"]


def test_an_answer_that_breaks_the_contract_is_a_failure_that_says_upgrade() -> None:
    outstanding, (a,) = waiting("a")
    settle(
        outstanding,
        {"a": wire.encode_success("a", ANSWER | {"novel": 1}, NOW)},
    )
    error = a.exception(0)
    assert isinstance(error, RequestFailed)
    assert error.code == "version"


def test_bytes_that_are_no_result_fail_their_future() -> None:
    outstanding, (a,) = waiting("a")
    settle(outstanding, {"a": b"garbage"})
    assert isinstance(a.exception(0), WireError)


def test_an_id_that_nobody_awaits_is_ignored() -> None:
    outstanding, (a,) = waiting("a")
    settle(outstanding, {"x": success("x")})
    assert outstanding.wanted(["x", "a", "y"]) == ["a"]
    assert not a.done()


def test_settling_twice_changes_nothing() -> None:
    outstanding, (a,) = waiting("a")
    settle(outstanding, {"a": success()})
    settle(outstanding, {"a": wire.encode_revoked("a", "expired", NOW)})
    assert a.exception(0) is None


def test_a_cancelled_future_does_not_stop_its_neighbour() -> None:
    outstanding, (a, b) = waiting("a", "b")
    assert a.cancel()
    settle(outstanding, {"a": success("a"), "b": success("b")})
    assert b.done()
    assert len(outstanding) == 0


def test_a_read_settles_nobody_who_came_after_it_began() -> None:
    """What it brings may be older than the late waiter's own request under the same key."""
    keyed = str(uuid5(NAMESPACE_URL, "k"))
    outstanding, (early,) = waiting(keyed)
    watched = outstanding.watched([keyed])
    late: Future[Recommendation] = Future()
    outstanding.add(keyed, late)
    outstanding.sent([keyed])
    outstanding.settle(watched, {keyed: None})
    assert isinstance(early.exception(0), UnknownRequest)
    assert not late.done()
    assert outstanding.ids() == [keyed]


def test_a_dropped_id_is_never_settled() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.drop("a", a)
    outstanding.drop("never there", a)
    settle(outstanding, {"a": success()})
    assert not a.done()


def test_dropping_one_waiter_leaves_another_of_the_same_id() -> None:
    outstanding, (first, second) = waiting("a", "a")
    outstanding.drop("a", second)
    settle(outstanding, {"a": success()})
    assert first.done()
    assert not second.done()


def test_closing_fails_all_that_wait() -> None:
    outstanding, futures = waiting("a", "a", "b")
    error: ReclaneError = ClientClosed("closed")
    outstanding.fail_all(error)
    assert [future.exception(0) for future in futures] == [error] * 3
    assert len(outstanding) == 0


def test_a_waiting_request_stays_outstanding() -> None:
    outstanding, (a,) = waiting("a")
    outstanding.sent(["a"])
    settle(outstanding, {"a": b'{"status": "PENDING", "result": null}'})
    assert not a.done()


def test_a_missing_result_means_unknown_only_once_the_id_was_confirmed() -> None:
    outstanding, (a,) = waiting("a")
    settle(outstanding, {"a": None})
    assert not a.done()
    assert outstanding.ids() == []
    outstanding.sent(["a"])
    assert outstanding.ids() == ["a"]
    settle(outstanding, {"a": None})
    assert isinstance(a.exception(0), UnknownRequest)


def test_an_answer_may_go_once_read_and_confirmed_and_is_named_once() -> None:
    outstanding, _ = waiting("a", "b")
    outstanding.sent(["a"])
    settle(outstanding, {"a": success("a"), "b": success("b")})
    assert outstanding.take_forgettable() == ["a"]
    outstanding.sent(["b"])
    assert outstanding.take_forgettable() == ["b"]
    assert outstanding.take_forgettable() == []


def test_a_keyed_answer_and_a_revocation_stay() -> None:
    """The key may be asked for again; the revocation stops a message that still waits."""
    keyed = str(uuid5(NAMESPACE_URL, "k"))
    outstanding, _ = waiting(keyed, "b")
    outstanding.sent([keyed, "b"])
    settle(
        outstanding,
        {keyed: success(keyed), "b": wire.encode_revoked("b", "cancelled", NOW)},
    )
    assert outstanding.take_forgettable() == []


def test_an_unanswered_id_past_its_deadline_is_overdue_once() -> None:
    outstanding = Outstanding()
    for task_id, deadline in (("late", 10.0), ("answered", 10.0), ("later", 20.0)):
        outstanding.add(task_id, Future[Recommendation](), deadline)
    settle(outstanding, {"answered": success("answered")})
    assert outstanding.overdue(9.9, 10) == []
    assert outstanding.overdue(10.0, 10) == [], "Redis has not confirmed it yet"
    outstanding.sent(["late", "later"])
    assert outstanding.overdue(10.0, 10) == ["late"]
    assert outstanding.overdue(10.0, 10) == []
    assert outstanding.overdue(99.0, 10) == ["later"]


def test_an_overdue_waiter_of_a_key_is_told_alone() -> None:
    """Others may await the same computation for longer; the request itself goes on."""
    keyed = str(uuid5(NAMESPACE_URL, "k"))
    outstanding, (patient,) = waiting(keyed)
    hasty: Future[Recommendation] = Future()
    outstanding.add(keyed, hasty, 10.0)
    assert outstanding.overdue(99.0, 10) == []
    error = hasty.exception(0)
    assert isinstance(error, RequestRevoked)
    assert error.code == "expired"
    assert not patient.done()


def test_deadlines_of_answered_requests_do_not_pile_up() -> None:
    outstanding = Outstanding()
    for number in range(10_000):
        outstanding.add(str(number), Future[Recommendation](), 3_600.0)
        settle(outstanding, {str(number): success(str(number))})
    assert len(outstanding._deadlines) < 2_000


def test_what_could_not_be_forgotten_is_named_again() -> None:
    exchange = _exchange.Exchange(Settings())
    exchange.outstanding.add("a", Future[Recommendation]())
    exchange.outstanding.sent(["a"])
    settle(exchange.outstanding, {"a": success("a")})
    steps = exchange.forget()
    first = next(steps)
    with pytest.raises(redis.ConnectionError):
        steps.throw(redis.ConnectionError())
    assert next(exchange.forget()) == first == [("UNLINK", KEYS.result("a"))]


def test_a_refused_revocation_does_not_stop_the_reading() -> None:
    exchange = _exchange.Exchange(Settings())
    exchange.outstanding.add("a", Future[Recommendation](), 0.0)
    exchange.outstanding.sent(["a"])
    steps = exchange.tick()
    assert next(steps)[0][0] == "MGET", "answers are read first"
    assert steps.send([[b'{"status": "PENDING", "result": null}']])[0][0] == "EVAL"
    with pytest.raises(StopIteration):
        steps.throw(redis.ResponseError("OOM"))
    assert exchange.outstanding.overdue(float("inf"), 10) == ["a"], "it is tried again"


# ---- small helpers


def test_a_notification_that_is_no_utf8_harms_nobody() -> None:
    exchange = _exchange.Exchange(Settings())
    exchange.outstanding.add("b", Future[Recommendation]())
    (commands,) = [next(exchange.heard(b"a\n\xff\nb"))]
    assert commands == [("MGET", KEYS.result("b"))]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (6, [3, 3]), (7, [3, 3, 1])])
def test_chunks_are_slices_in_order(count: int, sizes: list[int]) -> None:
    parts = list(_exchange.chunks(range(count), 3))
    assert [len(part) for part in parts] == sizes
    assert [value for part in parts for value in part] == list(range(count))
