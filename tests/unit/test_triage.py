"""What becomes of each leased message, and what is written about it."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from reclane import names, wire
from reclane.contract import MAX_K, Failure, RecommendRequest
from reclane.errors import RequestFailed, RequestRevoked
from reclane_worker import triage as module
from reclane_worker.lane import Entry
from reclane_worker.triage import Triage, end_with, triage
from support import KEYS

NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1_000
CHANNEL = names.notify_channel("c")
STOCK_REPLY = "467e39cf-f3fb-3a58-ad2c-2a675ad713e3"
QUEUE = names.INTERACTIVE_QUEUE


def message(fields: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """A message sent 250 ms before now; headers or properties changed."""
    raw = wire.encode_request(
        RecommendRequest(query="shoes"),
        task_id="t-1",
        queue=QUEUE,
        reply_to=CHANNEL,
        now=NOW_S - 0.25,
    )
    data = json.loads(raw)
    if fields is not None:
        body = json.dumps([[], fields, {}]).encode()
        data["body"] = base64.b64encode(body).decode()
    data["properties"]["reply_to"] = changes.pop("reply_to", CHANNEL)
    data["headers"] |= changes
    return json.dumps(data).encode()


def at(seconds: float) -> str:
    return datetime.fromtimestamp(NOW_S + seconds, UTC).isoformat()


def entry(raw: bytes, crashes: int = 0, number: int = 0) -> Entry:
    return Entry(f"1:0:{number}", QUEUE, raw, crashes)


ANSWER = wire.encode_success("t-1", {}, NOW_MS / 1e3)


def sort(*entries: Entry, **known: Any) -> Triage:
    read, bad = module.decode(entries, NOW_MS, 3)
    assert not bad
    given = {"now_ms": NOW_MS, "stored": {}, "revoked": (), "max_attempts": 3}
    return triage(read, **(given | known))


def ended(raw: bytes, crashes: int = 0, **known: Any) -> module.Ended:
    """The one ending that comes of one message."""
    result = sort(entry(raw, crashes), **known)
    assert (result.jobs, result.parked) == ([], [])
    (one,) = result.ended
    return one


def unreadable(raw: bytes) -> module.Ended:
    read, bad = module.decode([entry(raw, crashes=1)], NOW_MS, 3)
    assert read == []
    (one,) = bad
    return one


def failure_of(one: module.Ended) -> RequestFailed:
    found = wire.outcome(wire.decode_result(one.ending.meta))
    assert isinstance(found, RequestFailed)
    return found


def letter_of(one: module.Ended) -> dict[str, Any]:
    letter: dict[str, Any] = json.loads(one.ending.dead_letters)
    return letter


# ---- what runs


def test_a_good_message_becomes_a_job_with_its_age() -> None:
    result = sort(entry(message()))
    (job,) = result.jobs
    assert job.request == RecommendRequest(query="shoes")
    assert job.queued_ms == pytest.approx(250, abs=0.01)
    assert (result.ended, result.parked) == ([], [])


@pytest.mark.parametrize("sent", [None, NOW_S + 60])
def test_an_unknown_or_future_time_of_sending_is_age_zero(sent: Any) -> None:
    (job,) = sort(entry(message(reclane_sent=sent))).jobs
    assert job.queued_ms == 0.0


def test_an_age_is_always_a_finite_number() -> None:
    (job,) = sort(entry(message(reclane_sent=-1e308))).jobs
    assert job.queued_ms < float("inf")


def test_messages_keep_their_order() -> None:
    entries = [entry(message(id=f"t-{n}"), number=n) for n in range(5)]
    assert [job.entry for job in sort(*entries).jobs] == entries


def test_every_message_ends_up_in_exactly_one_place() -> None:
    raws = [
        message(id="a"),
        message(id="b", expires=at(-1)),
        message(id="c", eta=at(1)),
        message(id="d", task="other"),
        message({"k": 0}, id="e"),
        message(id="f"),
        message(id="g"),
    ]
    entries = [entry(raw, number=number) for number, raw in enumerate(raws)]
    result = sort(*entries, stored={"f": ANSWER}, revoked={"g"})
    places = [job.entry for job in result.jobs]
    places += [one.entry for one in result.ended] + [parked.entry for parked in result.parked]
    assert sorted(places, key=lambda e: e.field) == entries
    assert [one.reason for one in result.ended] == [
        "expired",
        "unknown_task",
        "invalid_request",
        "answered",
        "revoked",
    ]


# ---- what ends without a run


def test_an_answered_message_ends_without_a_second_result() -> None:
    one = ended(message(), stored={"t-1": ANSWER})
    assert one.reason == "answered"
    assert (one.ending.meta, one.ending.dead_letters) == (b"", b"")
    assert (one.ending.channel, one.ending.task_id) == (CHANNEL, "t-1")


@pytest.mark.parametrize(
    ("changes", "known", "reason"),
    [({}, {"revoked": {"t-1"}}, "revoked"), ({"expires": at(-0.001)}, {}, "expired")],
)
def test_a_revoked_or_expired_message_ends_as_revoked(
    changes: dict[str, Any], known: dict[str, Any], reason: str
) -> None:
    one = ended(message(**changes), **known)
    found = wire.outcome(wire.decode_result(one.ending.meta))
    assert isinstance(found, RequestRevoked)
    assert (found.code, one.reason, one.ending.dead_letters) == (reason, reason, b"")


def test_a_message_expires_at_its_very_moment_and_not_before() -> None:
    assert ended(message(expires=at(0))).reason == "expired"
    assert len(sort(entry(message(expires=at(0.001)))).jobs) == 1


def test_a_revocation_comes_before_an_answer_and_that_before_expiry() -> None:
    raw = message(expires=at(-1))
    assert ended(raw, stored={"t-1": ANSWER}, revoked={"t-1"}).reason == "answered"
    assert ended(raw, revoked={"t-1"}).reason == "revoked"


def keyed(digest: str = "a" * 40, **headers: Any) -> bytes:
    return message(reclane_digest=digest, **headers)


def placeholder(**details: Any) -> bytes:
    return b'{"status": "PENDING", "result": null, "reclane": %s}' % json.dumps(details).encode()


def test_a_waiting_placeholder_changes_nothing() -> None:
    pending = {"t-1": b'{"status": "PENDING", "result": null}'}
    assert len(sort(entry(message()), stored=pending).jobs) == 1


def test_a_keyed_message_lives_as_long_as_its_placeholder_says() -> None:
    for expires, jobs in ((NOW_MS / 1e3 - 1, 0), (NOW_MS / 1e3 + 1, 1), (None, 1)):
        details = {"digest": "a" * 40} | ({"expires": expires} if expires else {})
        found = sort(entry(keyed(expires=at(-9))), stored={"t-1": placeholder(**details)})
        assert len(found.jobs) == jobs
        assert [one.reason for one in found.ended] == ["expired"] * (1 - jobs)


def test_a_keyed_message_whose_key_waits_for_another_request_is_dropped_in_silence() -> None:
    one = ended(keyed(), stored={"t-1": placeholder(digest="b" * 40)})
    assert (one.reason, one.ending.meta, one.ending.dead_letters) == ("superseded", b"", b"")


def test_a_stored_revocation_need_not_be_kept_once_its_message_was_dropped() -> None:
    revoked = wire.encode_revoked("t-1", "cancelled", NOW_MS / 1e3)
    assert ended(message(), stored={"t-1": revoked}).ending.revoked
    assert not ended(message(), stored={"t-1": ANSWER}).ending.revoked


@pytest.mark.parametrize("odd", ["5", "null", '{"expires": "x"}', '{"notify": 5}', "[1]"])
def test_an_unreadable_placeholder_says_nothing(odd: str) -> None:
    raw = b'{"status": "PENDING", "result": null, "reclane": %s}' % odd.encode()
    assert len(sort(entry(keyed()), stored={"t-1": raw}).jobs) == 1


def test_a_message_due_later_is_parked_until_then() -> None:
    one = entry(message(eta=at(90.5)))
    result = sort(one)
    assert [(p.entry, p.due_ms) for p in result.parked] == [(one, NOW_MS + 90_500)]
    assert (result.jobs, result.ended) == ([], [])


def test_a_message_due_now_runs() -> None:
    assert len(sort(entry(message(eta=at(0)))).jobs) == 1


def test_an_expired_message_is_not_parked() -> None:
    assert ended(message(eta=at(90), expires=at(-1))).reason == "expired"


@pytest.mark.parametrize("crashes", [0, 1, 2])
def test_a_message_below_max_attempts_runs(crashes: int) -> None:
    assert len(sort(entry(message(), crashes)).jobs) == 1


def test_a_crash_in_company_condemns_nobody() -> None:
    assert len(sort(entry(message(), 1), max_attempts=1).jobs) == 1
    assert not sort(entry(message(), 2), max_attempts=1).jobs


@pytest.mark.parametrize("crashes", [3])
def test_a_message_at_max_attempts_is_poison(crashes: int) -> None:
    one = ended(message(), crashes)
    error = failure_of(one)
    assert (error.code, error.retry, one.reason) == ("poison", False, "poison")
    assert f"{crashes} times" in error.message
    assert letter_of(one)["crashes"] == crashes


def test_an_unknown_task_is_a_typed_failure_and_a_dead_letter() -> None:
    one = ended(message(task="shop.clean"))
    error = failure_of(one)
    assert error.code == "unknown_task"
    assert names.TASKS_QUEUE in error.message
    assert letter_of(one)["code"] == "unknown_task"


@pytest.mark.parametrize(
    "fields", [{}, {"query": ""}, {"query": "a", "k": MAX_K + 1}, {"query": "a", "colour": 1}]
)
def test_an_invalid_request_is_a_typed_failure_and_no_dead_letter(fields: dict[str, Any]) -> None:
    one = ended(message(fields))
    assert failure_of(one).code == "invalid_request"
    assert one.ending.dead_letters == b""


def test_an_invalid_request_is_never_quoted() -> None:
    one = ended(message({"query": "zqx", "k": "zqx", "user_id": 5}))
    assert b"zqx" not in one.ending.meta


def test_positional_and_keyword_fields_together_are_a_failure() -> None:
    data = json.loads(message())
    data["body"] = base64.b64encode(b'[[{"query": "a"}], {"k": 3}, null]').decode()
    assert failure_of(ended(json.dumps(data).encode())).code == "malformed_message"


# ---- what cannot be read


def test_a_malformed_message_with_an_id_fails_and_becomes_a_dead_letter() -> None:
    raw = json.dumps(json.loads(message()) | {"body": "%"}).encode()
    one = unreadable(raw)
    assert failure_of(one).code == "malformed_message"
    assert one.ending.task_id == "t-1"
    assert base64.b64decode(letter_of(one)["raw"]) == raw


@pytest.mark.parametrize("raw", [b"", b"garbage", b"\xff\x00\x80", b"{}"])
def test_a_malformed_message_without_an_id_becomes_a_dead_letter_alone(raw: bytes) -> None:
    one = unreadable(raw)
    assert (one.ending.meta, one.ending.task_id, one.ending.channel) == (b"", "", "")
    letter = letter_of(one)
    assert base64.b64decode(letter.pop("raw")) == raw
    assert letter.pop("message")
    assert letter == {
        "id": "",
        "code": "malformed_message",
        "origin": QUEUE,
        "crashes": 1,
        "at_ms": NOW_MS,
        "bytes": len(raw),
    }


def test_a_malformed_message_leaves_its_neighbours_alone() -> None:
    entries = [entry(message(), number=0), entry(b"garbage", number=1), entry(message(), number=2)]
    read, bad = module.decode(entries, NOW_MS, 3)
    assert [one for one, _ in read] == [entries[0], entries[2]]
    assert [one.entry for one in bad] == [entries[1]]


def test_a_huge_time_of_sending_does_not_sink_the_lease() -> None:
    read, bad = module.decode([entry(message(reclane_sent=10**400)), entry(message())], NOW_MS, 3)
    assert len(read) + len(bad) == 2


# ---- whom to tell, and what to store


@pytest.mark.parametrize(
    ("changes", "known", "crashes"),
    [
        ({}, {"stored": {"t-1": ANSWER}}, 0),
        ({}, {"revoked": {"t-1"}}, 0),
        ({"expires": at(-1)}, {}, 0),
        ({"task": "other"}, {}, 0),
        ({"fields": {"k": 0}}, {}, 0),
        ({}, {}, 3),
    ],
)
@pytest.mark.parametrize(("reply_to", "told"), [(CHANNEL, CHANNEL), (STOCK_REPLY, ""), (None, "")])
def test_only_a_reclane_client_is_notified(
    changes: dict[str, Any], known: dict[str, Any], crashes: int, reply_to: str | None, told: str
) -> None:
    assert ended(message(reply_to=reply_to, **changes), crashes, **known).ending.channel == told


@pytest.mark.parametrize(("reply_to", "told"), [(CHANNEL, CHANNEL), (STOCK_REPLY, "")])
def test_an_answer_notifies_only_a_reclane_client(reply_to: str, told: str) -> None:
    (job,) = sort(entry(message(reply_to=reply_to))).jobs
    ending = end_with(job, b"meta", None, NOW_MS)
    assert (ending.field, ending.task_id, ending.meta) == ("1:0:0", "t-1", b"meta")
    assert (ending.channel, ending.dead_letters) == (told, b"")


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("pipeline_error", True),
        ("non_finite", True),
        ("out_of_memory", True),
        ("unknown_catalog", False),
    ],
)
def test_what_the_model_cannot_take_is_kept_as_a_dead_letter(code: str, kept: bool) -> None:
    (job,) = sort(entry(message())).jobs
    ending = end_with(job, b"meta", Failure(code=code, message="no"), NOW_MS)
    assert ending.meta == b"meta"
    assert bool(ending.dead_letters) is kept


def test_ignore_result_stores_no_answer() -> None:
    (job,) = sort(entry(message(ignore_result=True))).jobs
    ending = end_with(job, b"meta", None, NOW_MS)
    assert ending.meta == b""
    assert ending.arguments(KEYS)[1:3] == ("", b"")


@pytest.mark.parametrize(
    ("changes", "known", "crashes"),
    [
        ({}, {"revoked": {"t-1"}}, 0),
        ({"expires": at(-1)}, {}, 0),
        ({"task": "other"}, {}, 0),
        ({"fields": {"k": 0}}, {}, 0),
        ({}, {}, 3),
    ],
)
def test_ignore_result_stores_no_failure_and_no_revocation(
    changes: dict[str, Any], known: dict[str, Any], crashes: int
) -> None:
    assert ended(message(ignore_result=True, **changes), crashes, **known).ending.meta == b""


def test_an_ending_with_a_result_names_its_key() -> None:
    (job,) = sort(entry(message())).jobs
    assert end_with(job, b"meta", None, NOW_MS).arguments(KEYS) == (
        "1:0:0",
        "celery-task-meta-t-1",
        b"meta",
        CHANNEL,
        "t-1",
        b"",
    )


def test_a_message_over_the_bound_is_refused_without_parsing_but_with_its_id() -> None:
    raw = b'{"headers": {"id": "big-1"}, "body": "' + b"x" * 1_048_576 + b'"}'
    read, bad = module.decode([entry(raw)], NOW_MS, 3)
    assert not read
    assert (bad[0].reason, bad[0].ending.task_id) == ("too_large", "big-1")
    assert len(bad[0].ending.dead_letters) < 1_500_000


def test_a_message_that_kills_whoever_reads_it_is_condemned_without_being_read() -> None:
    raw = b'{"headers": {"id": "deadly"}, whatever'
    read, bad = module.decode([entry(raw, crashes=4)], NOW_MS, 3)
    assert not read
    assert (bad[0].reason, bad[0].ending.task_id) == ("poison", "deadly")


def test_a_job_knows_until_when_it_is_wanted() -> None:
    (job,) = sort(entry(message(expires=at(9)))).jobs
    assert job.expires == NOW_S + 9
    (job,) = sort(entry(message())).jobs
    assert job.expires is None
    ended = module.expired(job, NOW_S + 1.0)
    assert (ended.reason, ended.ending.field) == ("expired", job.entry.field)
    assert wire.is_revoked(ended.ending.meta)


def test_with_a_key_the_placeholder_says_until_when() -> None:
    digest = "0" * 40
    waiting = {"digest": digest, "expires": NOW_S + 5.0}
    kept = json.dumps({"status": "PENDING", "result": None, "reclane": waiting}).encode()
    keyed = message(reclane_digest=digest, expires=at(-1))
    (job,) = sort(entry(keyed), stored={"t-1": kept}).jobs
    assert job.expires == NOW_S + 5.0
