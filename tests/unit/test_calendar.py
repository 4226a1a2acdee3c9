"""Sessions, holidays and expiry rules against dates that are on record."""

import itertools
import json
from datetime import date, datetime, timedelta

import pytest

from pipeline import calendar
from pipeline.clock import IST, to_ns
from tests.support.recordings import shared_dir


def ist_ns(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=IST))


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        pytest.param("2026-01-20T09:14:59", False, id="before the open"),
        pytest.param("2026-01-20T09:15:00", True, id="at the open"),
        pytest.param("2026-01-20T15:29:59", True, id="last second"),
        pytest.param("2026-01-20T15:30:00", False, id="at the close"),
        pytest.param("2026-01-24T11:00:00", False, id="Saturday"),
        pytest.param("2026-01-26T11:00:00", False, id="Republic Day"),
        pytest.param("2026-01-15T11:00:00", False, id="municipal elections"),
        pytest.param("2026-02-01T11:00:00", True, id="budget Sunday"),
        pytest.param("2025-02-01T15:00:00", True, id="budget Saturday"),
        pytest.param("2024-03-02T10:30:00", False, id="between two special sessions"),
        pytest.param("2024-03-02T11:30:00", True, id="second special session"),
        pytest.param("2025-10-21T11:00:00", False, id="Diwali forenoon"),
        pytest.param("2025-10-21T13:45:00", True, id="Diwali muhurat"),
        pytest.param("2024-11-01T18:30:00", True, id="evening muhurat"),
    ],
)
def test_exchange_is_open_exactly_in_its_sessions(instant: str, expected: bool) -> None:
    assert calendar.is_open(ist_ns(instant), "NSE") is expected
    assert calendar.is_open(ist_ns(instant), "BSE") is expected


def test_regular_session_runs_from_0915_to_1530_ist() -> None:
    found = calendar.session(date(2026, 1, 20))
    assert found is not None
    assert found.intervals_ns == ((ist_ns("2026-01-20T09:15"), ist_ns("2026-01-20T15:30")),)
    assert found.is_regular
    assert found.is_certain


def test_muhurat_session_is_not_regular_and_budget_session_is() -> None:
    muhurat, budget = calendar.session(date(2025, 10, 21)), calendar.session(date(2026, 2, 1))
    assert muhurat is not None
    assert budget is not None
    assert (muhurat.is_regular, budget.is_regular) == (False, True)


def test_assumed_hours_are_not_called_certain() -> None:
    found = calendar.session(date(2026, 11, 8))
    assert found is not None
    assert not found.is_certain


def test_year_outside_the_published_ones_follows_rules_and_says_so() -> None:
    assert calendar.coverage(date(2026, 12, 31)) is calendar.Coverage.PUBLISHED
    assert calendar.coverage(date(2031, 1, 1)) is calendar.Coverage.RULE
    found = calendar.session(date(2031, 1, 7))
    assert found is not None
    assert not found.is_certain
    assert calendar.session(date(2031, 1, 4)) is None
    assert calendar.holiday(date(2029, 12, 25)) == "Christmas"


@pytest.mark.parametrize(
    "day", [date(2023, 4, 7), date(2027, 3, 26), date(2028, 4, 14), date(2038, 4, 23)]
)
def test_good_friday_of_an_unpublished_year_follows_easter(day: date) -> None:
    assert calendar.holiday(day) == "Good Friday"


def test_published_good_fridays_agree_with_the_rule() -> None:
    for year, day in (
        (2024, date(2024, 3, 29)),
        (2025, date(2025, 4, 18)),
        (2026, date(2026, 4, 3)),
    ):
        assert calendar.holiday(day) == "Good Friday"
        assert calendar._good_friday(year) == day


@pytest.mark.parametrize(("year", "days"), [(2024, 249), (2025, 249), (2026, 247)])
def test_number_of_session_days_a_year(year: int, days: int) -> None:
    every = (date(year, 1, 1) + timedelta(n) for n in range(366))
    found = [calendar.session(day) for day in every if day.year == year]
    assert sum(one is not None for one in found) == days


def test_unknown_exchange_and_underlying_are_refused() -> None:
    with pytest.raises(KeyError, match="exchange"):
        calendar.is_open(0, "NYSE")
    with pytest.raises(KeyError):
        calendar.expiries("FTSE", date(2026, 1, 1))


