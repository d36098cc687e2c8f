"""Numbers and moments that rows are compared with; pure."""

import math
from datetime import UTC, date, datetime, time
from typing import Any


def read_since(value: float | str) -> float | datetime:
    """What `changed_since` says, for comparing; a moment is aware.

    Raises:
        ValueError: it is neither a number nor a moment; says what to write.
    """
    for read in (to_number, to_moment):
        try:
            return read(value)
        except ValueError:
            pass
    raise ValueError("write a number, or a date or time as 2026-11-24T09:30:00Z")


def to_number(value: Any) -> float:
    """Raises:
    ValueError, TypeError: it is no number.
    """
    if isinstance(value, bool | date):
        raise ValueError("not a number")
    number = float(value)
    if math.isnan(number):
        raise ValueError("not a number")
    return number


def to_moment(value: Any) -> datetime:
    """A date or time, or ISO 8601 text of one; UTC unless it says otherwise.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError("not a moment")
    return value if value.tzinfo else value.replace(tzinfo=UTC)
