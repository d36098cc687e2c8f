"""Learns how much each signal counts from lists in which one thing should come first. Pure."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import optimize

Floats = npt.NDArray[np.float32]

BELIEF: Final = 1.0  # how many lists it takes to leave the usual weights


def fit(
    lists: Sequence[Floats],
    usual: npt.NDArray[np.float64],
    least: npt.NDArray[np.float64],
    belief: float = BELIEF,
) -> npt.NDArray[np.float64]:
    """Weights (signals,), none below `least`, under which the first of each list comes first.

    A list is (candidates, signals). Maximises the log-softmax of the firsts (ListNet's top-one
    likelihood, Cao et al. 2007), drawn towards what is `usual` as by `belief` lists, so that a few
    change little.
    """
    result = optimize.minimize(
        _loss,
        usual,
        args=(usual, lists, belief),
        jac=True,
        method="L-BFGS-B",
        bounds=[(one, None) for one in least],
    )
    return np.asarray(result.x)


def _loss(
    weights: npt.NDArray[np.float64],
    usual: npt.NDArray[np.float64],
    lists: Sequence[Floats],
    belief: float,
) -> tuple[float, npt.NDArray[np.float64]]:
    """Negative log likelihood and its gradient."""
    drawn = (weights - usual) / usual
    loss, slope = belief * float(drawn @ drawn) / 2, belief * drawn / usual
    for one in lists:
        logits = one @ weights.astype(np.float32)  # (candidates,)
        odds = np.exp(logits - logits.max())
        total = odds.sum()
        loss += float(np.log(total) + logits.max() - logits[0])
        slope += odds @ one / total - one[0]
    return loss, slope
