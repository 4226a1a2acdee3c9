"""Where buckets begin and end, and what a gap is filled with."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import buckets
from pipeline.clock import IST, SECOND_NS, to_ns

MINUTE_NS = 60 * SECOND_NS
DAY = datetime(2026, 1, 21, tzinfo=IST)  # a Wednesday
OPENING = to_ns(DAY + timedelta(hours=9, minutes=15))
LENGTHS = st.one_of(
    st.integers(1, buckets.DAY_S), st.integers(1, 30).map(lambda days: days * buckets.DAY_S)
)
INSTANTS = st.integers(0, 4 * 10**18).map(lambda ns: ns - ns % 1_000)


def ist(ns: int) -> str:
    since = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=ns // 1_000)
    return since.astimezone(IST).strftime("%a %H:%M:%S")


def candle(minute: int, close: float | None = 100.0, **changes: Any) -> buckets.Candle:
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    starts = OPENING + minute * MINUTE_NS
    return {"starts": starts, **prices, "n": 2, "volume_total": 10, "closed_at": starts} | changes


@given(INSTANTS, LENGTHS)
def test_every_instant_lies_in_one_bucket(instant: int, interval_s: int) -> None:
    start = buckets.bucket_start(instant, interval_s)
    end = buckets.bucket_end(instant, interval_s)
    assert start <= instant < end <= start + interval_s * SECOND_NS
    assert buckets.bucket_start(start, interval_s) == start == buckets.next_start(start, interval_s)
    assert buckets.bucket_start(end - 1_000, interval_s) == start
    assert buckets.bucket_start(end, interval_s) == end == buckets.next_start(end - 1, interval_s)


@given(INSTANTS, LENGTHS)
def test_bucket_is_made_of_whole_buckets_of_its_level(instant: int, interval_s: int) -> None:
    level = buckets.level_of(interval_s)
    if level is not None:
        ends = (
            buckets.bucket_start(instant, interval_s),
            buckets.bucket_end(instant, interval_s),
        )
        for end in ends:
            assert buckets.bucket_start(end, buckets.LEVELS_S[level]) == end


@pytest.mark.parametrize(
    ("at", "interval_s", "begins", "ends"),
    [
        ("09:15:00", 60, "Wed 09:15:00", "Wed 09:16:00"),
        ("09:14:59", 3_600, "Wed 08:15:00", "Wed 09:15:00"),
        ("15:29:00", 3_600, "Wed 15:15:00", "Wed 16:15:00"),
        ("00:10:00", 3_600, "Tue 23:15:00", "Wed 00:15:00"),
        ("10:31:00", 4_500, "Wed 10:30:00", "Wed 11:45:00"),
        ("00:10:00", 4_500, "Wed 00:00:00", "Wed 00:30:00"),
        ("23:50:00", 4_500, "Wed 23:00:00", "Thu 00:00:00"),
        ("09:15:00", 86_400, "Wed 00:00:00", "Thu 00:00:00"),
        ("09:15:00", 7 * 86_400, "Mon 00:00:00", "Mon 00:00:00"),
    ],
)
def test_buckets_are_counted_from_the_opening_and_from_monday(
    at: str, interval_s: int, begins: str, ends: str
) -> None:
    instant = to_ns(
        datetime.combine(DAY.date(), datetime.fromisoformat(f"2026-01-21T{at}").time(), IST)
    )
    assert ist(buckets.bucket_start(instant, interval_s)) == begins
    assert ist(buckets.bucket_end(instant, interval_s)) == ends


@pytest.mark.parametrize(
    ("interval_s", "level"),
    [
        *((1, None), (90, None), (60, "1m"), (180, "1m"), (300, "5m"), (900, "5m")),
        *((3_600, "1h"), (7_200, "1h"), (18_000, "5m"), (86_400, "1d"), (604_800, "1d")),
    ],
)
def test_highest_level_that_makes_it_up_is_read(interval_s: int, level: str | None) -> None:
    assert buckets.level_of(interval_s) == level


@pytest.mark.parametrize("interval_s", [0, -60, 90_000])
def test_length_that_is_neither_below_a_day_nor_days_is_refused(interval_s: int) -> None:
    with pytest.raises(ValueError, match="no length of a candle"):
        buckets.check_interval(interval_s)


def test_volume_is_what_the_total_grew_by_in_the_day() -> None:
    tomorrow = buckets.DAY_S // 60
    totals = [(0, 100), (1, 130), (2, None), (3, 150), (4, 140), (tomorrow, 70)]
    candles = [candle(minute, volume_total=total) for minute, total in totals]
    buckets.with_volumes(candles, candle(-1, volume_total=40))
    assert [one["volume"] for one in candles] == [60, 30, None, 20, 0, 70]


def test_joined_candles_keep_what_each_told() -> None:
    earlier = candle(0, volume_total=5, iv=0.1) | {"open": 3, "high": 9, "low": 2, "close": 4}
    silent = candle(1, None, volume_total=None, iv=None)
    both = buckets.joined(earlier, silent)
    assert both | {"iv": 0.1, "closed_at": 0} == earlier | {"starts": silent["starts"], "n": 4} | {
        "closed_at": 0
    }
    assert (both["iv"], both["closed_at"]) == (None, silent["closed_at"])


def test_days_of_a_week_add_their_volumes() -> None:
    days = [
        candle(0, 10.0, volume=5),
        candle(1_440, 12.0, volume=None),
        candle(2_880, 7.0, volume=4),
    ]
    (week,) = buckets.whole_days(days, 7 * buckets.DAY_S)
    assert ist(week["starts"]) == "Mon 00:00:00"
    assert [week[name] for name in ("open", "high", "low", "close", "volume", "n")] == [
        *(10.0, 12.0, 7.0, 7.0, 9, 6)
    ]


def test_gap_is_filled_only_while_the_session_is_open() -> None:
    last = 374
    known = [candle(last - 2), candle(last + 3)]
    found = buckets.filled(known, 60, "NIFTY")
    assert [(one["starts"] - OPENING) // MINUTE_NS for one in found] == [372, 373, 374, 377]
    assert [one["n"] for one in found] == [2, 0, 0, 2]


@pytest.mark.parametrize(
    "known",
    [
        [candle(374), candle(24 * 60 + 2)],
        [candle(3 * 24 * 60), candle(3 * 24 * 60 + 5)],
    ],
    ids=["from one day to the next", "on a Saturday"],
)
def test_nothing_is_filled_between_sessions(known: list[buckets.Candle]) -> None:
    assert buckets.filled(known, 60, "NIFTY") == known


@pytest.mark.parametrize("at_most", range(1, 12))
def test_fill_of_a_page_is_the_beginning_or_the_end_of_the_whole(at_most: int) -> None:
    asked: Any = (
        [candle(5), candle(6), candle(9)],
        60,
        "NIFTY",
        candle(2),
        OPENING + 12 * MINUTE_NS,
    )
    whole = buckets.filled(*asked)
    assert [(one["starts"] - OPENING) // MINUTE_NS for one in whole] == list(range(3, 12))
    first = buckets.filled(*asked, at_most=at_most)
    assert first[:at_most] == whole[:at_most]
    last = buckets.filled(*asked, at_most=at_most, newest_first=True)
    assert last[-at_most:] == whole[-at_most:]
    assert buckets.filled(*asked, from_ns=OPENING + 4 * MINUTE_NS) == whole[1:]


def test_gaps_behind_a_page_are_not_filled() -> None:
    known = [candle(n) for n in range(0, 300, 60)]
    assert len(buckets.filled(known, 60, "NIFTY", at_most=2)) == 61
    assert len(buckets.filled(known, 60, "NIFTY", at_most=2, newest_first=True)) == 60


def test_fill_reaches_from_the_candle_before_to_the_one_after() -> None:
    found = buckets.filled([candle(5)], 60, "UNLISTED", candle(2, 90.0), OPENING + 8 * MINUTE_NS)
    assert [(one["starts"] - OPENING) // MINUTE_NS for one in found] == [3, 4, 5, 6, 7]
    assert [one["close"] for one in found] == [90.0, 90.0, 100.0, 100.0, 100.0]
