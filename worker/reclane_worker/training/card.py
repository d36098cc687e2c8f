"""The README.md of a trained model: where it came from and what it gained, without any text."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final

from reclane import __version__
from reclane_worker.training import judging
from reclane_worker.training.judging import Verdict
from reclane_worker.training.order import Identity

CARD: Final = "README.md"
_UNKNOWN: Final = "unknown"
_LICENCE: Final = re.compile(r"\A---\n.*?^license: *([\w.+-]+) *$.*?^---$", re.S | re.M)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card tells beside figures: what was learnt from, how it went, who judged."""

    identity: Identity
    licence: str
    rows: tuple[tuple[str, str], ...]
    judges: str


def licence_of(model: str, folder: Path) -> str:
    """The licence of a base model, as its own card or package says it."""
    card = folder / CARD
    found = _LICENCE.search(card.read_text("utf-8", "replace")) if card.is_file() else None
    if found:
        return found[1]
    try:
        about = metadata(model.removeprefix("package:")).json
    except PackageNotFoundError:
        return _UNKNOWN
    return str(about.get("license_expression") or about.get("license") or _UNKNOWN)


def card(facts: Facts, verdict: Verdict | None, rejected: str | None) -> str:
    """The whole card. `verdict` is None where the model could not be measured."""
    return "\n".join(_lines(facts, verdict, rejected)) + "\n"


def _lines(facts: Facts, verdict: Verdict | None, rejected: str | None) -> Iterator[str]:
    identity = facts.identity
    yield from ("---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity")
    yield from (f"base_model: {json.dumps(identity.model)}", f"license: {facts.licence}", "---", "")
    yield from (f"# {identity.model}, fine-tuned by reclane {__version__}", "")
    if rejected:
        yield from (f"**Rejected, do not serve it**: {rejected}.", "")
    yield from _table(("", ""), _origin(facts))
    yield from _table(("data", "SHA-256"), identity.data.items())
    if verdict is not None:
        yield from (f"Measured through the whole pipeline on {facts.judges}.", "")
        yield from _table(("measure", "before", "after", "gain"), _figures(verdict))
    yield "Weights are safetensors. The card holds no text of the data."


def _origin(facts: Facts) -> Iterator[tuple[str, str]]:
    identity = facts.identity
    yield "base model", f"{identity.model}, revision {identity.revision}"
    yield "licence of the base model", facts.licence
    yield from facts.rows
    for name, value in identity.choices:
        yield name.replace("_", " "), ", ".join(value) if isinstance(value, tuple) else str(value)
    yield "date", datetime.now(UTC).isoformat(timespec="seconds")


def _figures(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    for name, one in verdict.items():
        yield name, f"{one.before:.3f}", f"{one.after:.3f}", judging.told(one.gain)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
