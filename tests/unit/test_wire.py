"""Bytes on the queue and stored results: our own round trips, and both ways with stock Celery."""

import base64
import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from kombu.utils import json as kombu_json

from reclane import names, wire
from reclane.contract import Failure, Recommendation, RecommendRequest, parse_request
from reclane.errors import InvalidRequest, RequestFailed, RequestRevoked, WireError

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_700_000_000.25
QUERY = 'zqx想看一部好看的科幻电影 "quoted" \\ \u2028 é \U0001f600'
CHANNEL = names.notify_channel("client-1")


def encode(request: RecommendRequest, **options: Any) -> bytes:
    given = {"task_id": "t-1", "queue": names.INTERACTIVE_QUEUE, "reply_to": CHANNEL, "now": NOW}
    return wire.encode_request(request, **(given | options))


def envelope(**changes: Any) -> dict[str, Any]:
    """A good message as a dict, its headers, properties or body changed."""
    data: dict[str, Any] = json.loads(encode(RecommendRequest(query="shoes")))
    for name, value in changes.items():
        if isinstance(value, dict):
            data[name] |= value
        else:
            data[name] = value
    return data


def body(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def refusal(raw: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        wire.decode_message(raw)
    return caught.value


@pytest.fixture(scope="module")
def celery_message() -> bytes:
    """Captured by golden/capture.py from a stock Celery 5.7 publishing to Valkey."""
    return (GOLDEN / "celery_5_7_message.json").read_bytes()


@pytest.fixture(scope="module")
def celery_results() -> dict[str, bytes]:
    """Captured by golden/capture.py from a stock Celery 5.7 storing in Valkey."""
    stored = json.loads((GOLDEN / "celery_5_7_results.json").read_text("utf-8"))
    return {name: text.encode() for name, text in stored.items()}


@contextmanager
def stock_app(**options: Any) -> Iterator[Celery]:
    app = Celery("shop", set_as_current=False, **options)
    try:
        yield app
    finally:
        app.close()


@pytest.fixture
def backend() -> Iterator[Any]:
    """Celery's own Redis result backend; decoding needs no connection."""
    with stock_app(backend="redis://localhost:1/0") as app:
        yield app.backend


# ---- our own requests


def test_a_request_survives_the_queue() -> None:
    golden = json.loads((GOLDEN / "request_v1.json").read_text("utf-8"))
    request = parse_request(golden)
    message = wire.decode_message(encode(request))
    assert parse_request(message.request_fields()) == request


def test_unicode_survives_the_queue() -> None:
    message = wire.decode_message(encode(RecommendRequest(query=QUERY)))
    assert message.request_fields() == {"query": QUERY}


def test_the_message_carries_id_task_time_channel_and_priority() -> None:
    message = wire.decode_message(encode(RecommendRequest(query="a"), priority=6))
    assert (message.id, message.task, message.sent) == ("t-1", names.RECOMMEND, NOW)
    assert message.reply_to == CHANNEL
    assert message.properties["priority"] == 6
    assert (message.eta, message.expires, message.ignore_result) == (None, None, False)
    assert not message.needs_celery


def test_a_deadline_becomes_an_expiry() -> None:
    message = wire.decode_message(encode(RecommendRequest(query="a", deadline_s=2.5)))
    assert message.expires == pytest.approx(NOW + 2.5, abs=1e-5)


def test_no_request_text_stands_outside_the_body() -> None:
    request = RecommendRequest(
        query="zqxquery", history=("zqxitem",), user_id="zqxuser", context={"zqxkey": "zqxvalue"}
    )
    data = json.loads(encode(request))
    assert "zqxquery" in base64.b64decode(data.pop("body")).decode()
    assert "zqx" not in json.dumps(data)
    assert (data["headers"]["argsrepr"], data["headers"]["kwargsrepr"]) == ("-", "-")


def test_two_messages_have_different_delivery_tags() -> None:
    tags = {
        json.loads(encode(RecommendRequest(query="a")))["properties"]["delivery_tag"]
        for _ in range(2)
    }
    assert len(tags) == 2


@pytest.mark.parametrize("task_id", ['say "hi"', "back\\slash", "日本", "\u2028", "\x00", "\0id"])
def test_any_task_id_is_escaped(task_id: str) -> None:
    raw = encode(RecommendRequest(query="a"), task_id=task_id, reply_to="\0body\0 \0id")
    message = wire.decode_message(raw)
    assert (message.id, message.reply_to) == (task_id, "\0body\0 \0id")


@pytest.mark.parametrize("query", ["\0body", "\0id\0", "\x01\x1f", "</script>", "%s {0}"])
def test_a_query_cannot_break_out_of_the_envelope(query: str) -> None:
    message = wire.decode_message(encode(RecommendRequest(query=query, history=("a",))))
    assert message.request_fields()["query"] == query


def test_kombu_reads_our_envelope_and_celery_our_headers() -> None:
    data = kombu_json.loads(encode(RecommendRequest(query=QUERY, deadline_s=60)).decode())
    with stock_app(broker="memory://") as app:
        stock = app.amqp.as_task_v2("t-1", names.RECOMMEND, args=({"query": QUERY},), expires=60)
    # Stamps and the nesting of replaced tasks are for messages that a task sends.
    not_needed = {"replaced_task_nesting", "stamped_headers", "stamps"}
    assert set(stock.headers) - not_needed <= set(data["headers"])
    args, kwargs, embed = json.loads(base64.b64decode(data["body"]))
    assert args == [{"query": QUERY, "deadline_s": 60.0}]
    assert (kwargs, embed) == ({}, stock.body[2])
    assert datetime.fromisoformat(data["headers"]["expires"]).tzinfo is not None


# ---- stock Celery's messages


def test_the_message_of_a_stock_celery_is_read(celery_message: bytes) -> None:
    message = wire.decode_message(celery_message)
    assert message.id == "0b9c7a52-5f0e-4c55-9a3c-2f0a6f6f3c11"
    assert message.task == "reclane.recommend"
    assert message.args == [{"query": "想看一部好看的科幻电影", "k": 3}]
    assert message.kwargs == {"offset": 2}
    assert message.properties["priority"] == 3
    assert message.embed["callbacks"][0]["task"] == "shop.show"
    assert message.needs_celery
    assert not message.ignore_result
    assert message.sent is None


def test_eta_and_expires_of_a_stock_celery_are_read(celery_message: bytes) -> None:
    headers = json.loads(celery_message)["headers"]
    message = wire.decode_message(celery_message)
    assert message.eta == datetime.fromisoformat(headers["eta"]).timestamp()
    assert message.expires == datetime.fromisoformat(headers["expires"]).timestamp()
    assert message.expires - message.eta == pytest.approx(3600 - 60, abs=0.01)


def test_the_reply_channel_of_a_stock_celery_is_not_ours(celery_message: bytes) -> None:
    message = wire.decode_message(celery_message)
    assert message.reply_to
    assert not names.is_notify_channel(message.reply_to)


def publish(**options: Any) -> bytes:
    """What a stock Celery 5.7 puts on a queue, through kombu's in-memory transport."""
    with stock_app(broker="memory://") as app:
        app.conf.task_default_queue = "here"
        app.send_task(names.RECOMMEND, **options)
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            return kombu_json.dumps(channel._get("here")).encode()


def test_keyword_fields_of_a_stock_celery_are_the_request() -> None:
    message = wire.decode_message(publish(kwargs={"query": QUERY, "k": 3}))
    assert message.request_fields() == {"query": QUERY, "k": 3}


def test_one_positional_dict_of_a_stock_celery_is_the_request() -> None:
    message = wire.decode_message(publish(args=[{"query": QUERY}]))
    assert message.request_fields() == {"query": QUERY}


def test_positional_and_keyword_together_are_refused(celery_message: bytes) -> None:
    message = wire.decode_message(celery_message)
    with pytest.raises(WireError, match="not both") as caught:
        message.request_fields()
    assert caught.value.task_id == message.id


@pytest.mark.parametrize("args", [["shoes", 5], [{}, {}]])
def test_several_positional_arguments_are_refused(args: list[Any]) -> None:
    with pytest.raises(WireError, match="one positional dict"):
        wire.decode_message(publish(args=args)).request_fields()


def test_ignore_result_of_a_stock_celery_is_read() -> None:
    assert wire.decode_message(publish(args=[{}], ignore_result=True)).ignore_result


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {}, "link_error": "error"},
        {"chain": "next"},
        {"chord": "body"},
        {"group_id": "g-1"},
    ],
)
def test_what_follows_a_message_needs_celery(options: dict[str, Any]) -> None:
    with stock_app() as app:
        follow = app.signature("shop.show")
        options = {
            name: [follow]
            if value == "next"
            else follow
            if name in ("link_error", "chord")
            else value
            for name, value in options.items()
        }
        assert wire.decode_message(publish(args=[{}], **options)).needs_celery


