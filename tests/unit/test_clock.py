import time
from datetime import UTC, date, datetime

import pytest

from pipeline import clock
from pipeline.clock import Clock
from pipeline.errors import ConfigError


def test_real_clock_reads_whole_microseconds_of_now() -> None:
    now = Clock().now_ns()
    assert abs(now - time.time_ns()) < clock.SECOND_NS
    assert now % 1_000 == 0


@pytest.mark.parametrize("spec", ["real", "x60", "2026-01-20T09:15:00+05:30", "2026-01-20@x7.5"])
def test_anchored_spec_reads_the_same_time_elsewhere(spec: str) -> None:
    here = Clock(spec)
    there = Clock(here.anchored())
    first, second, third = here.now_ns(), there.now_ns(), here.now_ns()
    assert first - 1_000 <= second <= third + 1_000


def test_start_without_an_offset_is_indian_time() -> None:
    started = Clock("2026-01-20T09:15:00").now_ns()
    instant = clock.to_ns(datetime(2026, 1, 20, 3, 45, tzinfo=UTC))
    assert 0 <= started - instant < clock.SECOND_NS


def test_fast_clock_turns_market_seconds_into_fewer_wall_seconds() -> None:
    assert Clock("x60").wall_seconds(180) == pytest.approx(3)


@pytest.mark.parametrize("spec", ["", "yesterday", "x0", "x", "2026-13-01", "real now"])
def test_malformed_spec_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        Clock(spec)


def test_expiry_settles_at_half_past_three_indian_time() -> None:
    settles = clock.to_datetime(clock.expiry_ns(date(2026, 1, 27)))
    assert settles == datetime(2026, 1, 27, 10, 0, tzinfo=UTC)
    assert clock.to_rfc3339(clock.expiry_ns(date(2026, 1, 27))) == "2026-01-27T10:00:00.000000Z"


def test_years_are_of_365_days_and_negative_once_passed() -> None:
    day = 86_400 * clock.SECOND_NS
    assert clock.years_until(365 * day, 0) == 1.0
    assert clock.years_until(0, 73 * day) == -0.2


def test_exchange_date_turns_at_indian_midnight() -> None:
    evening = clock.to_ns(datetime(2026, 1, 26, 18, 29, 59, tzinfo=UTC))
    assert clock.exchange_date(evening) == date(2026, 1, 26)
    assert clock.exchange_date(evening + clock.SECOND_NS) == date(2026, 1, 27)
