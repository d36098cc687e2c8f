"""Celery protocol 2 messages in kombu's Redis envelope, to and from bytes.

Formats: celery.app.amqp.as_task_v2, kombu.transport.virtual (Celery 5.7).
"""

import base64
import json
import re
import socket
from binascii import Error as BinasciiError
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha1
from typing import Any, Final
from uuid import uuid4

from pydantic_core import to_json

from reclane import names
from reclane.contract import DELIVERY_FIELDS, RecommendRequest
from reclane.errors import WireError
from reclane.wire._json import quote, read_json

JSON_TYPE: Final = "application/json"
_DIGEST: Final = re.compile(r"[0-9a-f]{40}")
_ID: Final = re.compile(rb'"id":\s*"([^"\\]{1,256})"')
_LATEST_S: Final = 1e11  # the year 5138


@dataclass(frozen=True, slots=True)
class Message:
    """A task message as it came from the queue. Times are seconds since the epoch, or None."""

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    embed: dict[str, Any]
    headers: dict[str, Any]
    properties: dict[str, Any]
    eta: float | None
    expires: float | None
    sent: float | None

    @property
    def reply_to(self) -> str:
        return str(self.properties.get("reply_to") or "")

    @property
    def digest(self) -> str:
        """Of the request, where its id comes from an idempotency key; else ''."""
        value = self.headers.get("reclane_digest")
        return value if isinstance(value, str) and _DIGEST.fullmatch(value) else ""

    @property
    def ignore_result(self) -> bool:
        return bool(self.headers.get("ignore_result"))

    @property
    def parent_id(self) -> str:
        """The task that sent this one, or ''; Celery stores it beside the result."""
        return str(self.headers.get("parent_id") or "")

    @property
    def needs_celery(self) -> bool:
        """Whether links, a chain, a group or a chord must go through Celery's own backend."""
        headers, embed = self.headers, self.embed
        return bool(
            headers.get("group")
            or embed.get("callbacks")
            or embed.get("errbacks")
            or embed.get("chain")
            or embed.get("chord")
        )

    def request_fields(self) -> Any:
        """The request: one positional dict, or keyword fields."""
        if len(self.args) == 1 and not self.kwargs:
            return self.args[0]
        if not self.args:
            return self.kwargs
        raise WireError("send one positional dict, or keyword fields, not both", self.id)

    def chunk_fields(self) -> Any:
        """The requests of a chunk: one positional list, or the keyword `requests`."""
        given = self.request_fields()
        return given["requests"] if isinstance(given, dict) and [*given] == ["requests"] else given


