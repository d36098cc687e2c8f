"""An evaluation beside an earlier one on the same requests: what changed, and by how much."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from reclane.errors import QualityFell, RunMismatch
from reclane_worker.evaluation.measuring import OURS, SHOWN
from reclane_worker.evaluation.saved import SavedCatalog, SavedRun
from reclane_worker.metrics import Gain, gain

_NAMED: Final = 3  # requests that a message names


@dataclass(frozen=True, slots=True)
class Change:
    """A measure then and now, means over the requests, and the difference with its interval."""

    before: float
    after: float
    gain: Gain


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs beside the figures, and each catalog's changes by measure. `new` are catalogs
    that the earlier run lacks."""

    differs: tuple[str, ...]
    changes: dict[str, dict[str, Change]]
    new: tuple[str, ...] = ()


def compare(now: SavedRun, before: SavedRun) -> Comparison:
    """Both runs, request by request.

    Raises:
        RunMismatch: a catalog of the earlier run was not measured now, or on other requests.
    """
    if missing := before.catalogs.keys() - now.catalogs.keys():
        raise RunMismatch(
            f"the earlier run also measured {', '.join(sorted(missing))}; measure that, too, "
            "or compare with another run"
        )
    for name, one in before.catalogs.items():
        _check_requests(name, now.catalogs[name], one)
    return Comparison(
        tuple(_differences(now, before)),
        {name: _changes(now.catalogs[name], one) for name, one in before.catalogs.items()},
        tuple(name for name in now.catalogs if name not in before.catalogs),
    )


def check_quality(found: Comparison, tolerance: float) -> None:
    """Raises:
    QualityFell: the mean of a measure fell by more than `tolerance`; names each.
    """
    fallen = [
        f"{catalog}: {measure} {one.before:.3f} -> {one.after:.3f}"
        for catalog, changes in found.changes.items()
        for measure, one in changes.items()
        if one.gain.mean < -tolerance
    ]
    if fallen:
        raise QualityFell(
            f"quality fell by more than {tolerance:g} ({'; '.join(fallen)}); mend it, or, where it "
            "is meant, save this run in place of the earlier one"
        )


def aligned(now: SavedCatalog, before: SavedCatalog, measure: str) -> list[float]:
    """The earlier values of a measure, in the order of the requests now."""
    values = dict(zip(before.requests, before.values[OURS][measure], strict=True))
    return [values[request] for request in now.requests]


def _changes(now: SavedCatalog, before: SavedCatalog) -> dict[str, Change]:
    changes = {}
    for name in SHOWN:
        after, earlier = now.values[OURS][name], aligned(now, before, name)
        changes[name] = Change(float(np.mean(earlier)), float(np.mean(after)), gain(after, earlier))
    return changes


def _check_requests(name: str, now: SavedCatalog, before: SavedCatalog) -> None:
    if now.digest == before.digest:
        return
    added, removed = set(now.requests) - {*before.requests}, {*before.requests} - {*now.requests}
    told = [
        f"{len(ids)} {what} ({_shortly(sorted(ids))})"
        for what, ids in (("are new", added), ("are gone", removed))
        if ids
    ]
    why = ", ".join(told) or "their texts or answers differ"
    raise RunMismatch(
        f"{name}: the earlier run has other requests: {why}; compare on the same ones, or save "
        "this run to compare with from now on"
    )


def _shortly(ids: Sequence[str]) -> str:
    return ", ".join([*ids[:_NAMED], *(("...",) if len(ids) > _NAMED else ())])


def _differences(now: SavedRun, before: SavedRun) -> Iterator[str]:
    yield from _differing("reclane", now.reclane, before.reclane)
    yield from _differing(
        "model", f"{now.model}@{now.model_revision}", f"{before.model}@{before.model_revision}"
    )
    yield from _differing_rows("", now.settings, before.settings)
    for name, one in before.catalogs.items():
        yield from _catalog_differences(name, now.catalogs[name], one)


def _catalog_differences(name: str, now: SavedCatalog, before: SavedCatalog) -> Iterator[str]:
    if now.version != before.version:
        changed = {file for file, digest in now.files.items() if before.files.get(file) != digest}
        changed |= before.files.keys() - now.files.keys()
        what = ", ".join(sorted(file.split(".")[0] for file in changed))
        yield f"{name}: version {before.version} -> {now.version} ({what} differ)"
    yield from _differing(f"{name}: items", now.items, before.items)
    yield from _differing(f"{name}: fields", ",".join(now.fields), ",".join(before.fields))


_UNSET: Final = "not set"


def _differing_rows(
    name: str, now: Mapping[str, object], before: Mapping[str, object]
) -> Iterator[str]:
    for key in dict.fromkeys((*before, *now)):
        yield from _differing(name + key, now.get(key, _UNSET), before.get(key, _UNSET))


def _differing(name: str, now: object, before: object) -> Iterator[str]:
    if now != before:
        yield f"{name}: {before} -> {now}"