def test_next_open_skips_holidays_and_weekends() -> None:
    assert calendar.next_open_ns(ist_ns("2026-01-23T16:00")) == ist_ns("2026-01-27T09:15")
    inside = ist_ns("2026-01-27T10:00")
    assert calendar.next_open_ns(inside) == inside


RECORDED_LIST = [
    *("2025-01-30", "2025-02-06", "2025-02-13", "2025-02-20", "2025-02-27", "2025-03-06"),
    *("2025-03-27", "2025-06-26", "2025-09-25", "2025-12-24"),
    *("2026-06-25", "2026-12-31", "2027-06-24", "2027-12-30"),
    *("2028-06-29", "2028-12-28", "2029-06-28", "2029-12-27"),
]


def test_nifty_list_has_the_shape_and_dates_of_january_2025() -> None:
    found = calendar.expiries("NIFTY", date(2025, 1, 28))
    assert [str(day) for day in found.days] == RECORDED_LIST
    assert not found.is_certain


def test_nifty_list_equals_the_recorded_one() -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip("no recordings beside the checkout")
    path = shared / "data/dhan/dhan_v2_expirylist_NIFTY_at20250128T093145Z.json"
    listed = json.loads(path.read_bytes())["data"]
    assert [str(day) for day in calendar.expiries("NIFTY", date(2025, 1, 28)).days] == listed


@pytest.mark.parametrize(
    ("underlying", "on", "expected"),
    [
        pytest.param("SENSEX", "2025-09-26", "2025-10-01", id="SENSEX Thu holiday to Wed"),
        pytest.param("SENSEX", "2025-12-20", "2025-12-24", id="SENSEX Christmas to Wed"),
        pytest.param("NIFTY", "2025-10-15", "2025-10-20", id="NIFTY Diwali to Mon"),
        pytest.param("NIFTY", "2025-08-29", "2025-09-02", id="first NIFTY Tuesday"),
        pytest.param("NIFTY", "2025-08-27", "2025-08-28", id="last NIFTY Thursday"),
        pytest.param("SENSEX", "2025-08-27", "2025-09-04", id="first SENSEX Thursday"),
        pytest.param("SENSEX", "2025-08-26", "2025-08-26", id="last SENSEX Tuesday"),
        pytest.param("SENSEX", "2026-01-12", "2026-01-14", id="election Thursday to Wed"),
        pytest.param("NIFTY", "2026-11-17", "2026-11-17", id="expiry day itself is listed"),
        pytest.param("BANKNIFTY", "2025-10-01", "2025-10-28", id="BANKNIFTY monthly Tuesday"),
        pytest.param("BANKNIFTY", "2024-11-08", "2024-11-13", id="last BANKNIFTY weekly"),
        pytest.param("BANKNIFTY", "2024-11-14", "2024-11-27", id="then monthly Wednesday"),
        pytest.param("FINNIFTY", "2026-03-05", "2026-03-30", id="monthly Tuesday holiday to Mon"),
    ],
)
def test_nearest_expiry(underlying: str, on: str, expected: str) -> None:
    found = calendar.expiries(underlying, date.fromisoformat(on), 1)
    assert [str(day) for day in found.days] == [expected]


def test_only_nifty_and_sensex_have_weeklies_today() -> None:
    today = date(2026, 2, 2)
    with_weeklies = [name for name in calendar.UNDERLYINGS if calendar.has_weeklies(name, today)]
    assert with_weeklies == ["NIFTY", "SENSEX"]
    assert calendar.has_weeklies("BANKNIFTY", date(2024, 6, 3))


@pytest.mark.parametrize("underlying", calendar.UNDERLYINGS)
def test_expiries_are_ascending_trading_days_not_before_the_start(underlying: str) -> None:
    exchange = calendar.exchange_of(underlying)
    for offset in range(0, 900, 13):
        start = date(2024, 6, 3) + timedelta(offset)
        days = calendar.expiries(underlying, start).days
        assert days[0] >= start
        assert all(earlier < later for earlier, later in itertools.pairwise(days))
        for day in days:
            found = calendar.session(day, exchange)
            assert found is not None
            assert found.is_regular


def test_certainty_of_a_list_ends_with_the_published_years() -> None:
    start = date(2026, 2, 2)
    assert calendar.expiries("NIFTY", start, 3).is_certain
    assert not calendar.expiries("NIFTY", start).is_certain
