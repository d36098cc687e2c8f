"""The last step of the main path: chosen items become an answer as the contract has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from reclane.contract import VERSION, Constraint, Failure
from reclane_worker.intent.languages import tells_nothing
from reclane_worker.preparing import Prepared
from reclane_worker.retrieval import Picked
from reclane_worker.text import has_word

Answer = dict[str, Any]
"""A Recommendation as a plain dict: building its models would cost more than all the rest."""

LOW_TRUST: Final = 0.2
RERANK_CUT: Final = "rerank_cut"


@dataclass(frozen=True, slots=True)
class Made:
    """What a batch's answers have in common: the revisions of the encoder and of the reranker, if
    there is one, times, and shape."""

    model: str
    reranker: str | None
    timing_ms: dict[str, float]
    shape: dict[str, int]


def batch_shape(batch: Sequence[Prepared]) -> dict[str, int]:
    """Requests, real tokens, and tokens with padding of a device batch; equal requests count
    once, as they run."""
    lengths = {one.key: len(one.tokens) for one in batch}.values()
    return {"size": len(lengths), "tokens": sum(lengths), "padded": max(lengths) * len(lengths)}


def padded_tokens(batch: Sequence[Prepared]) -> int:
    return batch_shape(batch)["padded"]


def is_whole(answer: Answer) -> bool:
    """Whether nothing was left out for want of time: asked again, it would be the same."""
    return all(flag["code"] != RERANK_CUT for flag in answer["flags"])


def reranking_s(answers: Sequence[Answer | Failure]) -> float:
    """Seconds that reranking took of a batch."""
    spent_ms = [one["timing_ms"].get("rerank", 0.0) for one in answers if isinstance(one, dict)]
    return max(spent_ms, default=0.0) / 1e3


def build_answer(one: Prepared, picked: Picked, made: Made) -> Answer:
    """One answer of a batch."""
    return {
        "items": _items(one, picked),
        "intent": _intent(one, picked, made),
        "flags": _flags(one, picked),
        "versions": _versions(one, made),
        "timing_ms": {
            "queued": round(one.queued_ms, 3),
            "tokenise": round(one.tokenise_ms, 3),
            **made.timing_ms,
        },
        "batch": made.shape,
        "variant": one.request.variant,
    }


def _intent(one: Prepared, picked: Picked, made: Made) -> dict[str, Any]:
    told: dict[str, Any] = {
        "text": one.text,
        "encoder_trust": round(one.trust, 4),
        "history_used": len(one.history),
        "constraints": [
            constraint.model_dump(mode="json", by_alias=True) for constraint in one.constraints
        ],
    }
    if one.asked.count is not None:
        told["count"] = one.asked.count
    if one.asked.similar:
        told["similar"] = [one.catalog.ids[position] for position in one.asked.similar]
    return told | {"reranked": picked.reranked} if made.reranker else told


def _versions(one: Prepared, made: Made) -> dict[str, Any]:
    catalog = f"{one.catalog.name}@{one.catalog.version}"
    told: dict[str, Any] = {"model": made.model, "catalog": catalog, "contract": VERSION}
    return told | {"reranker": made.reranker} if made.reranker else told


def _items(one: Prepared, picked: Picked) -> list[dict[str, Any]]:
    request, catalog = one.request, one.catalog
    items: list[dict[str, Any]] = []
    pairs = zip(picked.positions, picked.scores, strict=True)
    for rank, (position, score) in enumerate(pairs, start=request.offset + 1):
        item: dict[str, Any] = {
            "id": catalog.ids[position],
            "rank": rank,
            "score": round(score, 6),
            "title": catalog.titles[position],
        }
        if request.fields:
            item["fields"] = catalog.fields(position, request.fields)
        items.append(item)
    return items


def _flags(one: Prepared, picked: Picked) -> list[dict[str, Any]]:
    flags: list[dict[str, Any]] = []
    if not picked.positions:
        flags.append({"code": "nothing_fits", "reasons": _obstacles(one, picked)})
    elif reason := _weakness(one, picked):
        flags.append({"code": "needs_review", "reasons": [reason]})
    if picked.relaxed and picked.positions:
        flags.append({"code": "relaxed", "reasons": [_shown(c) for c in picked.relaxed]})
    if picked.left_out:
        reason = f"time allowed {picked.reranked} of {picked.reranked + picked.left_out} candidates"
        flags.append({"code": RERANK_CUT, "reasons": [reason]})
    if one.request.explain:
        flags.append({"code": "no_explanation", "reasons": ["this worker does not explain yet"]})
    return flags


def _weakness(one: Prepared, picked: Picked) -> str | None:
    """Why the items may be any; None where something of the request was understood."""
    if one.history:
        return None
    request = one.request
    if request.intent is None and not has_word(request.query or "") and has_word(one.text):
        return f"the request has symbols alone, read as: {one.text}"
    if one.constraints:
        return None
    if tells_nothing(one.text.casefold()):
        return "no word of the request tells what is wanted"
    if picked.matched:
        return None
    if one.trust < LOW_TRUST:
        return "the model cannot read this script and no word matches"
    if not one.catalog.reader.knows_any(one.text):
        return "no word of the request is known"
    return None


def _obstacles(one: Prepared, picked: Picked) -> list[str]:
    """Why nothing fits."""
    if not len(one.catalog):
        return ["the catalog is empty"]
    if picked.impossible:
        who = "no item that passes the filters has" if one.request.filters else "no item has"
        return [f"{who}: {_shown(constraint)}" for constraint in picked.impossible]
    if one.request.offset:
        return [f"no item is left from rank {one.request.offset + 1} on"]
    return ["no item passes the filters" if one.request.filters else "no item is left"]


def _shown(constraint: Constraint) -> str:
    """A constraint for people: its attributes and the words of the request."""
    negated = "not " if constraint.unless else ""
    return f"{' or '.join(constraint.attributes)}: {negated}{constraint.said}"
