"""How many requests per second the lane's loop achieves while it never runs out of work. Pure."""

from collections import deque
from typing import Final

_REMEMBERED: Final = 64


class Pace:
    """Measured from one finished batch to the next, over recent ones; only while more work waits:
    how fast a worker is that has little to do, its speed does not say."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._since: float | None = None

    def landed(self, requests: int, now: float, more_waits: bool) -> None:
        """So many requests were finished at `now`, in monotonic seconds."""
        if self._since is not None:
            self._seen.append((requests, now - self._since))
        self._since = now if more_waits else None

    def per_second(self) -> float | None:
        """None until it was busy. Any thread may ask."""
        seen = tuple(self._seen)
        seconds = sum(spent for _, spent in seen)
        return sum(count for count, _ in seen) / seconds if seconds > 0 else None