def test_a_message_without_followers_does_not_need_celery() -> None:
    assert not wire.decode_message(publish(args=[{}])).needs_celery


# ---- results, ours read by Celery


def stored_answer() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDEN / "answer_v1.json").read_text("utf-8"))
    return data


@pytest.mark.parametrize("as_model", [False, True])
def test_celery_reads_our_success(backend: Any, as_model: bool) -> None:
    answer = stored_answer()
    result = Recommendation.model_validate(answer) if as_model else answer
    meta = backend.decode_result(wire.encode_success("t-1", result, NOW))
    assert (meta["status"], meta["result"], meta["task_id"]) == ("SUCCESS", answer, "t-1")
    assert meta["children"] == []
    assert meta["traceback"] is None


def test_celery_raises_our_failure_as_the_same_class(backend: Any) -> None:
    failure = Failure(code="unknown_catalog", message="no catalog 'é' here", retry=True)
    meta = backend.decode_result(wire.encode_failure("t-1", failure, NOW))
    error = meta["result"]
    assert meta["status"] == "FAILURE"
    assert type(error) is RequestFailed
    assert (error.message, error.code, error.retry) == (failure.message, failure.code, True)


@pytest.mark.parametrize("reason", ["revoked", "expired", "cancelled"])
def test_celery_raises_our_revocation_as_its_own(backend: Any, reason: str) -> None:
    meta = backend.decode_result(wire.encode_revoked("t-1", reason, NOW))
    assert meta["status"] == "REVOKED"
    assert type(meta["result"]) is TaskRevokedError
    assert meta["result"].args == (reason,)


