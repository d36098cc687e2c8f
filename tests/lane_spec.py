"""The lane's protocol in plain Python: what each script must do to Redis, and nothing else.

`test_lane_model.py` runs every call on a real server and here, and compares replies and state.
Written from worker/LANE.md. Lists are as in Redis: pushed at the front, served from the end.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from typing import Any

from reclane import names, wire
from reclane.operations import messages

FAR = 1 << 50  # ms: not due in any test
Field = tuple[int, int, int]
Reply = Any


@dataclass
class Record:
    """What is kept of a worker; an incarnation lasts until its lease is lost."""

    incarnation: int
    batch: int = -1
    taken: int = 0
    started: tuple[bytes, ...] = ()


@dataclass
class Pending:
    """A placeholder."""

    digest: str = ""
    expires: float | None = None
    notify: list[str] = field(default_factory=list)

    def wanted(self) -> wire.Wanted:
        return wire.Wanted(self.digest, self.expires, tuple(self.notify))


Stored = Pending | bytes
Crashes = Counter[str]  # of a message, under '', and of its parts
Sent = tuple[str, bytes]  # channel, data


def parse(name: bytes) -> Field:
    incarnation, batch, position = map(int, name.split(b":"))
    return incarnation, batch, position


def crashes(counted: bytes) -> Crashes:
    """`1 3:2` as recover.lua writes it."""
    whole, *parts = counted.decode().split()
    return +Crashes({"": int(whole)} | {p: int(n) for p, n in (one.split(":") for one in parts)})


def blame(started: Iterable[bytes], held: Collection[bytes]) -> Iterator[tuple[bytes, str]]:
    """Each field that is held, and its part or ''."""
    for name in started:
        field, _, part = name.partition(b"#")
        if field in held:
            yield field, part.decode()


def digest(message: bytes) -> str:
    return sha1(message, usedforsecurity=False).hexdigest()


@lru_cache(10_000)
def read(message: bytes) -> wire.Message:
    found = messages.read(message)
    assert isinstance(found, wire.Message)
    return found


class Spec:
    """All of Redis that the lane uses. Each script is a method that takes its KEYS and ARGV."""

    def __init__(self) -> None:
        self.lists: dict[str, list[bytes]] = {key: [] for key in names.Keys().lane_lists()}
        self.scheduled: dict[bytes, float] = {}
        self.lapsed: dict[str, bool] = {}  # every member of the leases
        self.records: dict[str, Record] = {}
        self.inflight: dict[str, dict[bytes, bytes]] = {}
        self.incarnations = 0
        self.paces: set[str] = set()
        self.results: dict[str, Stored] = {}
        self.attempts: dict[str, Crashes] = {}
        self.letters: list[bytes] = []
        self.pushes: Counter[bytes] = Counter()
        self.published: list[Sent] = []
        self._told: dict[str, list[str]] = {}

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        """What the script must reply; `published` says what it sent."""
        self.published, self._told = [], {}
        method: Callable[[Sequence[str], Sequence[bytes]], Reply] = getattr(self, script)
        reply = method(keys, arguments)
        self.published += [(name, "\n".join(ids).encode()) for name, ids in self._told.items()]
        return reply

    # ---- the worker's scripts

    def lease(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        worker = arguments[0].decode()
        batch, limit, size, interactive, kept, most, incarnation = map(int, arguments[2:])
        record = self.records.get(worker)
        if record is None or worker not in self.lapsed:
            self._return_all(worker)
            self.incarnations += 1
            record = self.records[worker] = Record(self.incarnations)
        self.lapsed[worker] = False
        due = sorted(self.scheduled.items(), key=lambda one: (one[1], one[0]))
        due = [one for one in due if one[1] < FAR]
        for entry, _ in reversed(due):
            del self.scheduled[entry]
            self._return(entry)
        held = self.inflight.setdefault(worker, {})
        fields: list[bytes] = []
        if incarnation == record.incarnation and batch >= record.batch:
            if batch > record.batch:
                lists = keys[6 : 6 + interactive], keys[6 + interactive :]
                taken = self._take_both(*lists, limit, size, kept, most)
                for number, entry in enumerate(taken, 1):
                    held[b"%d:%d:%d" % (incarnation, batch, number)] = entry
                record.batch, record.taken = batch, len(taken)
            known = [b"%d:%d:%d" % (incarnation, batch, n + 1) for n in range(record.taken)]
            fields = [name for name in known if name in held]
        reply: list[Any] = [record.incarnation, None, min(self.scheduled.values(), default=-1)]
        for name in fields:
            origin, message = held[name].split(b"\n", 1)
            reply += [name, origin, message, self.attempts.get(digest(message), Crashes())]
        return reply

    def start(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        worker = arguments[0].decode()
        if worker not in self.lapsed:
            return 0
        self.records[worker].started = tuple(filter(None, arguments[1].split(b"\n")))
        return 1

    def commit(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        held = self.inflight.setdefault(keys[0].removeprefix(names.Keys().inflight("")), {})
        bound, lost, late = int(arguments[1]), [], []
        for at in range(2, len(arguments), 6):
            name, key, meta, channels, task_id, letter = arguments[at : at + 6]
            entry = held.pop(name, None)
            if entry is None:
                lost.append(name)
                continue
            message = entry.split(b"\n", 1)[1]
            self.attempts.pop(digest(message), None)
            self.letters = [*letter.split(b"\n")[::-1], *self.letters] if letter else self.letters
            self.letters = self.letters[:bound]
            told = self._store(key.decode(), meta, read(message).digest) if meta else []
            late += [name] if told is None else []
            self._tell([*(told or []), *channels.decode().split()], task_id)
        return [lost, late]

    def give_back(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        held = self.inflight.setdefault(keys[0].removeprefix(names.Keys().inflight("")), {})
        due, moved = int(arguments[0]), 0
        for name in reversed(arguments[1:]):
            entry = held.pop(name, None)
            if entry is None:
                continue
            moved += 1
            if due >= 0:
                self.scheduled[entry] = due
            else:
                self._return(entry)
        return moved

    def renew(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        worker = arguments[0].decode()
        if worker not in self.lapsed:
            return 0
        self.lapsed[worker] = False
        self.paces |= {worker} if arguments[3] else set()
        return 1

    def recover(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        report: list[Any] = []
        for worker in sorted(name for name, lapsed in self.lapsed.items() if lapsed)[:4]:
            if worker == arguments[0].decode():
                continue
            held = self.inflight.get(worker, {})
            blamed = set(blame(self.records[worker].started, held))
            for name, part in blamed:
                one = digest(held[name].split(b"\n", 1)[1])
                self.attempts[one] = self.attempts.get(one, Crashes()) + Crashes([part])
            report += [worker.encode(), len(held), len({name for name, _ in blamed})]
            self._return_all(worker)
            del self.records[worker], self.lapsed[worker]
            self.paces.discard(worker)
        return report

    def leave(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        worker = arguments[0].decode()
        if self.inflight.get(worker):
            return 0
        self.lapsed.pop(worker, None)
        self.records.pop(worker, None)
        self.paces.discard(worker)
        return 1

    # ---- the producer's

    def enqueue(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        lists, channel = int(arguments[0]) + int(arguments[1]), arguments[6].decode()
        states, new = "", []
        for number, at in enumerate(range(8, len(arguments), 4)):
            message, _, wanted, until = arguments[at : at + 4]
            key, expires = keys[3 + lists + number], float(until) if until else None
            stored, asked = self.results.get(key), wanted.decode()
            if not asked:
                if stored is None:
                    new.append(message)
                    self.results[key] = Pending()
                states += "q"
            elif isinstance(stored, Pending):
                states += self._join(stored, asked, channel, expires)
            elif stored is not None and _stands(stored):
                states += "r" if _digest_of(stored) in ("", asked) else "c"
            else:
                new.append(message)
                self.results[key] = Pending(asked, expires)
                states += "q"
        self._push(keys[2], new)
        return [1, states.encode()]

    def cancel(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        meta, _, channel, task_id = arguments
        stored = self.results.get(keys[0])
        if stored == meta:
            return 1
        if not isinstance(stored, Pending):
            return 0
        self._tell({*(self._store(keys[0], meta, "") or []), channel.decode()}, task_id)
        return 1

    def purge(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        waiting, ended = self.lists[keys[0]], 0
        for at in range(2, len(arguments), 5):
            message, key, meta, channel, task_id = arguments[at : at + 5]
            if message not in waiting:
                continue
            del waiting[len(waiting) - 1 - waiting[::-1].index(message)]
            self.attempts.pop(digest(message), None)
            ended += 1
            told = self._store(key.decode(), meta, read(message).digest) if meta else []
            self._tell([*(told or []), *filter(None, [channel.decode()])], task_id)
        return [ended, 0]

    def requeue(self, keys: Sequence[str], arguments: Sequence[bytes]) -> Reply:
        letter, message, name, _, wanted, *digests = arguments
        key, asked = name.decode(), wanted.decode()
        if letter not in self.letters:
            return 0
        stored = self.results.get(key)
        if isinstance(stored, bytes):
            if wire.decode_result(stored).status != wire.FAILURE:
                return -1
            self.results[key] = Pending(asked)
        elif stored is None:
            self.results[key] = Pending(asked)
        elif asked and stored.digest not in ("", asked):
            return -1
        self.letters.remove(letter)
        for one in digests:
            self.attempts.pop(one.decode(), None)
        self._push(keys[1], [message])
        return 1

    # ---- parts

    def _take_both(
        self,
        interactive: Sequence[str],
        bulk: Sequence[str],
        limit: int,
        size: int,
        kept: int,
        most: int,
    ) -> list[bytes]:
        """Interactive ones first, but bulk has its places, at most `most`, while any waits."""
        kept = min(kept, most) if any(self.lists[key] for key in bulk) else 0
        room = size * (1 - kept / limit)
        taken = list(self._take(interactive, limit - kept, room))
        room = size - sum(len(entry.split(b"\n", 1)[1]) for entry in taken)
        return taken + list(self._take(bulk, min(limit - len(taken), most), room))

    def _take(self, lists: Sequence[str], places: int, room: float) -> Iterator[bytes]:
        """So many messages or bytes; one at least."""
        count = taken = 0
        for key in lists:
            waiting = self.lists[key]
            while waiting and count < places and (not count or taken + len(waiting[-1]) <= room):
                count += 1
                taken += len(waiting[-1])
                yield key.encode() + b"\n" + waiting.pop()
            if waiting:
                return

    def _return(self, entry: bytes) -> None:
        origin, message = entry.split(b"\n", 1)
        self.lists[origin.decode()].append(message)

    def _return_all(self, worker: str) -> None:
        held = self.inflight.pop(worker, {})
        for name in sorted(held, key=parse, reverse=True):
            self._return(held[name])

    def _push(self, key: str, new: Sequence[bytes]) -> None:
        self.lists[key][:0] = reversed(new)
        self.pushes.update(new)

    def _store(self, key: str, meta: bytes, asked: str) -> list[str] | None:
        """Store, publish, say whom to tell; None if it has ended or waits for another request."""
        stored = self.results.get(key)
        if isinstance(stored, bytes):
            return None
        if stored and stored.digest and asked and stored.digest != asked:
            return None
        self.results[key] = meta
        self.published.append((key, meta))
        return stored.notify if stored else []

    def _join(self, stored: Pending, asked: str, channel: str, expires: float | None) -> str:
        if stored.digest != asked:
            return "c"
        if channel and channel not in stored.notify:
            stored.notify.append(channel)
        if stored.expires is not None and (expires is None or expires > stored.expires):
            stored.expires = expires
        return "a"

    def _tell(self, channels: Iterable[str], task_id: bytes) -> None:
        for channel in channels:
            self._told.setdefault(channel, []).append(task_id.decode())


def _stands(meta: bytes) -> bool:
    found = wire.decode_result(meta)
    return found.status == wire.SUCCESS or (
        found.status == wire.FAILURE and found.result["exc_message"][2] is False
    )


def _digest_of(meta: bytes) -> str:
    return str(wire.results.read_json(meta, "result", None).get("reclane_digest", ""))
