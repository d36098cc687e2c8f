"""How much each sign counts that an item answers a request: as usual, or as a catalog learnt.

`asked.py` learns it from requests with known answers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from reclane_worker.manifest import LEARNT, Manifest, path_in

Floats = npt.NDArray[np.float32]


class Weights(BaseModel):
    """Of signs that are 0 to 1 each. Vector and words share 1; the others come on top.

    `vector` is that of a vector of which the encoder is certain, `wishes` what it is worth to meet
    a soft constraint, `demand` what it is worth to be asked for most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vector: float = Field(default=0.6, ge=0, le=1)
    wishes: float = Field(default=0.3, ge=0, le=100)
    demand: float = Field(default=0.0, ge=0, le=100)


USUAL: Final = Weights()


class Learnt(BaseModel):
    """What a catalog learnt from so many requests, and how many of them each item answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Weights
    requests: NonNegativeInt
    asked: dict[str, NonNegativeInt]

    def demand(self, positions: Mapping[str, int]) -> Floats:
        """How much each item is asked for, (items,) 0 to 1."""
        counts = np.zeros(len(positions), dtype=np.float32)
        for item, count in self.asked.items():
            if item in positions:
                counts[positions[item]] = count
        return demand_of(counts, max(self.asked.values(), default=0))


def demand_of(counts: Floats, most: int) -> Floats:
    """By the logarithm of how often, 1 for what is asked for most."""
    return np.asarray(np.log1p(counts) / np.log1p(max(most, 1)), dtype=np.float32)


def read_learnt(folder: Path, manifest: Manifest) -> Learnt | None:
    """What a build learnt of requests. It goes with ids, whatever became of the items since."""
    path = path_in(manifest.base, LEARNT)
    if path not in manifest.files:
        return None
    return Learnt.model_validate_json((folder / path).read_bytes())