def test_our_stored_fields_are_those_that_celery_stores(celery_results: dict[str, bytes]) -> None:
    ours = json.loads(wire.encode_success("t-1", {}, NOW))
    assert set(ours) == set(json.loads(celery_results["success"]))


def test_our_date_done_is_the_moment_given() -> None:
    done = datetime.fromisoformat(json.loads(wire.encode_success("t-1", {}, NOW))["date_done"])
    assert done == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=NOW)


def test_a_task_id_is_escaped_in_results() -> None:
    assert json.loads(wire.encode_success('a"b', {}, NOW))["task_id"] == 'a"b'


# ---- results, read by us


def test_our_success_is_an_answer() -> None:
    found = wire.outcome(wire.decode_result(wire.encode_success("t-1", stored_answer(), NOW)))
    assert found == Recommendation.model_validate(stored_answer())


def test_our_failure_keeps_message_code_and_retry() -> None:
    failure = Failure(code="poison", message="died", retry=True)
    found = wire.outcome(wire.decode_result(wire.encode_failure("t-1", failure, NOW)))
    assert type(found) is RequestFailed
    assert (found.message, found.code, found.retry) == ("died", "poison", True)


def test_our_revocation_carries_its_reason() -> None:
    found = wire.outcome(wire.decode_result(wire.encode_revoked("t-1", "expired", NOW)))
    assert type(found) is RequestRevoked
    assert found.code == "expired"


def test_a_success_stored_by_celery_is_read(celery_results: dict[str, bytes]) -> None:
    found = wire.decode_result(celery_results["success"])
    assert (found.status, found.result) == ("SUCCESS", {"items": ["跑步鞋"]})
    assert found.done
    assert datetime.fromisoformat(found.done).tzinfo is UTC


def test_a_failure_stored_by_celery_names_its_class_and_arguments(
    celery_results: dict[str, bytes],
) -> None:
    found = wire.outcome(wire.decode_result(celery_results["failure"]))
    assert type(found) is RequestFailed
    assert (found.message, found.code) == ("ValueError: too long 7", "failed")


def test_a_revocation_stored_by_celery_is_read(celery_results: dict[str, bytes]) -> None:
    found = wire.outcome(wire.decode_result(celery_results["revoked"]))
    assert type(found) is RequestRevoked
    assert found.code == "expired"


