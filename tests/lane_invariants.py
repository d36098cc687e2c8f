"""The invariants of worker/LANE.md, each judged by two states of Redis: before and after a step.

They know nothing of the scripts; a step is whatever one rule of `test_lane_model.py` did.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lane_spec import Crashes, digest, parse, read
from lane_world import KEYS, LAPSED, Blamed, State
from reclane import wire

MAX_LETTERS = 3  # in these tests
WAITING_AT_LEAST_S = 3_600  # no request of these tests waits for less


@dataclass
class History:
    """What was seen before; `known` is what each living worker that awaits no reply holds."""

    before: State
    forgotten: set[str] = field(default_factory=set)  # since the state before
    settled: Counter[str] = field(default_factory=Counter)  # id -> pushes when it was forgotten
    fields: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    ended: set[tuple[str, bytes]] = field(default_factory=set)
    pushes: Counter[bytes] = field(default_factory=Counter)
    known: dict[str, set[str]] = field(default_factory=dict)

    def judge(self, after: State) -> None:
        """Check every invariant, and remember."""
        for invariant in INVARIANTS.values():
            invariant(self, after)
        held = {(w, f): m for w, part in after.inflight.items() for f, m in part.items()}
        self.ended |= self.fields.keys() - held.keys()
        self.fields |= held
        self.settled |= {i: n for i, n in self.accepted().items() if i in self.forgotten}
        self.forgotten = set()
        self.before = after

    def accepted(self) -> Counter[str]:
        """How often messages of each id were pushed."""
        found: Counter[str] = Counter()
        for message, count in self.pushes.items():
            found[read(message).id] += count
        return found


def _ended(results: Mapping[str, bytes]) -> dict[str, bytes]:
    return {task_id: meta for task_id, meta in results.items() if not wire.is_pending(meta)}


def i1_nothing_accepted_is_lost(history: History, after: State) -> None:
    """Every accepted id has a message somewhere or a terminal result, a waiting key one of its
    own request's; no message is in more places than it was pushed times."""
    there = Counter(after.messages())
    ids = {read(message).id for message in there}
    open_ids = (history.accepted() - history.settled).keys() - history.forgotten
    assert open_ids <= ids | _ended(after.results).keys(), "lost"
    asked = {(read(message).id, read(message).digest) for message in there}
    for task_id, meta in after.results.items():
        if wire.is_pending(meta):
            wanted = wire.decode_pending(meta).digest
            assert (task_id, wanted) in asked if wanted else task_id in ids
    assert there <= history.pushes


def i2_a_result_never_changes(history: History, after: State) -> None:
    """A result stays until forgotten; a failure or revocation may give way to asking again."""
    for task_id, meta in history.before.results.items():
        if task_id in history.forgotten:
            continue
        now = after.results.get(task_id)
        assert now is not None, "a result or placeholder vanished"
        if not wire.is_pending(meta) and now != meta:
            assert wire.decode_result(meta).status != wire.SUCCESS
            assert wire.is_pending(now)
            assert {"enqueue", "requeue"} & set(after.ran)


def i3_each_ending_is_published_once(history: History, after: State) -> None:
    """Results are published when they become visible, and only then."""
    before = _ended(history.before.results)
    new = {KEYS.result(i): m for i, m in _ended(after.results).items() if before.get(i) != m}
    keys = {KEYS.result(i) for i in after.results}
    assert Counter(one for one in after.published if one[0] in keys) == Counter(new.items())


def i4_a_field_is_never_reused(history: History, after: State) -> None:
    """An in-flight field means one message, once."""
    for worker, held in after.inflight.items():
        for name, message in held.items():
            assert (worker, name) not in history.ended
            assert history.fields.get((worker, name), message) == message


def i5_only_members_hold_messages(history: History, after: State) -> None:
    """What a worker holds goes with its membership of the leases."""
    assert after.inflight.keys() <= after.leases.keys()
    assert after.records.keys() <= after.leases.keys()
    assert after.paces <= after.leases.keys()


def i6_given_back_messages_come_first_in_order(history: History, after: State) -> None:
    """They are served before all that waited, each worker's in the order it had taken them; of
    those that fall due together the one due first is served first."""
    for key, waiting in after.lists.items():
        served = waiting[::-1]
        old = set(history.before.lists[key])
        back = [m for m in served if m not in old and history.pushes[m] == 1]
        groups = [_taken(held.items(), key) for held in history.before.inflight.values()]
        parked = sorted(history.before.scheduled.items(), key=lambda one: one[1])
        groups.append([_message(entry) for entry, _ in parked if _origin(entry) == key])
        returned = [m for group in groups for m in group if m in back]
        at = {message: place for place, message in enumerate(served)}
        first_old = min((place for place, m in enumerate(served) if m in old), default=len(served))
        assert all(at[m] < first_old for m in returned)
        for group in groups:
            places = [at[m] for m in group if m in returned]
            assert places == sorted(places)


def i7_only_what_was_started_is_blamed(history: History, after: State) -> None:
    """A crash is counted for the started messages, or parts of them, of a lapsed worker, once, and
    for no others."""
    assert _flat(after.attempts) - _flat(history.before.attempts) == Counter(after.blamed)


def _flat(attempts: Mapping[str, Crashes]) -> Counter[Blamed]:
    return Counter(
        {(one, part): n for one, counted in attempts.items() for part, n in counted.items()}
    )


def i8_nobody_leaves_holding_messages(history: History, after: State) -> None:
    """Whoever is no member any more had nothing in flight, or its lease had lapsed."""
    for worker, score in history.before.leases.items():
        if worker not in after.leases and score > LAPSED:
            assert worker not in history.before.inflight


def i9_crashes_are_remembered_only_of_messages_that_exist(history: History, after: State) -> None:
    """When all is answered, the attempts are empty."""
    assert after.attempts.keys() <= set(map(digest, after.messages()))


def i10_dead_letters_are_bounded(history: History, after: State) -> None:
    """The oldest letters go."""
    assert len(after.letters) <= MAX_LETTERS


def i11_a_placeholder_outlives_its_wait(history: History, after: State) -> None:
    """Nothing shortens how long Redis knows that a request waits."""
    for task_id, meta in after.results.items():
        assert not wire.is_pending(meta) or after.ttl_s[task_id] > WAITING_AT_LEAST_S


def i12_a_worker_knows_all_it_holds(history: History, after: State) -> None:
    """Nothing is stranded in a worker that lives and has heard the reply to its last call."""
    for worker, known in history.known.items():
        assert {name.decode() for name in after.inflight.get(worker, {})} <= known


def i13_an_ending_belongs_to_its_request(history: History, after: State) -> None:
    """A key that waits for one request is not ended by another's message; `cancel` names the id."""
    for task_id, meta in _ended(after.results).items():
        placeholder = history.before.results.get(task_id)
        if placeholder and wire.is_pending(placeholder) and "cancel" not in after.ran:
            wanted = wire.decode_pending(placeholder).digest
            assert not wanted or wanted.encode() in meta


INVARIANTS: dict[str, Callable[[History, State], None]] = {
    name.partition("_")[0].upper(): check
    for name, check in list(globals().items())
    if name.startswith("i") and name[1].isdigit()
}


def _taken(held: Iterable[tuple[bytes, bytes]], key: str) -> Sequence[bytes]:
    ordered = sorted(held, key=lambda one: parse(one[0]))
    return [_message(entry) for _, entry in ordered if _origin(entry) == key]


def _origin(entry: bytes) -> str:
    return entry.split(b"\n", 1)[0].decode()


def _message(entry: bytes) -> bytes:
    return entry.split(b"\n", 1)[1]
