"""Which items fit what was understood, and what gives way where none fits all. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reclane.contract import Constraint, Range
from reclane_worker.index.filters import Attributes, Mask

RELAXED: Final = 1.0  # what it is worth to meet a hard wish that was not held; relevance is 0 to 1


@dataclass(frozen=True, slots=True)
class Fit:
    """`allowed` (items,) bool; `bonus` (items,) float32, 0 to 1, or None; the constraints that gave
    way; and those that no item meets at all."""

    allowed: Mask
    bonus: npt.NDArray[np.float32] | None
    relaxed: tuple[Constraint, ...] = ()
    impossible: tuple[Constraint, ...] = ()


def fit(constraints: Sequence[Constraint], base: Mask, attributes: Attributes, soft: float) -> Fit:
    """Of the items in `base`, those that meet every hard constraint; to meet a soft one is worth
    `soft`.

    Where none does, constraints give way one by one, in the order of `_yields`, until some item
    fits; items that meet them still come first. A constraint that not one item meets is not
    dropped: then nothing fits.
    """
    if not base.any():
        return Fit(base, None)
    hard = sorted((one for one in constraints if one.hard), key=_yields)
    masks = {one: _meets(one, attributes) & base for one in hard}
    if impossible := tuple(one for one in hard if not masks[one].any()):
        return Fit(np.zeros_like(base), None, (), impossible)
    relaxed: list[Constraint] = []
    allowed = _all(masks, hard, base)
    while not allowed.any() and hard:
        relaxed.append(hard.pop(0))
        allowed = _all(masks, hard, base)
    wishes = [(_meets(one, attributes), soft) for one in constraints if not one.hard]
    wishes += [(masks[one], RELAXED) for one in relaxed]
    return Fit(allowed, _bonus(wishes), tuple(relaxed))


def _yields(constraint: Constraint) -> int:
    """What gives way first: bounds of numbers, then features and categories, then exclusions."""
    if constraint.unless:
        return 2
    return 0 if isinstance(constraint.condition, Range) else 1


def _all(masks: dict[Constraint, Mask], hard: Sequence[Constraint], base: Mask) -> Mask:
    allowed = base.copy()
    for one in hard:
        allowed &= masks[one]
    return allowed


def _meets(constraint: Constraint, attributes: Attributes) -> Mask:
    """Items of which one of the attributes passes; or, for an exclusion, none does."""
    passing = attributes.passing(constraint.attributes, constraint.condition)
    return ~passing if constraint.unless else passing


def _bonus(wishes: Sequence[tuple[Mask, float]]) -> npt.NDArray[np.float32] | None:
    if not wishes:
        return None
    total = np.zeros(len(wishes[0][0]), dtype=np.float32)
    for mask, worth in wishes:
        total += worth * mask
    return total