@pytest.mark.parametrize(
    ("name", "terminal"),
    [("success", True), ("failure", True), ("revoked", True), ("started", False)],
)
def test_only_ready_results_of_celery_are_terminal(
    celery_results: dict[str, bytes], name: str, terminal: bool
) -> None:
    assert wire.is_terminal(celery_results[name]) is terminal


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"status": 1}', b"{}", b"\x80\x04."])
def test_what_is_no_result_is_refused_and_never_overwritten(raw: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode_result(raw)
    assert wire.is_terminal(raw)


@pytest.mark.parametrize("result", [None, "text", 5, [], {}, {"exc_message": None}])
@pytest.mark.parametrize("status", ["FAILURE", "REVOKED"])
def test_an_odd_failure_is_still_an_error(status: str, result: Any) -> None:
    assert isinstance(wire.outcome(wire.Meta(status, result)), RequestFailed)


def test_a_number_that_is_not_finite_cannot_be_read_back_as_an_answer() -> None:
    answer = stored_answer()
    answer["items"][0]["score"] = math.nan
    with pytest.raises(WireError):
        wire.decode_result(wire.encode_success("t-1", answer, NOW))


# ---- malformed messages


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{}",
        b"\xff\xfe",
        b"\x80\x04K\x05.",
        b'{"headers": {}, "properties": {}, "body": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        json.dumps(envelope(headers=None)).encode(),
        json.dumps(envelope(headers=[])).encode(),
        json.dumps(envelope(properties=None)).encode(),
        json.dumps(envelope(headers={"id": None})).encode(),
        json.dumps(envelope(headers={"id": ""})).encode(),
        json.dumps(envelope(headers={"id": 5})).encode(),
        json.dumps(envelope(headers={"task": None})).encode(),
        json.dumps(envelope(headers={"task": 5})).encode(),
        json.dumps(envelope(properties={"priority": math.nan})).encode(),
        encode(RecommendRequest(query="shoes"))[:-1],
    ],
    ids=range(24),
)
def test_what_is_no_message_is_refused_without_an_id(raw: bytes) -> None:
    assert refusal(raw).task_id is None


def test_protocol_1_is_refused() -> None:
    old = {"task": names.RECOMMEND, "id": "t-1", "args": [], "kwargs": {}}
    data = envelope(body=body(old)) | {"headers": {}}
    assert "protocol 2" in str(refusal(json.dumps(data).encode()))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"content-type": "application/x-python-serialize"}, "content type"),
        ({"content-type": None}, "content type"),
        ({"content-type": "application/x-yaml"}, "content type"),
        ({"body": None}, "not a string"),
        ({"body": 5}, "not a string"),
        ({"body": "%%%"}, "base64"),
        ({"body": "é"}, "base64"),
        ({"body": "abc"}, "base64"),
        ({"body": base64.b64encode(b"\x80\x04K\x05.").decode()}, "valid JSON"),
        ({"body": base64.b64encode(b"\xff").decode()}, "valid JSON"),
        ({"body": base64.b64encode(b"[[{}], {}").decode()}, "valid JSON"),
        ({"body": base64.b64encode(b'[["\\ud800"], {}, {}]').decode()}, "valid JSON"),
        ({"body": base64.b64encode(b"[" * 100_000).decode()}, "valid JSON"),
        ({"body": body({})}, "args, kwargs, embed"),
        ({"body": body([])}, "args, kwargs, embed"),
        ({"body": body([[], {}])}, "args, kwargs, embed"),
        ({"body": body([{}, {}, {}])}, "args, kwargs, embed"),
        ({"body": body([[], [], {}])}, "args, kwargs, embed"),
        ({"body": body([[], {}, []])}, "args, kwargs, embed"),
        ({"body": body([[], {}, {}, {}])}, "args, kwargs, embed"),
        ({"body": body([[{"diversity": math.nan}], {}, {}])}, "valid JSON"),
        ({"body": body([[{"diversity": math.inf}], {}, {}])}, "valid JSON"),
        ({"body": body([[{"diversity": -math.inf}], {}, {}])}, "valid JSON"),
        ({"headers": {"eta": "soon"}}, "eta"),
        ({"headers": {"eta": 5}}, "eta"),
        ({"headers": {"eta": "2024-13-01T00:00:00"}}, "eta"),
        ({"headers": {"expires": ""}}, "expires"),
        ({"headers": {"expires": 3600.0}}, "expires"),
        ({"headers": {"expires": {}}}, "expires"),
    ],
)
def test_a_malformed_message_with_an_id_is_refused_with_it(
    changes: dict[str, Any], says: str
) -> None:
    error = refusal(json.dumps(envelope(**changes)).encode())
    assert says in str(error)
    assert error.task_id == "t-1"


def test_a_refusal_never_quotes_the_message() -> None:
    raw = json.dumps(envelope(body="zqx %", headers={"argsrepr": "zqx"})).encode()
    assert "zqx" not in str(refusal(raw))


