"""When a cron's slots are: its fields, its refusals, and clocks that change."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclane.bulk.cron import Cron, parse
from reclane.errors import InvalidRequest

SATURDAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE_S = 60
CHANGING = [  # northern, southern, by half an hour, at midnight; and one that never does
    *("Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe"),
    *("America/Sao_Paulo", "Asia/Beirut", "Asia/Kolkata", "UTC"),
]


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def following(cron: Cron, after: float, count: int) -> list[str]:
    """The next slots as the time zone's clocks show them."""
    shown = []
    for _ in range(count):
        after = cron.next(after)
        shown.append(cron.local(after).strftime("%m-%d %H:%M %z"))
    return shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 3 * * *", ["11-22 03:00", "11-23 03:00"]),
        ("*/20 * * * *", ["11-21 12:20", "11-21 12:40", "11-21 13:00"]),
        ("10-30/10,59 12 * * *", ["11-21 12:10", "11-21 12:20", "11-21 12:30", "11-21 12:59"]),
        ("0 0 1 * *", ["12-01 00:00", "01-01 00:00"]),
        ("0 0 31 * *", ["12-31 00:00", "01-31 00:00", "03-31 00:00"]),
        ("0 0 * * 0", ["11-22 00:00", "11-29 00:00"]),
        ("0 0 * * 7", ["11-22 00:00", "11-29 00:00"]),
        ("0 0 * * MON-wed", ["11-23 00:00", "11-24 00:00", "11-25 00:00", "11-30 00:00"]),
        ("0 0 * * 5-7", ["11-22 00:00", "11-27 00:00", "11-28 00:00", "11-29 00:00"]),
        ("0 0 1 jan,Jul *", ["01-01 00:00", "07-01 00:00"]),
        ("0 0 29 2 *", ["02-29 00:00"]),
        # crontab(5): either day will do, unless one of them is not restricted
        ("0 0 30 * sun", ["11-22 00:00", "11-29 00:00", "11-30 00:00", "12-06 00:00"]),
        ("0 0 */30 * tue", ["12-01 00:00", "06-01 00:00"]),
        ("  5   4  * * *  ", ["11-22 04:05"]),
    ],
)
def test_slots_are_those_of_crontab(text: str, expected: list[str]) -> None:
    found = following(parse(text), SATURDAY.timestamp(), len(expected))
    assert found == [f"{moment} +0000" for moment in expected]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "five fields"),
        ("0 3 * *", "five fields"),
        ("0 0 3 * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "Bad minute"),
        ("* 24 * * *", "Bad hour"),
        ("* * 0 * *", "Bad day-of-month"),
        ("* * * 13 *", "Bad month"),
        ("* * * * 8", "Bad day-of-week"),
        ("* * * mon *", "Bad month"),
        ("-1 * * * *", "Bad minute"),
        ("1,,2 * * * *", "Bad minute"),
        ("5-1 * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
        ("1-9/2/2 * * * *", "Bad minute"),
        ("٣ * * * *", "Bad minute"),
        (f"{'9' * 5_000} * * * *", "200 characters"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("0 0 31 2,4 *", "Bad day-of-month"),
    ],
)
def test_what_is_no_cron_is_refused_with_what_would_be(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(text)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("Europe/Berln", "write Europe/Berlin"),
        ("europe/berlin", "is no time zone"),
        ("Europe", "is no time zone"),
        ("../../etc/passwd", "is no time zone"),
        ("/etc/localtime", "is no time zone"),
        ("", "is no time zone"),
        ("\x00", "is no time zone"),
        ("+02:00", "is no time zone"),
    ],
)
def test_what_is_no_time_zone_is_refused(zone: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse("0 3 * * *", zone)
    assert told in str(refused.value)


def test_a_slot_keeps_to_the_clocks_of_its_time_zone() -> None:
    nightly = parse("0 3 * * *", "Europe/Berlin")
    assert following(nightly, at("2026-03-28T00:00Z"), 3) == [
        "03-28 03:00 +0100",
        "03-29 03:00 +0200",
        "03-30 03:00 +0200",
    ]


def test_a_time_that_clocks_skip_comes_once_when_they_have_jumped() -> None:
    nightly = parse("30 2 * * *", "Europe/Berlin")
    assert following(nightly, at("2026-03-28T00:00Z"), 3) == [
        "03-28 02:30 +0100",
        "03-29 03:00 +0200",
        "03-30 02:30 +0200",
    ]


def test_a_time_that_comes_twice_runs_the_first_time() -> None:
    nightly = parse("30 2 * * *", "Europe/Berlin")
    assert following(nightly, at("2026-10-24T00:00Z"), 3) == [
        "10-24 02:30 +0200",
        "10-25 02:30 +0200",
        "10-26 02:30 +0100",
    ]


def test_what_runs_every_hour_does_so_while_clocks_change() -> None:
    hourly = parse("15,45 * * * *", "Europe/Berlin")
    for night in ("2026-03-28T23:00Z", "2026-10-24T22:00Z"):
        slots = [at(night)]
        for _ in range(8):
            slots.append(hourly.next(slots[-1]))
        assert {later - one for one, later in pairwise(slots[1:])} == {1_800}


def test_a_clock_may_jump_by_half_an_hour() -> None:
    hourly = parse("15 * * * *", "Australia/Lord_Howe")
    assert following(hourly, at("2026-10-03T14:00Z"), 4) == [
        "10-04 01:15 +1030",
        "10-04 03:15 +1100",
        "10-04 04:15 +1100",
        "10-04 05:15 +1100",
    ]


def test_slots_that_clocks_move_onto_one_moment_are_one() -> None:
    """In Pyongyang 23:30 was midnight."""
    cron = parse("0,45 0,23 * * *", "Asia/Pyongyang")
    slots = ["05-04 23:00 +0830", "05-05 00:00 +0900", "05-05 00:45 +0900", "05-05 23:00 +0900"]
    before = at("2018-05-04T22:50+08:30")
    assert following(cron, before, 4) == slots
    for slot, later in pairwise(slots):
        day, clock, _ = later.split()
        moment = at(f"2018-{day}T{clock}+09:00")
        assert cron.local(cron.latest(moment - 1)).strftime("%m-%d %H:%M %z") == slot


FIELDS = st.tuples(
    st.sampled_from(["0", "30", "*/15", "7,59", "10-20/5"]),
    st.sampled_from(["*", "0", "2", "3", "*/6", "23", "1-3"]),
    st.sampled_from(["*", "1", "25-31", "*/2"]),
    st.sampled_from(["*", "3,10", "11", "1-4"]),
    st.sampled_from(["*", "sun", "1-5", "7"]),
)
MOMENTS = st.integers(0, 2_000_000_000)
NEAR_CHANGES = st.sampled_from(["2026-03-29T00:00Z", "2026-10-25T00:00Z", "2018-11-04T03:00Z"])


@given(FIELDS, st.sampled_from(CHANGING), MOMENTS | NEAR_CHANGES.map(lambda text: int(at(text))))
def test_between_a_slot_and_the_next_there_is_none(
    fields: tuple[str, ...], zone: str, moment: int
) -> None:
    assert_in_order(parse(" ".join(fields), zone), moment)


@pytest.mark.parametrize(
    ("text", "zone", "moment"),
    [  # of each of these cronsim, following by itself, lost a slot or never came to an end
        ("*/15 3 25-31 * sun", "Pacific/Chatham", 1_901_767_094),
        ("*/15 23 * 3,10 *", "Australia/Lord_Howe", 2_028_704_432),
        ("0 */6 25-31 * sun", "America/St_Johns", 722_273_344),
    ],
)
def test_no_change_of_clocks_hides_a_slot(text: str, zone: str, moment: int) -> None:
    assert_in_order(parse(text, zone), moment)


def test_slots_of_two_days_that_clocks_mix_stay_in_order() -> None:
    """In Newfoundland 0:01 was 23:01 of the day before."""
    cron = parse("*/30 * * * *", "America/St_Johns")
    before = at("1992-10-24T22:59-02:30")
    slots = ["10-24 23:00 -0230", "10-24 23:30 -0230", "10-25 00:00 -0230", "10-24 23:30 -0330"]
    assert following(cron, before, 5) == [*slots, "10-25 00:00 -0330"]
    for minutes in range(150):
        assert_in_order(cron, int(before) + minutes * MINUTE_S)


def assert_in_order(cron: Cron, moment: int) -> None:
    latest, coming = cron.latest(moment), cron.next(moment)
    assert latest <= moment < coming
    assert cron.next(latest) == coming
    assert cron.latest(coming - 1) == latest
    assert cron.latest(coming) == coming
    assert coming % MINUTE_S == 0
