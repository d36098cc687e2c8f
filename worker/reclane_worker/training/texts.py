"""Requests and items as the pipeline would tokenise them."""

from collections.abc import Sequence
from dataclasses import dataclass

from reclane_worker.cases import Case
from reclane_worker.catalog import Catalog
from reclane_worker.encoder import Role, SentenceEncoder
from reclane_worker.pipeline import Pipeline
from reclane_worker.preparing import Prepared


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with its known answers: its text as it is compared, how far the model can read
    it, and the positions of the items that answer it."""

    case: Case
    text: str
    trust: float
    relevant: frozenset[int]


def asked(cases: Sequence[Case], pipeline: Pipeline, catalog: Catalog) -> list[Asked]:
    """Those requests that can be learnt from: some item of the catalog answers them, and their
    text is not empty."""
    prepared = pipeline.prepare([case.request for case in cases], [0.0] * len(cases))
    found = []
    for case, one in zip(cases, prepared, strict=True):
        relevant = frozenset(catalog.known(case.relevant))
        if relevant and isinstance(one, Prepared) and one.text:
            found.append(Asked(case, one.text, one.trust, relevant))
    return found


def count_tokens(
    encoder: SentenceEncoder, texts: Sequence[str], role: Role, most: int
) -> list[int]:
    """Tokens of each text, cut at `most`."""
    return [min(most, len(ids)) for ids in encoder.tokenise(texts, role)]
