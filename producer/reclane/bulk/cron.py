"""Cron expressions in a time zone: when slots are. Pure.

A slot is a moment, in seconds since the epoch, that is the same wherever and however late it is
computed. Fields are those of crontab(5): where both days are restricted, either one will do.

Where clocks are set forward, a time that they skip comes as much later as they jump (02:30 at
03:30). Where they are set back, a time that comes twice is a slot the first time; of a cron that
runs every hour both are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from reclane.errors import InvalidRequest

_MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[tuple[tuple[str, int, int, Sequence[str]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _WEEKDAYS),  # 0 and 7 are Sunday
)
_PART: Final = re.compile(r"(?:\*|(\w{1,3})(?:-(\w{1,3}))?)(?:/(\d{1,3}))?", re.ASCII)
_HORIZON_DAYS: Final = 40 * 366  # a 29th of February on a given weekday may be so far away


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression and its time zone, as they were written and taken apart; see `parse`."""

    text: str
    zone: str
    tz: tzinfo
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def next(self, after: float) -> int:
        """The first slot after a moment."""
        return min(slot for slot in self._near(after, 1) if slot > after)

    def latest(self, at: float) -> int:
        """The last slot at or before a moment."""
        return max(slot for slot in self._near(at, -1) if slot <= at)

    def local(self, slot: float) -> datetime:
        """A moment as the time zone's clocks show it."""
        return datetime.fromtimestamp(slot, self.tz)

    def _near(self, at: float, step: int) -> list[int]:
        """The slots of two days in a row, of which at least one lies beyond `at`; none nearer.

        Two, as clocks that change at midnight take a slot into the next day.
        """
        day, one = self.local(at).date(), timedelta(days=step)
        for _ in range(_HORIZON_DAYS):
            near = self._slots(day - one) + self._slots(day)
            if any(slot > at if step > 0 else slot <= at for slot in near):
                return near + self._slots(day + one)
            day += one
        raise InvalidRequest(f"cron {self.text}: there is no such day")

    def _slots(self, day: date) -> list[int]:
        if not self._runs_on(day):
            return []
        slots = set()
        for hour in self.hours:
            for minute in self.minutes:
                first, second = (
                    int(datetime.combine(day, time(hour, minute, fold=fold), self.tz).timestamp())
                    for fold in (0, 1)
                )
                slots.add(first)
                if second > first and len(self.hours) == 24:
                    slots.add(second)
        return list(slots)

    def _runs_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        fits = (day.day in self.days, day.isoweekday() % 7 in self.weekdays)
        return any(fits) if self.either_day else all(fits)


def parse(text: str, zone: str = "UTC") -> Cron:
    """Five fields: minute, hour, day of the month, month, day of the week.

    Raises:
        InvalidRequest: saying which field or name is wrong, or that there is no such day.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        names = ", ".join(name for name, *_ in _FIELDS)
        raise InvalidRequest(f"a cron has five fields ({names}), as in 0 3 * * *; not {text!r}")
    minutes, hours, days, months, weekdays = (
        frozenset(value for part in field.split(",") for value in _values(part, *known))
        for field, known in zip(fields, _FIELDS, strict=True)
    )
    cron = Cron(
        text=" ".join(fields),
        zone=zone,
        tz=_time_zone(zone),
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        either_day=not any(field.startswith("*") for field in (fields[2], fields[4])),
    )
    cron.next(0)
    return cron


def _values(part: str, name: str, low: int, high: int, words: Sequence[str]) -> range:
    found = _PART.fullmatch(part)
    if not found:
        raise InvalidRequest(f"cron: {part!r} is no {name}; write 5, 1-5, */5, 1-9/2 or 1,5")
    first, last, step = found.groups()
    if step and (int(step) < 1 or (first and not last)):
        raise InvalidRequest(f"cron: {part!r} is no {name}; a step is 1 or more, of * or of 1-5")
    if not first:
        return range(low, high + 1, int(step or 1))
    start = _value(first, name, low, high, words)
    end = _value(last, name, low, high, words) if last else start
    if start > end:
        raise InvalidRequest(f"cron: {part!r} is no {name}; a range ends above where it begins")
    return range(start, end + 1, int(step or 1))


def _value(text: str, name: str, low: int, high: int, words: Sequence[str]) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + low
    if not text.isdecimal() or not low <= int(text) <= high:
        also = f", or {words[0]} to {words[-1]}" if words else ""
        raise InvalidRequest(f"cron: {text!r} is no {name}; it is {low} to {high}{also}")
    return int(text)


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
