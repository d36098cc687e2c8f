"""Between the model before and after: as far towards the new as held-out requests like best."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

SHARES: Final = (1.0, 0.75, 0.5)
"""Of the trained weights. Averaging them with those before keeps more of what the model knew
(WiSE-FT, Wortsman et al. 2022)."""

Weights = Mapping[str, torch.Tensor]


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """A copy of a model's weights, on the host."""
    return {name: one.detach().cpu().clone() for name, one in model.state_dict().items()}


def blended(before: Weights, after: Weights, share: float) -> dict[str, torch.Tensor]:
    """`share` of the weights after, the rest of those before; what is no float stays as after."""
    return {
        name: torch.lerp(before[name], one, share) if one.is_floating_point() else one
        for name, one in after.items()
    }


def blend_best(model: Any, before: Weights, judged: Callable[[Any], float]) -> tuple[float, float]:
    """Leave the model at the share of its training that is judged best, the most trained of
    equals; gives that share and its figure."""
    after = weights_of(model)
    figures = {}
    for share in SHARES:
        model.load_state_dict(blended(before, after, share))
        figures[share] = judged(model)
    best = max(SHARES, key=figures.__getitem__)  # the first of equals
    model.load_state_dict(blended(before, after, best))
    return best, figures[best]
