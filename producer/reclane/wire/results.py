"""Celery results and the placeholders of waiting requests, to and from bytes.

Format: celery.backends.base._get_result_meta (Celery 5.7).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import to_json

from reclane.contract import Failure, Recommendation
from reclane.errors import ReclaneError, RequestFailed, RequestRevoked, WireError
from reclane.wire._json import quote, read_json

SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
PLACEHOLDER: Final = b'{"status": "PENDING", "result": null}'
"""What stands for a waiting request of which nothing more is known; see terminal.lua."""

_PENDING: Final = b'{"status": "PENDING"'  # how every placeholder begins
_STATUS: Final = re.compile(rb'\{"status": "([A-Z]+)"')
HEAD_BYTES: Final = 40  # of a stored result, of which `peek_status` reads the state
READY: Final = frozenset({SUCCESS, FAILURE, REVOKED})


@dataclass(frozen=True, slots=True)
class Meta:
    """A stored result: Celery's state, its JSON value, and when it ended (ISO 8601, UTC)."""

    status: str
    result: Any
    done: str | None = None


def encode_success(
    task_id: str, result: object, now: float, digest: str = "", parent_id: str = ""
) -> bytes:
    """Celery's SUCCESS meta around a JSON-able result (a dict or a contract model).

    `digest` is the message's, so that its idempotency key is not taken for another request.
    """
    return _meta(
        task_id, SUCCESS, to_json(result, inf_nan_mode="constants"), now, digest, parent_id
    )


def encode_failure(
    task_id: str, failure: Failure, now: float, digest: str = "", parent_id: str = ""
) -> bytes:
    """Celery's FAILURE meta; a stock client raises RequestFailed (or a class of that name)."""
    return _meta(task_id, FAILURE, _exception(RequestFailed, failure), now, digest, parent_id)


def encode_revoked(
    task_id: str, reason: str, now: float, parent_id: str = "", digest: str = ""
) -> bytes:
    """Celery's REVOKED meta, as mark_as_revoked stores it; reason: revoked, expired, cancelled.

    With the message's `digest` it ends that request alone, not another one under the same key.
    """
    value = {
        "exc_type": "TaskRevokedError",
        "exc_message": [reason],
        "exc_module": "celery.exceptions",
    }
    return _meta(task_id, REVOKED, to_json(value), now, digest, parent_id)


def decode_result(raw: bytes) -> Meta:
    """Read a stored result.

    Raises:
        WireError: it is not a Celery result.
    """
    data = read_json(raw, "result", None)
    if not isinstance(data, dict) or not isinstance(data.get("status"), str):
        raise WireError("the stored result is not a Celery result")
    done = data.get("date_done")
    return Meta(data["status"], data.get("result"), done if isinstance(done, str) else None)


def is_terminal(raw: bytes) -> bool:
    """Whether a stored result must never be overwritten; one that cannot be read must not."""
    if is_pending(raw):
        return False
    try:
        return decode_result(raw).status in READY
    except WireError:
        return True


def is_revoked(raw: bytes) -> bool:
    """Whether this is a stored revocation."""
    try:
        return decode_result(raw).status == REVOKED
    except WireError:
        return False


def peek_status(head: bytes) -> str:
    """Celery's state by the first HEAD_BYTES of a stored result; '' where they say none."""
    found = _STATUS.match(head)
    return found[1].decode() if found else ""


def is_pending(raw: bytes) -> bool:
    """Whether this is the placeholder that a reclane client left for a waiting request."""
    return raw.startswith(_PENDING)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a placeholder says of a request with an idempotency key.

    `digest` of the request it waits for now; `expires` (s since the epoch, None: never) is when
    the last of its waiters gives up; `notify` are channels to tell beside its own.
    """

    digest: str = ""
    expires: float | None = None
    notify: tuple[str, ...] = ()


def decode_pending(raw: bytes) -> Wanted:
    """Read a placeholder; what cannot be read says nothing."""
    try:
        details = read_json(raw, "placeholder", None).get("reclane") or {}
        expires = details.get("expires")
        return Wanted(
            digest=str(details.get("digest") or ""),
            expires=None if expires is None else float(expires),
            notify=tuple(map(str, details.get("notify") or ())),
        )
    except (WireError, AttributeError, TypeError, ValueError, OverflowError):
        return Wanted()


def outcome(meta: Meta) -> Recommendation | ReclaneError:
    """The answer, or the error to raise, that a ready result stands for."""
    if meta.status == SUCCESS:
        return Recommendation.model_validate(meta.result)
    detail = meta.result if isinstance(meta.result, dict) else {}
    arguments = detail.get("exc_message")
    arguments = arguments if isinstance(arguments, list) else [str(arguments)]
    if meta.status == REVOKED:
        reason = str(arguments[0]) if arguments else "revoked"
        return RequestRevoked(f"the request was {reason} before it was answered", reason)
    if detail.get("exc_type") == RequestFailed.__name__ and len(arguments) == 3:
        return RequestFailed(str(arguments[0]), str(arguments[1]), bool(arguments[2]))
    return RequestFailed(f"{detail.get('exc_type', 'error')}: {' '.join(map(str, arguments))}")


def _exception(kind: type[Exception], failure: Failure) -> bytes:
    return to_json(
        {
            "exc_type": kind.__name__,
            "exc_message": [failure.message, failure.code, failure.retry],
            "exc_module": kind.__module__,
        }
    )


def _meta(
    task_id: str, status: str, result: bytes, now: float, digest: str = "", parent_id: str = ""
) -> bytes:
    done = datetime.fromtimestamp(now, UTC).isoformat().encode()
    parent = b'"parent_id": %s, ' % quote(parent_id) if parent_id else b""
    return (
        b'{"status": "%s", "result": %s, "traceback": null, "children": [], '
        b'"date_done": "%s", %s"task_id": %s%s}'
    ) % (
        status.encode(),
        result,
        done,
        parent,
        quote(task_id),
        b', "reclane_digest": "%s"' % digest.encode() if digest else b"",
    )