def test_a_body_that_is_not_base64_encoded_is_read() -> None:
    raw = json.dumps(
        envelope(body='[[{"query": "é"}], {}, null]', properties={"body_encoding": None})
    )
    assert wire.decode_message(raw.encode()).request_fields() == {"query": "é"}


def test_a_time_without_zone_is_utc() -> None:
    raw = json.dumps(envelope(headers={"eta": "1970-01-01T00:01:00"})).encode()
    assert wire.decode_message(raw).eta == 60.0


@pytest.mark.parametrize("sent", [None, "now", [], {}])
def test_a_time_of_sending_that_is_no_number_is_unknown(sent: Any) -> None:
    raw = json.dumps(envelope(headers={"reclane_sent": sent})).encode()
    assert wire.decode_message(raw).sent is None


def test_a_time_of_sending_past_every_float_is_no_crash() -> None:
    raw = json.dumps(envelope(headers={"reclane_sent": 10**400})).encode()
    assert wire.decode_message(raw).id == "t-1"


def test_a_number_past_every_float_is_refused_in_a_body() -> None:
    text = b'[[{"query": "a", "context": {"a": 1e400}}], {}, {}]'
    raw = json.dumps(envelope(body=base64.b64encode(text).decode())).encode()
    assert "not finite" in str(refusal(raw))


# ---- fuzz


JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, "", "x", "\x00", [], {}, [[]], {"a": {}}, "base64", "0",
    "2024-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", [[], {}, {}],
)  # fmt: skip


def damage(data: Any, dice: random.Random) -> None:
    """Put junk, nothing, or another value somewhere into a JSON value."""
    place = data
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = dice.choice(keys)
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or dice.random() < 0.2:
            break
        place = inner
    if dice.random() < 0.25:
        del place[key]
    else:
        place[key] = dice.choice(JUNK)


def damaged_bytes(raw: bytes, dice: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data))
        stop = start + dice.choice((0, 1, 1, 8, 200))
        data[start:stop] = dice.randbytes(dice.choice((0, 1, 1, 4)))
        data = data or bytearray(b"{")
    return bytes(data)


def mutations(raw: bytes, dice: random.Random) -> Iterator[bytes]:
    while True:
        yield damaged_bytes(raw, dice)
        data = json.loads(raw)
        damage(data, dice)
        yield json.dumps(data).encode()
        data = json.loads(raw)
        inside = json.loads(base64.b64decode(data["body"]))
        damage(inside, dice)
        data["body"] = body(inside)
        yield json.dumps(data).encode()
        data["body"] = base64.b64encode(
            damaged_bytes(base64.b64decode(data["body"]), dice)
        ).decode()
        yield json.dumps(data).encode()


def use(message: wire.Message) -> None:
    """Everything that the lane asks of a message before it runs."""
    assert isinstance(message.reply_to, str)
    assert message.needs_celery in (True, False)
    assert message.ignore_result in (True, False)
    parse_request(message.request_fields())


@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_our_errors_comes_out_of_mutated_messages(
    seed: int, celery_message: bytes
) -> None:
    dice = random.Random(seed)
    ours = encode(RecommendRequest(query=QUERY, filters={"a": {"gt": 1}}, history=("a",)))
    source = mutations(ours if seed % 2 else celery_message, dice)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(500):
        raw = next(source)
        try:
            use(wire.decode_message(raw))
            outcomes["read"] += 1
        except (WireError, InvalidRequest):
            outcomes["refused"] += 1
    assert outcomes["refused"] > 50
    assert sum(outcomes.values()) == 500


def test_nothing_but_our_errors_comes_out_of_mutated_results() -> None:
    dice = random.Random(9)
    raw = wire.encode_failure("t-1", Failure(code="a", message="b"), NOW)
    refused = 0
    for _ in range(500):
        damaged = damaged_bytes(raw, dice)
        assert wire.is_terminal(damaged) in (True, False)
        try:
            wire.decode_result(damaged)
        except WireError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("header", ["eta", "expires"])
@pytest.mark.parametrize("date", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_date_that_is_none_in_utc_is_refused(header: str, date: str) -> None:
    raw = json.loads(
        wire.encode_request(
            RecommendRequest(query="a"), task_id="t-1", queue="q", reply_to="", now=NOW
        )
    )
    raw["headers"][header] = date
    with pytest.raises(WireError, match=header):
        wire.decode_message(json.dumps(raw).encode())
