"""Days of the cold store are those of the exchange."""

from datetime import UTC, date, datetime, timedelta

import pytest

from pipeline.clock import to_ns
from pipeline.cold.days import bounds, days_between, is_closed

DAY = date(2026, 1, 22)


def test_day_lasts_from_midnight_to_midnight_in_india() -> None:
    start, end = bounds(DAY)
    assert start == datetime(2026, 1, 21, 18, 30, tzinfo=UTC)
    assert end - start == timedelta(days=1)


@pytest.mark.parametrize(("later_us", "closed"), [(-1, False), (0, True)])
def test_day_is_closed_when_it_is_over(later_us: int, closed: bool) -> None:
    now = bounds(DAY)[1] + timedelta(microseconds=later_us)
    assert is_closed(DAY, to_ns(now)) is closed


def test_days_between_are_all_of_them() -> None:
    assert days_between(DAY, DAY) == [DAY]
    assert days_between(DAY, date(2026, 1, 24)) == [DAY, date(2026, 1, 23), date(2026, 1, 24)]
    assert days_between(DAY, date(2026, 1, 21)) == []
