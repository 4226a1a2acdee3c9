from datetime import date, datetime

import pytest

from pipeline.clock import IST, SECOND_NS, expiry_ns, to_ns
from workers.ingest import schedule

EXPIRIES = [date(2026, 2, 3), date(2026, 1, 27), date(2026, 2, 10)]
CLOSE = expiry_ns(date(2026, 1, 27))


def test_nearest_expiry_stays_until_it_settles_and_then_goes() -> None:
    before = schedule.nearest(EXPIRIES, CLOSE - 1, 2)
    assert before == [date(2026, 1, 27), date(2026, 2, 3)]
    assert schedule.nearest(EXPIRIES, CLOSE, 2) == [date(2026, 2, 3), date(2026, 2, 10)]


@pytest.mark.parametrize(
    ("now_ns", "wait_s"),
    [
        pytest.param(CLOSE - 86_400 * SECOND_NS, 3_600.0, id="a day before: in an hour"),
        pytest.param(CLOSE - 60 * SECOND_NS, 61.0, id="a minute before: when it has settled"),
    ],
)
def test_expiries_are_listed_again_hourly_or_when_one_settles(now_ns: int, wait_s: float) -> None:
    assert schedule.seconds_to_relist(EXPIRIES, now_ns) == pytest.approx(wait_s)


def test_missing_list_is_asked_for_again_soon() -> None:
    assert schedule.seconds_to_relist([], CLOSE) == schedule.RELIST_AFTER_FAILURE_S


OPEN = to_ns(datetime(2026, 1, 27, 9, 15, tzinfo=IST))


@pytest.mark.parametrize(
    ("before_s", "wait_s"),
    [
        pytest.param(3_600, 300, id="an hour before it opens"),
        pytest.param(40, 40, id="shortly before: when it opens"),
        pytest.param(-1, 0, id="open by now"),
    ],
)
def test_closed_exchange_is_looked_at_now_and_then_and_when_it_opens(
    before_s: int, wait_s: int
) -> None:
    assert schedule.closed_pause_s(OPEN - before_s * SECOND_NS, "NSE") == wait_s
