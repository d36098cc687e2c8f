"""Chunks: many requests in one message, computed slice by slice, ended as one."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from reclane import names, wire
from reclane.contract import Failure, RecommendRequest
from reclane_worker.lane import Entry

if TYPE_CHECKING:
    from reclane_worker.answering import Answer


class Chunk:
    """A leased chunk, and what has become of each of its requests so far. For one thread."""

    def __init__(
        self, entry: Entry, message: wire.Message, requests: list[RecommendRequest | Failure]
    ) -> None:
        self.entry = entry
        self.message = message
        self._requests = requests
        self._found: list[Answer | Failure | None] = [
            one if isinstance(one, Failure) else None for one in requests
        ]
        self._missing = self._found.count(None)
        self._begun = False

    def __len__(self) -> int:
        return len(self._requests)

    def waiting(self) -> Iterator[tuple[int, RecommendRequest]]:
        """The requests without an answer or a failure, by their places."""
        for place, request in enumerate(self._requests):
            if self._found[place] is None and isinstance(request, RecommendRequest):
                yield place, request

    def put(self, place: int, outcome: "Answer | Failure") -> None:
        self._missing -= self._found[place] is None
        self._found[place] = outcome

    def begin(self) -> bool:
        """Whether this is the first that is done about it."""
        begun, self._begun = self._begun, True
        return not begun

    @property
    def whole(self) -> bool:
        return self._missing == 0

    def answer(self) -> "Answer":
        """For the whole."""
        return many_answers(one for one in self._found if one is not None)

    def failures(self, codes: Collection[str], now: float) -> Iterator[tuple[Entry, str, Failure]]:
        """Each request that failed with one of `codes` as if it had been sent alone: its message
        under an id of its own, that id, and the failure. `now` is seconds since the epoch."""
        for place, outcome in enumerate(self._found):
            request = self._requests[place]
            if isinstance(request, Failure) or not isinstance(outcome, Failure):
                continue
            if outcome.code in codes:
                task_id = f"{self.message.id}.{place}"
                queue = names.queue_of(self.entry.origin)
                raw = wire.encode_request(
                    request, task_id=task_id, queue=queue, reply_to="", now=now
                )
                crashes = self.entry.parts.get(place, 0)
                yield replace(self.entry, raw=raw, crashes=crashes), task_id, outcome


@dataclass(frozen=True, slots=True)
class Part:
    """One request's place in its chunk."""

    chunk: Chunk
    place: int


def many_answers(answers: Iterable["Answer | Failure"]) -> dict[str, Any]:
    """The answer to a chunk, as `contract.ManyAnswers` has it, from those to its requests."""
    return {"answers": [a.model_dump() if isinstance(a, BaseModel) else a for a in answers]}
