"""How a worker process ends when it must: at once, with a reason, so that others take over."""

import logging
import os
import sys
from typing import Final, NoReturn

EXIT_STUCK: Final = 70  # EX_SOFTWARE
EXIT_LANE: Final = 71

_log = logging.getLogger(__name__)


def end_process(code: int, reason: str) -> NoReturn:
    """Log why and leave without clean-up: the lease lapses and others recover the messages."""
    _log.critical("worker process ends with code %s: %s", code, reason)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
