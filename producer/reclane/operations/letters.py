"""Dead letters: read, mend, requeue, drop. One letter is the record that triage writes."""

import base64
import json
from binascii import Error as BinasciiError
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import Any, Final, Literal

from reclane import _scripts, names, wire
from reclane._outgoing import WAITING_TTL_S
from reclane.contract import RecommendRequest
from reclane.errors import NotRequeueable, UnknownLetter, WireError
from reclane.operations import messages

PAGE: Final = 50
REQUEUE: Final = _scripts.load("reclane/terminal", "reclane/requeue")

Outcome = Literal["requeued", "gone", "answered"]


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: why it died, where it came from, and its message.

    `record` is the bytes as stored, by which it is removed. `size` is the length of the message
    as it was, of which `raw` may hold only the beginning.
    """

    record: bytes
    id: str
    code: str
    message: str
    origin: str
    crashes: int
    at_ms: int
    size: int
    raw: bytes

    @property
    def name(self) -> str:
        """What a person calls it by: its id, or @ and a digest where the message had none."""
        return self.id or "@" + sha256(self.record).hexdigest()[:12]


def read_letter(record: bytes) -> Letter:
    """A letter from its record; what cannot be read is empty, so that it can still be dropped."""
    try:
        value = json.loads(record)
        raw = base64.b64decode(str(value["raw"]), validate=True)
        return Letter(
            record=record,
            id=str(value["id"]),
            code=str(value["code"]),
            message=str(value["message"]),
            origin=str(value["origin"]),
            crashes=int(value["crashes"]),
            at_ms=int(value["at_ms"]),
            size=int(value["bytes"]),
            raw=raw,
        )
    except (ValueError, KeyError, TypeError, OverflowError, BinasciiError, RecursionError):
        text = "this record cannot be read; drop it"
        return Letter(record, "", "unreadable_record", text, "", 0, 0, len(record), b"")


def newest(client: Any, keys: names.Keys, count: int | None = None) -> Iterator[Letter]:
    """Letters, newest first, read in pages; `count` at most."""
    left = count
    start = 0
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        records = client.lrange(keys.dead_letters, start, start + size - 1)
        yield from map(read_letter, records)
        if len(records) < size:
            return
        start += size
        left = None if left is None else left - size


def oldest_first(client: Any, keys: names.Keys, count: int) -> Iterator[Letter]:
    """The `count` oldest letters, each removed or left by the caller before the next is read.

    New letters come in at the other end and move nothing.
    """
    left = 0
    for _ in range(count):
        record = client.lindex(keys.dead_letters, -1 - left)
        if record is None:
            return
        yield read_letter(record)
        left += client.lindex(keys.dead_letters, -1 - left) == record


def find(client: Any, keys: names.Keys, wanted: Collection[str]) -> list[Letter]:
    """The letters of these names, oldest first.

    Raises:
        UnknownLetter: naming those there are none of.
    """
    found = [letter for letter in newest(client, keys) if letter.name in wanted]
    missing = sorted(set(wanted) - {letter.name for letter in found})
    if missing:
        raise UnknownLetter(f"no dead letter is called {', '.join(missing)}; see `reclane dlq ls`")
    return found[::-1]


def requeue(client: Any, keys: names.Keys, letter: Letter, raw: bytes) -> Outcome:
    """Put `raw` (the letter's message, or a mended one) at the end of the list it came from.

    In one script: the letter is removed, its stored failure gives way to the placeholder of a
    waiting request (the worker would take it for answered), and its crashes are forgotten. A
    repeat finds it gone and does nothing. One that was answered or revoked meanwhile, or whose
    idempotency key waits for another request by now, stays a letter: a result never changes.

    Raises:
        NotRequeueable: it has no list to go back to.
    """
    destination = keys.prefix + letter.origin
    if destination not in keys.lane_lists():
        raise NotRequeueable(f"{letter.name}: {letter.origin!r} is not a list that workers serve")
    # SHA-1 as in the lane's scripts; nothing rests on its strength.
    crashes = [sha1(one, usedforsecurity=False).hexdigest() for one in (letter.raw, raw)]
    result = keys.result(letter.id) if letter.id else ""
    lists = keys.dead_letters, destination, keys.attempts
    waiting = _waiting(raw)
    reply = client.eval(REQUEUE, 3, *lists, letter.record, raw, result, *waiting, *crashes)
    outcomes: dict[int, Outcome] = {1: "requeued", 0: "gone", -1: "answered"}
    return outcomes[int(reply)]


def _waiting(raw: bytes) -> tuple[int, str]:
    """How long Redis knows that the message waits, 0 where it stores no result; its digest."""
    message = messages.read(raw)
    if isinstance(message, WireError):
        return WAITING_TTL_S, ""
    return 0 if message.ignore_result else WAITING_TTL_S, message.digest


def drop(client: Any, keys: names.Keys, letter: Letter) -> bool:
    """Remove a letter; False when it was gone. Its failure was stored when it died."""
    return bool(client.lrem(keys.dead_letters, -1, letter.record))


def request_of(letter: Letter) -> Any:
    """What the letter's message asks, valid or not: private, so show it only when told to.

    Raises:
        NotRequeueable: the message cannot be read.
    """
    message = messages.read(letter.raw)
    if isinstance(message, WireError):
        raise NotRequeueable(f"{letter.name}: its message cannot be read: {message}")
    return messages.asked(message)


def message_for(letter: Letter, now_s: float, request: RecommendRequest | None = None) -> bytes:
    """The message to send again: its own bytes, unless `request` replaces what it asks or its
    expiry has passed, which is then taken off: whoever requeues it wants the answer.

    Raises:
        NotRequeueable: it was cut when it died, or its envelope cannot be read.
    """
    if len(letter.raw) != letter.size:
        raise NotRequeueable(
            f"{letter.name}: only {len(letter.raw)} of {letter.size} bytes are kept"
        )
    message = messages.read(letter.raw)
    if not isinstance(message, WireError):
        lapsed = message.expires is not None and message.expires <= now_s
    elif request is None:
        raise NotRequeueable(f"{letter.name}: {message}; say what it should ask with --request")
    else:
        lapsed = False
    if request is None and not lapsed:
        return letter.raw
    try:
        return wire.rewrite(letter.raw, now_s, request)
    except WireError as error:
        raise NotRequeueable(f"{letter.name}: {error}; it cannot be mended, only dropped") from None
