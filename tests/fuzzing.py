"""Strategies for bytes that come from elsewhere: any, JSON of any shape, and valid ones damaged."""

import base64
import json
from typing import Any

from hypothesis import strategies as st

from reclane import names, wire
from reclane.contract import RecommendRequest

HUGE = st.sampled_from([10**400, -(10**400), 2**63, 1e308, -0.0])
SCALARS = st.none() | st.booleans() | st.integers() | HUGE | st.floats() | st.text(max_size=20)
ODD_TEXT = st.sampled_from(["NaN", "1e400", "\ud800", "\x00", "9999-12-31T23:59:59-23:59", "[" * 5])


def values(keys: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Any]:
    """Anything that JSON can say (and what json.loads takes beyond it), small."""
    names = st.text(max_size=8) if keys is None else keys | st.text(max_size=8)
    return st.recursive(
        SCALARS | ODD_TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with some of its values, however deep, replaced or removed."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        place, owner, key = document, None, None
        while isinstance(place, dict | list) and place and draw(st.booleans()):
            owner = place
            key = draw(st.sampled_from([*place] if isinstance(place, dict) else range(len(place))))
            place = owner[key]
        if owner is None:
            continue
        if isinstance(owner, dict) and draw(st.booleans()):
            del owner[key]
        else:
            owner[key] = draw(values())
    return document


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Valid bytes cut short, with bits flipped, or with something put in."""
    data = data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data
    place = draw(st.integers(0, max(0, len(data) - 1)))
    match draw(st.sampled_from(["flip", "insert", "keep"])):
        case "flip" if data:
            flipped = data[place] ^ (1 << draw(st.integers(0, 7)))
            return data[:place] + bytes([flipped]) + data[place + 1 :]
        case "insert":
            return data[:place] + draw(st.binary(max_size=12)) + data[place:]
    return data


def bytes_like(*documents: Any) -> st.SearchStrategy[bytes]:
    """Any bytes, any JSON, deep JSON, and JSON like `documents`, damaged in its text or values."""
    deep = st.integers(1, 100_000).map(lambda depth: b"[" * depth)
    like = [changed(one).map(_dump) for one in documents]
    cut = [damaged(json.dumps(one).encode()) for one in documents]
    return st.one_of(st.binary(max_size=200), values().map(_dump), deep, *like, *cut)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


NOW = 1_700_000_000.0
REQUEST = RecommendRequest(query="film", k=3, filters={"year": {"gte": 1999}}, history=["a"])
FIELDS = REQUEST.model_dump(mode="json", by_alias=True)
BODY = [[FIELDS], {}, {"callbacks": None, "chord": None}]
MESSAGE = wire.encode_request(
    REQUEST,
    task_id="t-1",
    queue=names.BULK_QUEUE,
    reply_to=names.notify_channel("c"),
    now=NOW,
    digest="a" * 40,
)
ENVELOPE = json.loads(MESSAGE) | {"body": json.dumps(BODY)}
ENVELOPE["properties"]["body_encoding"] = "utf-8"


@st.composite
def envelopes(draw: st.DrawFn) -> bytes:
    """Envelopes that hold together, around a body, headers or properties that may not."""
    envelope: dict[str, Any] = dict(ENVELOPE)
    envelope["body"] = json.dumps(draw(changed(BODY)))
    if draw(st.booleans()):
        envelope["body"] = base64.b64encode(envelope["body"].encode()).decode()
        envelope["properties"] = envelope["properties"] | {"body_encoding": "base64"}
    part = draw(st.sampled_from(["headers", "properties"]))
    envelope[part] = draw(st.just(envelope[part]) | changed(envelope[part]))
    return json.dumps(envelope).encode()


MESSAGES = bytes_like(ENVELOPE, json.loads(MESSAGE)) | envelopes()
