"""Equal requests are computed once, and each message gets an answer of its own. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from reclane.contract import DELIVERY_FIELDS, Failure, RecommendRequest
from reclane_worker.answering import Answer
from reclane_worker.preparing import Prepared

_NOT_ASKED = set(DELIVERY_FIELDS)


def answer_key(request: RecommendRequest) -> str:
    """Equal for requests with one answer: all fields but those of delivery, as JSON, in which
    the filters 1 and true differ."""
    return request.model_dump_json(exclude=_NOT_ASKED, exclude_defaults=True)


def first_places(keys: Sequence[str]) -> dict[str, int]:
    """Each key's first place, in that order."""
    places: dict[str, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    return places


def distinct(batch: Sequence[Prepared]) -> list[Prepared]:
    """One of each group of equal requests."""
    return list({one.key: one for one in batch}.values())


def answer_for(answer: Answer | Failure, queued_ms: float) -> Answer | Failure:
    """The answer to an equal request, for one of another age. They share what lies deeper: an
    answer is read, never changed."""
    if isinstance(answer, Failure):
        return answer
    return answer | {"timing_ms": answer["timing_ms"] | {"queued": round(queued_ms, 3)}}


def prepared_for(one: Prepared | Answer | Failure, queued_ms: float) -> Prepared | Answer | Failure:
    """What was prepared for an equal request, for one of another age."""
    if isinstance(one, Prepared):
        return replace(one, queued_ms=queued_ms)
    return answer_for(one, queued_ms)
