"""Dead letters: read from the record that triage writes, and the message that goes back."""

import base64
import json
from typing import Any

import pytest

from reclane import wire
from reclane.contract import Failure, RecommendRequest
from reclane.errors import NotRequeueable
from reclane.operations.letters import Letter, message_for, read_letter, request_of
from reclane.wire import decode_message, encode_request
from reclane_worker.lane import Entry
from reclane_worker.triage import MAX_MESSAGE_BYTES, dead_letter

NOW_S = 1_800_000_000.0
FAILURE = Failure(code="poison", message="workers died")


def message(query: str = "film", deadline_s: float | None = None) -> bytes:
    request = RecommendRequest(query=query, deadline_s=deadline_s)
    queue, reply_to = "reclane.interactive", "reclane:notify:c"
    return encode_request(request, task_id="t1", queue=queue, reply_to=reply_to, now=NOW_S - 60)


def letter_of(raw: bytes, task_id: str = "t1") -> Letter:
    return read_letter(
        dead_letter(Entry("1:1:1", "reclane.bulk", raw, 3), task_id, FAILURE, 12_345)
    )


def changed(raw: bytes, **headers: Any) -> bytes:
    envelope = json.loads(raw)
    envelope["headers"] |= headers
    return json.dumps(envelope).encode()


def test_a_letter_is_what_triage_wrote() -> None:
    raw = message()
    letter = letter_of(raw)
    assert (letter.name, letter.code, letter.message) == ("t1", "poison", "workers died")
    assert (letter.origin, letter.crashes, letter.at_ms) == ("reclane.bulk", 3, 12_345)
    assert (letter.raw, letter.size) == (raw, len(raw))
    assert request_of(letter) == {"query": "film"}


def test_a_letter_without_an_id_is_called_by_a_digest() -> None:
    one, other = letter_of(b"nonsense", ""), letter_of(b"other", "")
    assert one.name.startswith("@")
    assert one.name != other.name
    assert one.name == read_letter(one.record).name


@pytest.mark.parametrize(
    "record",
    [b"", b"nonsense", b"[]", b"{}", b'{"raw": "!"}', b'{"raw": "", "id": "x"}', b"[" * 100_000],
)
def test_a_record_that_cannot_be_read_can_still_be_named_and_dropped(record: bytes) -> None:
    letter = read_letter(record)
    assert (letter.code, letter.record) == ("unreadable_record", record)
    assert letter.name.startswith("@")
    with pytest.raises(NotRequeueable):
        message_for(letter, NOW_S)


def test_a_message_goes_back_byte_for_byte() -> None:
    for raw in (message(), message(deadline_s=61)):
        assert message_for(letter_of(raw), NOW_S) == raw


def test_an_expiry_that_has_passed_is_taken_off_and_nothing_else() -> None:
    raw = message(deadline_s=60)
    again = decode_message(message_for(letter_of(raw), NOW_S))
    assert again.expires is None
    assert (again.id, again.reply_to) == ("t1", "reclane:notify:c")
    assert again.request_fields() == decode_message(raw).request_fields()


def test_a_mended_request_keeps_id_links_and_whom_to_tell() -> None:
    envelope = json.loads(changed(message(), task="shop.wrong", eta="2999-01-01T00:00:00+00:00"))
    embed = {"callbacks": [{"task": "next"}], "errbacks": None, "chain": None, "chord": None}
    body = [[{"query": "x", "k": "bad"}], {}, embed]
    envelope["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    request = RecommendRequest(query="科幻", k=3, filters={"year": {"gte": 2000}})
    raw = message_for(letter_of(json.dumps(envelope).encode()), NOW_S, request)
    again = decode_message(raw)
    assert (again.id, again.task, again.eta) == ("t1", "reclane.recommend", None)
    assert (again.reply_to, again.embed["callbacks"]) == ("reclane:notify:c", [{"task": "next"}])
    assert RecommendRequest.model_validate(again.request_fields()) == request


def test_a_mended_request_has_its_own_digest_only_where_its_id_comes_from_a_key() -> None:
    request = RecommendRequest(query="shoes")
    keyed = letter_of(changed(message(), reclane_digest="a" * 40))
    again = decode_message(message_for(keyed, NOW_S, request))
    assert again.digest == wire.request_digest(request)
    assert decode_message(message_for(letter_of(message()), NOW_S, request)).digest == ""


def test_a_mended_deadline_counts_from_now() -> None:
    request = RecommendRequest(query="x", deadline_s=5)
    again = decode_message(message_for(letter_of(message()), NOW_S, request))
    assert again.expires == NOW_S + 5


def test_a_body_that_cannot_be_read_can_be_mended() -> None:
    envelope = json.loads(message())
    envelope["body"] = "!"
    letter = letter_of(json.dumps(envelope).encode())
    with pytest.raises(NotRequeueable, match="--request"):
        message_for(letter, NOW_S)
    with pytest.raises(NotRequeueable):
        request_of(letter)
    again = decode_message(message_for(letter, NOW_S, RecommendRequest(query="mended")))
    assert again.request_fields() == {"query": "mended"}


@pytest.mark.parametrize("raw", [b"nonsense", b"[]", b'{"headers": 1}', b'{"headers": {}}'])
def test_an_envelope_that_cannot_be_read_can_only_be_dropped(raw: bytes) -> None:
    with pytest.raises(NotRequeueable, match="only dropped"):
        message_for(letter_of(raw), NOW_S, RecommendRequest(query="mended"))


def test_a_message_that_was_cut_does_not_go_back() -> None:
    raw = changed(message(), padding="x" * MAX_MESSAGE_BYTES)
    with pytest.raises(NotRequeueable, match="bytes are kept"):
        message_for(letter_of(raw), NOW_S)


def test_a_rewritten_message_is_as_readable_as_before() -> None:
    """Priority, delivery tag and origin stay: only body and expiry are touched."""
    raw = message()
    assert json.loads(wire.rewrite(raw, NOW_S)) == json.loads(raw)
