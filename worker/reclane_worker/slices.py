"""How long a batch of bulk may take. Pure."""

import math
from typing import Final

QUIET_S: Final = 10.0
LONGER: Final = 4


class Slices:
    """Bulk waits for nobody while nobody comes: longer batches cost it less, and where interactive
    batches run beside bulk's, as on CPU (`beside`), the first request that comes again does not
    wait for them to end."""

    def __init__(self, slice_s: float, beside: bool) -> None:
        self.slice_s = slice_s  # while others come
        self._beside = beside
        self._came = -math.inf

    def came(self, now: float) -> None:
        """An interactive batch goes on the device at `now`, monotonic seconds."""
        self._came = now

    def seconds(self, now: float) -> float:
        """Predicted seconds of the next batch of bulk: LONGER slices where nobody came for
        QUIET_S."""
        quiet = self._beside and now - self._came > QUIET_S
        return LONGER * self.slice_s if quiet else self.slice_s
