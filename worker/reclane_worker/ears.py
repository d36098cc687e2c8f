"""Hears what is said on channels; the lane waits for its queues by other means (`wait.py`)."""

import time
from collections.abc import Sequence
from typing import Any


class Ears:
    """A subscription; what is said is only that one should look."""

    def __init__(self, client: Any, channels: Sequence[str]) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(*channels)

    def wait(self, seconds: float) -> bool:
        """Until something is said, `seconds` at most; whether something was."""
        give_up = time.monotonic() + seconds
        while (left := give_up - time.monotonic()) > 0:
            if self._pubsub.get_message(timeout=left):
                return True
        return False

    def close(self) -> None:
        self._pubsub.close()
