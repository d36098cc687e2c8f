"""Celery messages and results, to and from bytes. JSON only.

Written so that a stock Celery client can enqueue to reclane and read its answers, and the
other way round; golden tests hold them together.
"""

from reclane.wire.messages import (
    JSON_TYPE,
    Message,
    decode_message,
    encode_chunk,
    encode_request,
    find_id,
    request_digest,
    rewrite,
)
from reclane.wire.results import (
    FAILURE,
    HEAD_BYTES,
    PLACEHOLDER,
    READY,
    REVOKED,
    SUCCESS,
    Meta,
    Wanted,
    decode_pending,
    decode_result,
    encode_failure,
    encode_revoked,
    encode_success,
    is_pending,
    is_revoked,
    is_terminal,
    outcome,
    peek_status,
)

__all__ = [
    "FAILURE",
    "HEAD_BYTES",
    "JSON_TYPE",
    "PLACEHOLDER",
    "READY",
    "REVOKED",
    "SUCCESS",
    "Message",
    "Meta",
    "Wanted",
    "decode_message",
    "decode_pending",
    "decode_result",
    "encode_chunk",
    "encode_failure",
    "encode_request",
    "encode_revoked",
    "encode_success",
    "find_id",
    "is_pending",
    "is_revoked",
    "is_terminal",
    "outcome",
    "peek_status",
    "request_digest",
    "rewrite",
]
