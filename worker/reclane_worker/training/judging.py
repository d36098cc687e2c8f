"""Whether a trained model beats the one before, on requests answered as they are served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from reclane_worker.cases import Case, rankings
from reclane_worker.catalog import Catalog, centre_of
from reclane_worker.encoder import Encoder
from reclane_worker.item_texts import ItemTexts
from reclane_worker.metrics import Gain, gain, per_request
from reclane_worker.passages import heading
from reclane_worker.pipeline import Pipeline
from reclane_worker.settings import WorkerSettings
from reclane_worker.vectors import CHUNK, encode_items, in_a_row

SHOWN: Final = ("R@1", "R@10", "Success@10", "RR", "NDCG@10")
DECIDES: Final = "NDCG@10"


@dataclass(frozen=True, slots=True)
class Compared:
    """A measure before and after, means over the requests, and the gain with its interval."""

    before: float
    after: float
    gain: Gain


Verdict = Mapping[str, Compared]


def answered(
    cases: Sequence[Case], encoder: Encoder, catalog: Catalog, settings: WorkerSettings
) -> dict[str, list[float]]:
    """Each measure's value of each request, by the whole pipeline."""
    pipeline = Pipeline(encoder, {catalog.name: catalog}, settings)
    ours = list(rankings(pipeline, [case.request for case in cases]))
    values = per_request(ours, [case.relevant for case in cases])
    return {name: values[name] for name in SHOWN}


def compare(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> Verdict:
    """What each measure gained, request by request."""
    return {
        name: Compared(
            float(np.mean(before[name])),
            float(np.mean(after[name])),
            gain(after[name], before[name]),
        )
        for name in SHOWN
    }


def why_worse(verdict: Verdict) -> str | None:
    """Why a model must not take the place of the one before; None where it may."""
    one = verdict[DECIDES]
    if one.gain.mean >= 0:
        return None
    return f"{DECIDES} fell from {one.before:.3f} to {one.after:.3f}, by {told(one.gain)}"


def told(gain: Gain) -> str:
    """A gain and its interval, in three digits."""
    return f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def encoded_by(encoder: Encoder, catalog: Catalog, items: ItemTexts) -> Catalog:
    """The same catalog with vectors of another model; words, attributes and schema stay.

    Raises:
        CatalogError: the model gives vectors that are not numbers.
    """
    parts = []
    for start in range(0, len(items), CHUNK):
        places = range(start, min(start + CHUNK, len(items)))
        texts = [(heading(catalog.titles[at], catalog.encoded), items[at]) for at in places]
        parts.append(encode_items(texts, encoder, lambda _: None))
    whole = in_a_row(parts, encoder.dim)
    further = whole.passages.to(encoder.device) if len(whole.passages) else None
    return replace(
        catalog,
        vectors=whole.vectors.to(encoder.device),
        centre=centre_of(whole.vectors).to(encoder.device),
        passages=further,
    )
