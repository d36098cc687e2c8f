"""Whether a row changed since a moment or a number: pure, the same for every source."""

import math
from datetime import UTC, date, datetime, time
from typing import Any

from reclane.bulk.spec import ChangedSince
from reclane_worker.bulk.errors import SourceUnusable
from reclane_worker.bulk.sources.values import Unreadable


class Changed:
    """The filter `column >= since`, `since` a float or an aware datetime."""

    def __init__(self, spec: ChangedSince) -> None:
        self.column = spec.column
        self.since: float | datetime
        try:
            self.since = _number(spec.value)
        except ValueError:
            try:
                self.since = _moment(spec.value)
            except ValueError:
                raise SourceUnusable(
                    "changed_since: write a number, or a date or time as 2026-11-24T09:30:00Z"
                ) from None

    def keeps(self, cell: Any) -> bool:
        """Whether a row with this cell is wanted.

        Raises:
            Unreadable: the cell cannot be compared.
        """
        if cell is None or cell == "":
            return False
        try:
            if isinstance(self.since, datetime):
                return _moment(cell) >= self.since
            return _number(cell) >= self.since
        except (ValueError, TypeError, OverflowError):
            kind = "date or time" if isinstance(self.since, datetime) else "number"
            raise Unreadable(f"{self.column}: not a {kind}, which changed_since asks for") from None


def _number(value: Any) -> float:
    if isinstance(value, bool | date):
        raise ValueError("not a number")
    number = float(value)
    if math.isnan(number):
        raise ValueError("not a number")
    return number


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError("not a moment")
    return value if value.tzinfo else value.replace(tzinfo=UTC)
