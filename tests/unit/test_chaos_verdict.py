"""What the chaos harness makes of what it saw: a broken promise does not pass for a kept one."""

from itertools import islice

from chaos import plan, verdict
from chaos.ledger import Ledger
from chaos.recovery import Loss
from reclane import wire
from reclane.contract import Failure

ANSWER = wire.encode_failure("a", Failure(code="poison", message="one"), 0.0)
OTHER = wire.encode_failure("a", Failure(code="poison", message="another"), 0.0)
PENDING = b'{"status": "PENDING", "result": null}'


def ledger_of(*events: bytes | None, read: bytes | None = None) -> list[str]:
    """The checks that fail after these publications (None: never accepted) and a last reading."""
    ledger = Ledger()
    ledger.write_down(["a"])
    if None not in events:
        ledger.accept(["a"])
    for event in filter(None, events):
        ledger.published("a", event, 0.0)
    ledger.read("a", read, 0.0)
    checks = verdict.of_requests(ledger.rows, ledger.strangers)
    return [check.what for check in checks if check.ok is False]


def test_one_result_that_stays_is_what_is_promised() -> None:
    assert ledger_of(ANSWER, read=ANSWER) == []


def test_a_result_that_was_only_read_counts_as_seen() -> None:
    assert ledger_of(read=ANSWER) == []


def test_an_accepted_request_without_a_result_is_lost() -> None:
    assert ledger_of(read=PENDING) == ["lost"]


def test_a_request_that_was_never_accepted_may_go_unanswered_or_not() -> None:
    assert ledger_of(None) == []
    assert ledger_of(None, ANSWER, read=ANSWER) == []


def test_a_second_publication_is_seen_even_of_the_same_value() -> None:
    assert ledger_of(ANSWER, ANSWER, read=ANSWER) == ["published twice"]


def test_a_result_that_changes_or_vanishes_is_seen() -> None:
    assert ledger_of(ANSWER, read=OTHER) == ["changed after being visible"]
    assert ledger_of(ANSWER, read=PENDING) == ["changed after being visible"]
    assert ledger_of(ANSWER, read=None) == ["changed after being visible"]


def test_a_result_of_an_id_that_was_never_sent_is_seen() -> None:
    ledger = Ledger()
    ledger.published("b", ANSWER, 0.0)
    checks = verdict.of_requests(ledger.rows, ledger.strangers)
    assert [c.what for c in checks if c.ok is False] == ["results that nobody asked for"]


def test_messages_must_be_taken_over_within_two_leases() -> None:
    def holds(**loss: float | bool) -> bool | None:
        return verdict.of_recovery([Loss("w", 0.0, held=3, **loss)], lease_s=2.0)[-1].ok  # type: ignore[arg-type]

    assert holds(waited_s=3.9, over=True)
    assert not holds(waited_s=4.1, over=True)
    assert not holds(waited_s=3.9, over=False)


def test_memory_that_grows_is_seen_once_there_is_enough_to_compare() -> None:
    growing = [float(n) for n in range(100, 200)]
    assert verdict.of_memory("server", growing, warm_up=0).ok is False
    assert verdict.of_memory("server", [100.0] * 100, warm_up=0).ok
    assert verdict.of_memory("server", growing, warm_up=50).ok is None


def test_the_plan_follows_from_the_seed_and_holds_every_fault_in_each_round() -> None:
    def drawn(seed: int) -> list[plan.Step]:
        return list(islice(plan.draw(seed, {"one": 2, "other": 1}, workers=3), 6))

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    for part in (drawn(7)[:3], drawn(7)[3:]):
        assert sorted(step.fault for step in part) == ["one", "one", "other"]
