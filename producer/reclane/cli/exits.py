"""Exit codes: one table, which `--help` and the README show and scripts may rely on."""

from dataclasses import dataclass
from typing import Final

from reclane import errors

OK: Final = 0
ERROR: Final = 1
INTERRUPTED: Final = 130
READER_GONE: Final = 141


@dataclass(frozen=True, slots=True)
class Exit:
    """One exit code, what it means, and the errors that end with it."""

    code: int
    meaning: str
    raised: tuple[type[errors.ReclaneError], ...] = ()


# A subclass may have a row of its own; the others take that of their parent.
# 65 to 78 are those of sysexits.h, 124 that of timeout(1), 130 and 141 a shell's for the signals.
TABLE: Final = (
    Exit(OK, "done"),
    Exit(ERROR, "any other error; doctor: there are problems", (errors.ReclaneError,)),
    Exit(2, "usage: an option or argument is wrong"),
    Exit(3, "a worker answered with a failure", (errors.RequestFailed,)),
    Exit(4, "revoked: cancelled, expired or purged", (errors.RequestRevoked,)),
    Exit(65, "the request breaks the contract; nothing was enqueued", (errors.InvalidRequest,)),
    Exit(
        66,
        "unknown id: expired, or never issued",
        (errors.UnknownRequest, errors.UnknownLetter, errors.UnknownRun),
    ),
    Exit(69, "Redis cannot be reached, or refuses", (errors.BrokerUnavailable,)),
    Exit(
        75,
        "the queue is full, or the deadline cannot be met; try later",
        (errors.QueueFull, errors.DeadlineUnreachable),
    ),
    Exit(78, "a setting is missing or impossible", (errors.InvalidSettings,)),
    Exit(124, "no answer within --timeout; it may still come", (errors.ResultTimeout,)),
    Exit(INTERRUPTED, "interrupted (Ctrl-C)"),
    Exit(READER_GONE, "whoever read the output went away"),
)

_BY_ERROR: Final[dict[type, int]] = {kind: row.code for row in TABLE for kind in row.raised}


def of(error: BaseException) -> int:
    """The exit code of an error: that of the nearest class in the table."""
    return next((_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR), ERROR)


def summary() -> str:
    """The table for --help."""
    # \b keeps click from joining the lines.
    return "\b\nExit codes:\n" + "\n".join(f"{row.code:>5}  {row.meaning}" for row in TABLE)
