"""What people's commands read: letters, a worker's statistics, an id file, whatever they hold."""

import json
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fuzzing import MESSAGE, MESSAGES, NOW, bytes_like
from reclane import wire
from reclane.contract import Failure, RecommendRequest
from reclane.errors import NotRequeueable, WireError
from reclane.operations import messages
from reclane.operations.facts import LaneFacts
from reclane.operations.lane_findings import judge_lane
from reclane.operations.letters import message_for, read_letter, request_of
from reclane.operations.queues import Overview, WorkerState, glimpse
from reclane.probe import probe, read_statistics
from reclane.settings import Settings
from reclane_worker.lane import Entry
from reclane_worker.triage import dead_letter
from support import KEYS

ENTRY = Entry("1:1:1", "reclane.bulk", MESSAGE, 3)
LETTER = json.loads(dead_letter(ENTRY, "t-1", Failure(code="poison", message="-"), 12_345))
STATISTICS = {"version": "1", "contract": 1, "model": "m", "catalogs": ["a"], "requests": 1}


@given(bytes_like(LETTER))
@example(b'{"raw": "", "id": "", "code": "", "message": "", "origin": "", "crashes": Infinity}')
def test_any_record_is_a_letter_that_can_be_shown_and_requeued_or_refused(record: bytes) -> None:
    letter = read_letter(record)
    assert letter.name
    for request in (None, RecommendRequest(query="film")):
        with suppress(NotRequeueable):
            wire.decode_message(message_for(letter, NOW, request))
    with suppress(NotRequeueable):
        request_of(letter)


@given(MESSAGES)
def test_a_letter_keeps_any_message_as_it_was(raw: bytes) -> None:
    record = dead_letter(Entry("1:1:1", "q", raw, 1), "t", Failure(code="c", message="m"), 5)
    assert read_letter(record).raw == raw


@given(MESSAGES)
def test_any_message_can_be_looked_at(raw: bytes) -> None:
    found = messages.read(raw)
    if not isinstance(found, WireError):
        messages.asked(found)
    glimpse(raw, 0, NOW, show_text=True)


@given(bytes_like(STATISTICS))
@example(b'{"catalogs": 5}')
@example(b"[" * 100_000)
def test_doctor_judges_a_worker_whatever_it_published(stored: bytes) -> None:
    seen = Overview((), (WorkerState("w", 1, 5.0),), 0, 0, None, 0)
    facts = LaneFacts(overview=seen, statistics={"w": read_statistics(stored)})
    assert all(isinstance(one.text, str) for one in judge_lane(facts, KEYS, 10))


@given(content=st.binary(max_size=100))
@example(content=b"\xff")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_probe_reads_any_id_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.write_bytes(content)
    nobody = "redis://127.0.0.1:1/0"
    verdict = probe("ready", Settings(id_file=path, redis_url=nobody), 5)
    assert not verdict.ok
    assert verdict.reason
