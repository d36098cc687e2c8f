"""Empties a queue so that nobody waits for ever: every purged request ends as REVOKED."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reclane import _scripts, names, wire
from reclane.errors import WireError
from reclane.operations import messages
from reclane.settings import Settings

REASON: Final = "purged"
CHUNK: Final = 200
MAX_CALL_BYTES: Final = 1_000_000
SLACK: Final = 2_000  # positions by which workers may have moved a list since it was read
PURGE: Final = _scripts.load("reclane/terminal", "reclane/purge", allow_oom=True)


@dataclass(slots=True)
class Purged:
    """What became of a queue: requests ended, those without an id (nobody can await them), those
    left because only Celery can end them (links, a chain, a group or a chord)."""

    ended: int = 0
    without_id: int = 0
    left: int = 0


def purge(client: Any, settings: Settings, queue: str) -> Purged:
    """End what waits in a queue now, at every priority; what is in flight or scheduled stays.

    Each message leaves its list and its ending becomes visible in one script, so that a purge
    cut off half-way has ended some requests and left the others in their list.
    """
    total = Purged()
    for step in names.PRIORITY_STEPS:
        _purge_list(client, settings, settings.keys.list(queue, step), total)
    return total


def _purge_list(client: Any, settings: Settings, key: str, total: Purged) -> None:
    """Chunk by chunk from the end that is served next; at most what was there at the start."""
    waiting, attempts = client.llen(key), settings.keys.attempts
    kept = seen = 0
    while seen < waiting:
        raws = client.lrange(key, -(kept + CHUNK), -(kept + 1))[-(waiting - seen) :]
        if not raws:
            return
        seen += len(raws)
        seconds, micros = client.time()
        endings: list[tuple[str | bytes, ...]] = []
        for raw in reversed(raws):
            ending = _ending(raw, settings.keys, seconds + micros / 1e6)
            if ending is None:
                kept += 1
                total.left += 1
            else:
                endings.append((raw, *ending))
        for group in _groups(endings):
            arguments = [part for ending in group for part in ending]
            look = CHUNK + kept + SLACK
            reply = client.eval(PURGE, 2, key, attempts, settings.result_ttl_s, look, *arguments)
            total.ended += reply[0]
            total.without_id += reply[1]


def _groups(
    endings: Sequence[tuple[str | bytes, ...]],
) -> Iterator[Sequence[tuple[str | bytes, ...]]]:
    """Endings in order, about MAX_CALL_BYTES of messages a call."""
    start = size = 0
    for at, (raw, *_) in enumerate(endings):
        if at > start and size + len(raw) > MAX_CALL_BYTES:
            yield endings[start:at]
            start, size = at, 0
        size += len(raw)
    if endings:
        yield endings[start:]


def _ending(raw: bytes, keys: names.Keys, now_s: float) -> tuple[str | bytes, ...] | None:
    """Result key, REVOKED, channel and id of a message; None when only Celery can end it."""
    message = messages.read(raw)
    if isinstance(message, WireError):
        task_id, stores, channel, digest = message.task_id or "", True, "", ""
    elif message.needs_celery:
        return None
    else:
        task_id, stores, digest = message.id, not message.ignore_result, message.digest
        ours = names.is_notify_channel(message.reply_to)
        channel = keys.channel(message.reply_to) if ours else ""
    meta = b""
    if task_id and stores:
        meta = wire.encode_revoked(task_id, REASON, now_s, digest=digest)
    return keys.result(task_id) if task_id else "", meta, channel, task_id
