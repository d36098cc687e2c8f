"""Cron expressions in a time zone: when slots are. Pure; cronsim reads them.

A slot is a moment, in seconds since the epoch, that is the same wherever and however late it is
computed. Clocks that change are followed as Debian's cron does: a time that they skip comes when
they have jumped, one that comes twice is a slot the first time; of a cron that starts with * in its
minutes or hours every one that fits is.

cronsim could follow them, too, but from where it starts depends what it finds around a change by
half an hour, and after some it never ends (Pacific/Chatham, `*/15 3 25-31 * sun`, April 2030).
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from reclane.errors import InvalidRequest

MAX_CHARS: Final = 200
_HORIZON_DAYS: Final = 40 * 366  # a 29th of February on a given weekday may be so far away


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression and its time zone, as they were written; see `parse`."""

    text: str
    zone: str
    tz: tzinfo
    read: CronSim = field(repr=False, compare=False)

    def next(self, after: float) -> int:
        """The first slot after a moment.

        Raises:
            InvalidRequest: there is none.
        """
        return min(slot for slot in self._near(after, 1) if slot > after)

    def latest(self, at: float) -> int:
        """The last slot at or before a moment.

        Raises:
            InvalidRequest: there is none.
        """
        return max(slot for slot in self._near(at, -1) if slot <= at)

    def local(self, slot: float) -> datetime:
        """A moment as the time zone's clocks show it."""
        return datetime.fromtimestamp(slot, self.tz)

    def _near(self, at: float, step: int) -> set[int]:
        """The slots of three days in a row, of which the one that is nearest beyond `at` is one.

        Three, as clocks that are set around midnight mix the slots of two days.
        """
        day, one = self.local(at).date(), timedelta(days=step)
        for _ in range(_HORIZON_DAYS):
            near = self._slots(day - one) | self._slots(day)
            if any(slot > at if step > 0 else slot <= at for slot in near):
                return near | self._slots(day + one)
            day += one
        raise InvalidRequest(f"cron {self.text}: there is no such day")

    def _slots(self, day: date) -> set[int]:
        slots: set[int] = set()
        if day.month not in self.read.months or not self.read.match_day(day):
            return slots
        every = any(part.startswith("*") for part in self.text.split()[:2])
        for hour in self.read.hours:
            for minute in self.read.minutes:
                first, second = (
                    int(datetime.combine(day, time(hour, minute, fold=fold), self.tz).timestamp())
                    for fold in (0, 1)
                )
                if first <= second:
                    slots.update((first, second) if every else (first,))
                elif not every:  # clocks skip it
                    slots.add(self._jump(second, first))
        return slots

    def _jump(self, before: int, after: int) -> int:
        """When clocks jump, between these moments."""
        offset = self.local(before).utcoffset()
        while after - before > 1:
            middle = (before + after) // 2
            if self.local(middle).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return after


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
    text, tz = " ".join(fields), _time_zone(zone)
    try:
        cron = Cron(text, zone, tz, CronSim(text, datetime.fromtimestamp(0, UTC)))
    except (CronSimError, ValueError) as error:
        raise InvalidRequest(
            f"cron {text}: {error}; write 5, 1-5, */5 or 1,5, or names as mon or jan"
        ) from None
    cron.next(0)
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
