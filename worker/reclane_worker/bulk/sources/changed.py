"""Whether a row changed since a moment or a number: pure, the same for every source."""

from datetime import datetime
from typing import Any

from reclane.bulk.moments import to_moment, to_number
from reclane.bulk.spec import ChangedSince
from reclane_worker.bulk.sources.values import Unreadable


class Changed:
    """The filter `column >= since`, `since` a float or an aware datetime."""

    def __init__(self, spec: ChangedSince) -> None:
        self.column = spec.column
        self.since = spec.since

    def keeps(self, cell: Any) -> bool:
        """Whether a row with this cell is wanted.

        Raises:
            Unreadable: the cell cannot be compared.
        """
        if cell is None or cell == "":
            return False
        try:
            if isinstance(self.since, datetime):
                return to_moment(cell) >= self.since
            return to_number(cell) >= self.since
        except (ValueError, TypeError, OverflowError):
            kind = "date or time" if isinstance(self.since, datetime) else "number"
            raise Unreadable(f"{self.column}: not a {kind}, which changed_since asks for") from None
