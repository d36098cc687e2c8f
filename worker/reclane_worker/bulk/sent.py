"""Chunks of a bulk run: cut from rows, sent, and read back as results. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, Self
from uuid import uuid4

from pydantic_core import from_json, to_json

from reclane import wire
from reclane.contract import MAX_CHUNK_ITEMS, Failure, RecommendRequest
from reclane.errors import RequestFailed, WireError
from reclane_worker.bulk.sinks import Result

CHUNK_ROWS: Final = 200
CHUNK_BYTES: Final = 500_000  # of requests: in an envelope well below what the lane takes


@dataclass(frozen=True, slots=True)
class Ask:
    """A row to ask for: its key, its request as JSON, and `wire.request_digest` of that."""

    key: str
    body: bytes
    digest: str
    items: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A chunk that was sent and is not written yet; all that it takes to send it again.

    Without an id it is still to be sent.
    """

    number: int
    id: str
    keys: tuple[str, ...]
    digests: tuple[str, ...]
    bodies: tuple[bytes, ...]

    def renamed(self) -> Self:
        """The same to be sent as another message."""
        return replace(self, id=str(uuid4()))

    def unsent(self) -> Self:
        """The same as if it had not been sent."""
        return replace(self, id="")

    def to_json(self) -> bytes:
        return to_json([self.id, self.keys, self.digests, self.bodies])

    @classmethod
    def from_json(cls, number: int, stored: bytes) -> Self:
        task_id, keys, digests, bodies = from_json(stored)
        return cls(
            number, task_id, tuple(keys), tuple(digests), tuple(body.encode() for body in bodies)
        )


def ask(key: str, request: RecommendRequest) -> Ask:
    """What a row asks."""
    body = request.model_dump_json(exclude_defaults=True, by_alias=True)
    return Ask(key, body.encode(), wire.request_digest(request), request.k)


def cut(asks: Sequence[Ask], first: int) -> Iterator[Sent]:
    """Chunks within the bounds of the contract, numbered from `first`, in order."""
    taken: list[Ask] = []
    size = items = 0
    for one in asks:
        fits = size + len(one.body) <= CHUNK_BYTES and items + one.items <= MAX_CHUNK_ITEMS
        if taken and not (fits and len(taken) < CHUNK_ROWS):
            yield _sent(first, taken)
            first, taken, size, items = first + 1, [], 0, 0
        taken.append(one)
        size, items = size + len(one.body), items + one.items
    if taken:
        yield _sent(first, taken)


def _sent(number: int, asks: Sequence[Ask]) -> Sent:
    return Sent(
        number,
        str(uuid4()),
        tuple(one.key for one in asks),
        tuple(one.digest for one in asks),
        tuple(one.body for one in asks),
    )


@dataclass(frozen=True, slots=True)
class Looked:
    """Chunks by what their results say; `pending`: of some there is none yet."""

    ready: list[Sent]
    revoked: list[Sent]
    lost: list[Sent]
    pending: bool


def sort(chunks: Sequence[Sent], states: Sequence[str]) -> Looked:
    """`states` are of their results: '' where there is none any more."""
    found = list(zip(chunks, states, strict=True))
    ready = [chunk for chunk, state in found if state in (wire.SUCCESS, wire.FAILURE)]
    revoked = [chunk for chunk, state in found if state == wire.REVOKED]
    lost = [chunk for chunk, state in found if not state]
    return Looked(ready, revoked, lost, len(found) > len(ready) + len(revoked) + len(lost))


def answer_digest(request: str, model: str, catalog: str) -> str:
    """Tells whether asking again could bring another answer: 32 hex digits of the request's
    digest, and of the models (see `models_of`) and catalog version that answer it."""
    return blake2b(f"{request}\n{model}\n{catalog}".encode(), digest_size=16).hexdigest()


def models_of(told: Mapping[str, Any]) -> str:
    """The model and, where there is one, the reranker that an answer or a worker names."""
    return "+".join(filter(None, (told["model"], told.get("reranker"))))


def results(chunk: Sent, stored: bytes) -> list[Result]:
    """The rows of a chunk with what became of them, from its stored result.

    Raises:
        WireError: it cannot be read, or is not what answers this chunk.
    """
    meta = wire.decode_result(stored)
    try:
        at = datetime.fromisoformat(meta.done).timestamp() if meta.done else 0.0
        if meta.status == wire.SUCCESS:
            rows = zip(chunk.keys, chunk.digests, meta.result["answers"], strict=True)
            return [_result(key, digest, answer, at) for key, digest, answer in rows]
    except (LookupError, TypeError, ValueError):
        raise WireError("the stored result does not answer this chunk") from None
    error = wire.outcome(meta)
    assert isinstance(error, RequestFailed)
    failure = Failure(code=error.code, message=error.message, retry=error.retry).model_dump()
    return [Result(key, None, failure, at) for key in chunk.keys]


def _result(key: str, digest: str, answer: dict[str, Any], at: float) -> Result:
    if "code" in answer:
        return Result(key, None, answer, at)
    versions = answer["versions"]
    digest = answer_digest(digest, models_of(versions), versions["catalog"])
    return Result(key, answer, None, at, digest)