def request_digest(request: RecommendRequest) -> str:
    """Tells two requests with one idempotency key apart; a later deadline is no difference."""
    fields = request.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    asked = {k: _plain(v) for k, v in fields.items() if k not in DELIVERY_FIELDS}
    text = json.dumps(asked, sort_keys=True)
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _plain(value: Any) -> Any:
    """Equal numbers written alike: 2000.0 is 2000."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@lru_cache(64)
def _envelope(
    task: str, queue: str, reply_to: str, priority: int, keyed: bool
) -> tuple[bytes, ...]:
    """The parts of an envelope between the values that change from message to message."""
    headers = {
        "lang": "py",
        "task": task,
        "id": "\0id",
        "shadow": None,
        "eta": None,
        "expires": "\0expires",
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": "\0id",
        "parent_id": None,
        "argsrepr": "-",  # request text stays out of headers, logs and events
        "kwargsrepr": "-",
        "origin": f"reclane@{socket.gethostname()}",
        "ignore_result": False,
        "reclane_sent": "\0sent",
        **({"reclane_digest": "\0digest"} if keyed else {}),
    }
    envelope = {
        "body": "\0body",
        "content-encoding": "utf-8",
        "content-type": JSON_TYPE,
        "headers": headers,
        "properties": {
            "correlation_id": "\0id",
            "reply_to": reply_to,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": priority,
            "body_encoding": "base64",
            "delivery_tag": "\0tag",
        },
    }
    text = json.dumps(envelope)
    for hole in ("id", "expires", "sent", "body", "tag", "digest"):
        text = text.replace(f'"\\u0000{hole}"', f"\0{hole}\0")
    return tuple(part.encode() for part in text.split("\0"))


def encode_request(
    request: RecommendRequest,
    *,
    task_id: str,
    queue: str,
    reply_to: str,
    now: float,
    priority: int = 0,
    digest: str = "",
) -> bytes:
    """Envelope for one request, ready for LPUSH. `now` is seconds since the epoch (UTC).

    `digest` is `request_digest` where the id comes from an idempotency key.
    """
    body = request.model_dump_json(exclude_defaults=True, by_alias=True, ensure_ascii=False)
    expires = b"null"
    if request.deadline_s is not None:
        expires = quote(datetime.fromtimestamp(now + request.deadline_s, UTC).isoformat())
    envelope = _envelope(names.RECOMMEND, queue, reply_to, priority, bool(digest))
    return _fill(envelope, body.encode(), task_id, now, expires, digest)


def encode_chunk(requests: Sequence[bytes], *, task_id: str, reply_to: str, now: float) -> bytes:
    """Envelope for a chunk on the bulk queue; `requests` are JSON objects. See `encode_request`."""
    envelope = _envelope(names.RECOMMEND_MANY, names.BULK_QUEUE, reply_to, 0, False)
    return _fill(envelope, b"[" + b", ".join(requests) + b"]", task_id, now)


def _fill(
    envelope: tuple[bytes, ...],
    argument: bytes,
    task_id: str,
    now: float,
    expires: bytes = b"null",
    digest: str = "",
) -> bytes:
    """An envelope around its one positional argument, JSON."""
    framed = (
        b"[["
        + argument
        + b'], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    )
    values = {
        b"id": quote(task_id),
        b"expires": expires,
        b"sent": b"%.6f" % now,
        b"body": b'"' + base64.b64encode(framed) + b'"',
        b"tag": quote(str(uuid4())),
        b"digest": quote(digest),
    }
    return b"".join(values[p] if i % 2 else p for i, p in enumerate(envelope))


def decode_message(raw: bytes) -> Message:
    """Read a task message.

    Raises:
        WireError: it is not JSON, not protocol 2, or lacks an id; says which.
    """
    envelope = read_json(raw, "envelope", None)
    if not isinstance(envelope, dict):
        raise WireError("the message is not a JSON object")
    headers, properties = envelope.get("headers"), envelope.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise WireError("the message has no headers or properties")
    task_id, task = headers.get("id"), headers.get("task")
    if not isinstance(task_id, str) or not task_id or not isinstance(task, str):
        raise WireError("the message has no id or task header; send Celery protocol 2")
    if envelope.get("content-type") != JSON_TYPE:
        raise WireError("the content type is not application/json; set task_serializer", task_id)
    args, kwargs, embed = _body(envelope.get("body"), properties, task_id)
    return Message(
        id=task_id,
        task=task,
        args=args,
        kwargs=kwargs,
        embed=embed,
        headers=headers,
        properties=properties,
        eta=_seconds(headers.get("eta"), "eta", task_id),
        expires=_seconds(headers.get("expires"), "expires", task_id),
        sent=_sent(headers),
    )


def find_id(raw: bytes) -> str:
    """The id of a message that must not be parsed, or ''. The body is base64: no false match."""
    found = _ID.search(raw)
    return found[1].decode("utf-8", "replace") if found else ""


def rewrite(raw: bytes, now: float, request: RecommendRequest | None = None) -> bytes:
    """A message to send once more at `now` (seconds since the epoch): without its expiry, and
    asking `request` where one is given; links, priority and whom to tell stay as they were.

    Raises:
        WireError: its envelope cannot be read.
    """
    envelope = read_json(raw, "envelope", None)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("headers"), dict):
        raise WireError("the message has no headers")
    if not isinstance(envelope.setdefault("properties", {}), dict):
        raise WireError("the message's properties are not an object")
    envelope["headers"]["expires"] = None
    if request is not None:
        _ask(envelope, request, now)
    data = to_json(envelope)
    decode_message(data)
    return data


def _ask(envelope: dict[str, Any], request: RecommendRequest, now: float) -> None:
    headers, properties = envelope["headers"], envelope["properties"]
    try:
        embed = _body(envelope.get("body"), properties, "")[2]
    except WireError:
        embed = {}
    fields = request.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    headers |= {"task": names.RECOMMEND, "eta": None}
    if _DIGEST.fullmatch(str(headers.get("reclane_digest"))):
        headers["reclane_digest"] = request_digest(request)
    if request.deadline_s is not None:
        headers["expires"] = datetime.fromtimestamp(now + request.deadline_s, UTC).isoformat()
    properties["body_encoding"] = "base64"
    envelope["body"] = base64.b64encode(to_json([[fields], {}, embed])).decode()
    envelope |= {"content-type": JSON_TYPE, "content-encoding": "utf-8"}


def _body(
    body: Any, properties: dict[str, Any], task_id: str
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    if not isinstance(body, str):
        raise WireError("the body is not a string", task_id)
    try:
        base64_body = properties.get("body_encoding") == "base64"
        data = base64.b64decode(body, validate=True) if base64_body else body.encode()
    except (BinasciiError, ValueError):
        raise WireError("the body is not valid base64", task_id) from None
    match read_json(data, "body", task_id):
        case [list() as args, dict() as kwargs, dict() | None as embed]:
            return args, kwargs, embed or {}
    raise WireError("the body is not [args, kwargs, embed]", task_id)


def _seconds(value: Any, name: str, task_id: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise WireError(f"the {name} header is not an ISO date", task_id)
    try:
        moment = datetime.fromisoformat(value)
        # In UTC, too: an offset must not bring it before the year 1 or after 9999.
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise WireError(f"the {name} header is not an ISO date", task_id) from None
    return moment.timestamp()


def _sent(headers: dict[str, Any]) -> float | None:
    """Seconds since the epoch; nonsense counts as absent: it only feeds a timing."""
    sent = headers.get("reclane_sent")
    if not isinstance(sent, int | float) or not 0 <= sent < _LATEST_S:
        return None
    return float(sent)
