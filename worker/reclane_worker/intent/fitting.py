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

    Where none does, one constraint gives way if that is enough, else one after the other, until
    some item fits, in the order of `_yields`, of alike ones that which most items meet first: it
    tells least. Items that meet them still come first. A constraint that not one item meets is not
    dropped: then nothing fits.
    """
    if not base.any():
        return Fit(base, None)
    wanted = [one for one in constraints if one.hard]
    masks = {one: _meets(one, attributes) & base for one in wanted}
    hard = sorted(wanted, key=lambda one: (_yields(one), -int(masks[one].sum())))
    if impossible := tuple(one for one in hard if not masks[one].any()):
        return Fit(np.zeros_like(base), None, (), impossible)
    relaxed = _given_way(hard, masks, base)
    allowed = _all(masks, [one for one in hard if one not in relaxed], base)
    wishes = [(_meets(one, attributes), soft) for one in constraints if not one.hard]
    wishes += [(masks[one], RELAXED) for one in relaxed]
    return Fit(allowed, _bonus(wishes), tuple(relaxed))


def _given_way(
    hard: Sequence[Constraint], masks: dict[Constraint, Mask], base: Mask
) -> list[Constraint]:
    """Those in whose absence some item fits: one where one is enough."""
    if _all(masks, hard, base).any():
        return []
    for one in hard:
        if _all(masks, [other for other in hard if other != one], base).any():
            return [one]
    return next(
        list(hard[:count])
        for count in range(2, len(hard) + 1)
        if _all(masks, hard[count:], base).any()
    )


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
