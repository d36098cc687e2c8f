"""Cron expressions in a time zone: when slots are. Pure; cronsim reads and follows them.

A slot is a moment, in seconds since the epoch, that is the same wherever and however late it is
computed. Clocks that change are followed as Debian's cron does: a time that they skip comes when
they have jumped, one that comes twice is a slot the first time; of a cron that starts with * in its
minutes or hours every one that fits is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from itertools import takewhile
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from reclane.errors import InvalidRequest

MAX_CHARS: Final = 200
_HOUR_S: Final = 3_600
_BACK_S: Final = tuple(_HOUR_S * hours for hours in (4, 26, 24 * 33, 24 * 367, 24 * 366 * 45))
"""How far back a slot is looked for; clocks never jump by as much as the first."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression and its time zone, as they were written; see `parse`."""

    text: str
    zone: str
    tz: tzinfo

    def next(self, after: float) -> int:
        """The first slot after a moment.

        Raises:
            InvalidRequest: there is none.
        """
        for slot in self._slots(after - _BACK_S[0]):
            if slot > after:
                return slot
        raise InvalidRequest(f"cron {self.text}: there is no such day")

    def latest(self, at: float) -> int:
        """The last slot at or before a moment.

        Raises:
            InvalidRequest: there is none.
        """
        for back_s in _BACK_S:
            passed = [*takewhile(lambda slot: slot <= at, self._slots(at - back_s))]
            if passed:
                return passed[-1]
        raise InvalidRequest(f"cron {self.text}: there is no such day")

    def local(self, slot: float) -> datetime:
        """A moment as the time zone's clocks show it."""
        return datetime.fromtimestamp(slot, self.tz)

    def _slots(self, after: float) -> Iterator[int]:
        """In order; around a change of clocks the first may come before `after`."""
        return (int(moment.timestamp()) for moment in CronSim(self.text, self.local(after)))


def parse(text: str, zone: str = "UTC") -> Cron:
    """Five fields: minute, hour, day of the month, month, day of the week.

    Raises:
        InvalidRequest: saying which field or name is wrong, or that there is no such day.
    """
    fields = text.split()
    if len(fields) != 5 or len(text) > MAX_CHARS:
        raise InvalidRequest(
            "a cron has five fields (minute, hour, day of the month, month, day of the week), as "
            f"in 0 3 * * *, and {MAX_CHARS} characters at most"
        )
    cron = Cron(" ".join(fields), zone, _time_zone(zone))
    try:
        cron.next(0)
    except (CronSimError, ValueError) as error:
        raise InvalidRequest(
            f"cron {cron.text}: {error}; write 5, 1-5, */5 or 1,5, or names as mon or jan"
        ) from None
    return cron


def _time_zone(name: str) -> tzinfo:
    if name == "UTC":  # also where a machine knows no time zones
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        known = available_timezones()
        near = get_close_matches(name, known, n=1) or ["Europe/Berlin"]
        more = "" if known else "; this machine knows none: pip install tzdata"
        raise InvalidRequest(f"{name!r} is no time zone; write {near[0]}{more}") from None
