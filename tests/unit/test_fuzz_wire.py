"""Whatever bytes lie in a queue or under a result key: a typed error, or a value, and in time."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from redis._parsers import Encoder

from fuzzing import FIELDS, MESSAGES, NOW, REQUEST, bytes_like, changed, values
from reclane import names, wire
from reclane._exchange import Exchange
from reclane._outstanding import read_result
from reclane.contract import Failure, Recommendation, RecommendRequest, parse_request
from reclane.errors import InvalidRequest, ReclaneError, WireError
from reclane.settings import Settings
from reclane_worker.lane import Entry
from reclane_worker.triage import decode, triage

FAILURE = Failure(code="x", message="y")
RESULTS = [
    json.loads(wire.encode_success("t-1", {"items": []}, NOW, "a" * 40)),
    json.loads(wire.encode_failure("t-1", FAILURE, NOW)),
    json.loads(wire.encode_revoked("t-1", "cancelled", NOW)),
]
WANTED = {"digest": "a" * 40, "expires": NOW, "notify": ["c"]}
PLACEHOLDER = {"status": "PENDING", "result": None, "reclane": WANTED}
STORED = bytes_like(*RESULTS, PLACEHOLDER)


@given(MESSAGES)
def test_any_bytes_are_a_message_or_a_wire_error(raw: bytes) -> None:
    wire.find_id(raw).encode()
    with suppress(WireError):
        message = wire.decode_message(raw)
        assert message.id
        _ = (message.reply_to, message.digest, message.parent_id, message.needs_celery)
        with suppress(WireError):
            message.request_fields()


@given(MESSAGES, st.sampled_from([None, REQUEST]))
@example(b'{"headers": {"id": "t", "task": "t"}, "properties": []}', REQUEST)
def test_a_message_is_rewritten_so_that_it_can_be_read_or_refused(
    raw: bytes, request: RecommendRequest | None
) -> None:
    with suppress(WireError):
        again = wire.decode_message(wire.rewrite(raw, NOW, request))
        assert again.expires is None
        if request:
            assert parse_request(again.request_fields()) == request


@given(STORED)
@example(b'{"status": "PENDING", "result": null, "reclane": {"expires": 1%s}}' % (b"0" * 400))
def test_any_bytes_under_a_result_key_are_judged(raw: bytes) -> None:
    terminal, pending, revoked = wire.is_terminal(raw), wire.is_pending(raw), wire.is_revoked(raw)
    assert not (terminal and pending)
    assert terminal or not revoked
    wanted = wire.decode_pending(raw)
    assert isinstance(wanted.digest, str)
    assert all(isinstance(channel, str) for channel in wanted.notify)
    with suppress(WireError):
        wire.decode_result(raw)


@given(STORED)
def test_a_client_reads_an_answer_an_error_or_goes_on_waiting(raw: bytes) -> None:
    found = read_result(raw)
    assert found is None or isinstance(found, Recommendation | ReclaneError)
    assert found is not None or wire.is_pending(raw) or not wire.is_terminal(raw)
    str(found)


@given(st.binary(max_size=2_000))
def test_a_client_looks_only_for_what_it_awaits_whatever_a_notification_says(data: bytes) -> None:
    exchange = Exchange(Settings())
    assert list(exchange.heard(data)) == []


@given(values(st.sampled_from([*FIELDS])) | changed(FIELDS) | st.dictionaries(st.text(), values()))
def test_any_value_is_a_request_or_an_invalid_one(value: Any) -> None:
    with suppress(InvalidRequest):
        request = parse_request(value)
        assert parse_request(request.model_dump(mode="json", by_alias=True)) == request


@given(
    st.lists(st.tuples(MESSAGES, st.integers(0, 5)), max_size=6),
    st.none() | STORED,
    st.sampled_from([(), ("t-1",)]),
)
def test_every_entry_ends_up_once_whatever_it_holds(
    raws: list[tuple[bytes, int]], stored: bytes | None, revoked: tuple[str, ...]
) -> None:
    entries = [
        Entry(f"1:1:{number}", names.BULK_QUEUE, raw, crashes)
        for number, (raw, crashes) in enumerate(raws)
    ]
    now_ms = int(NOW * 1e3)
    read, bad = decode(entries, now_ms, 3)
    known = {message.id: stored for _, message in read if stored is not None}
    found = triage(read, now_ms=now_ms, stored=known, revoked=revoked, max_attempts=3)
    places = [*bad, *found.jobs, *found.ended, *found.parked]
    assert sorted(one.entry.field for one in places) == [entry.field for entry in entries]
    keys = names.Keys()
    for one in [*bad, *found.ended]:
        for part in one.ending.arguments(keys):
            Encoder("utf-8", "strict", decode_responses=False).encode(part)  # can be sent
    list(found.arrived())


@given(st.text(min_size=1).filter(str.strip), st.text(max_size=20), st.integers(1, 500))
def test_a_request_comes_out_of_a_message_as_it_went_in(query: str, task_id: str, k: int) -> None:
    request = RecommendRequest(query=query, k=k, context={"a": query[:50]})
    raw = wire.encode_request(
        request, task_id=task_id or "t", queue="q", reply_to="r", now=NOW, priority=3
    )
    message = wire.decode_message(raw)
    assert message.id == (task_id or "t")
    assert parse_request(message.request_fields()) == request


@given(st.text(max_size=20), st.text(), st.text(), st.booleans())
def test_a_failure_comes_out_of_a_result_as_it_went_in(
    task_id: str, code: str, text: str, retry: bool
) -> None:
    meta = wire.encode_failure(task_id, Failure(code=code, message=text, retry=retry), NOW)
    found = wire.outcome(wire.decode_result(meta))
    assert (found.message, found.code, found.retry) == (text, code, retry)
