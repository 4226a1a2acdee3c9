"""Closures, from the calendar alone, and counts added up."""

from datetime import datetime

import pytest

from pipeline import calendar
from pipeline.clock import IST, to_ns
from pipeline.coverage import LONGEST_CLOSED_NS, Counts, Gap, closed_gaps, total


def ist(day: int, hour: int = 0, minute: int = 0) -> int:
    """An instant of January 2026."""
    return to_ns(datetime(2026, 1, day, hour, minute, tzinfo=IST))


RANGES = {
    "within a session": (ist(20, 10), ist(20, 11), []),
    "a whole day": (ist(20), ist(21), [(ist(20), ist(20, 9, 15)), (ist(20, 15, 30), ist(21))]),
    "over a night": (ist(20, 15), ist(21, 10), [(ist(20, 15, 30), ist(21, 9, 15))]),
    "over a weekend and a holiday": (
        *(ist(23, 15), ist(27, 10)),
        [(ist(23, 15, 30), ist(27, 9, 15))],
    ),
    "all of it closed": (ist(24, 3), ist(25, 4), [(ist(24, 3), ist(25, 4))]),
    "up to the bell": (ist(20, 8), ist(20, 9, 15), [(ist(20, 8), ist(20, 9, 15))]),
    "from the bell": (ist(20, 15, 30), ist(20, 16), [(ist(20, 15, 30), ist(20, 16))]),
    "nothing": (ist(20, 3), ist(20, 3), []),
}


@pytest.mark.parametrize(("start", "end", "closed"), RANGES.values(), ids=RANGES.keys())
def test_closures_are_what_the_sessions_leave(
    start: int, end: int, closed: list[tuple[int, int]]
) -> None:
    found = list(closed_gaps(start, end, "NSE"))
    assert found == [Gap(starts, ends, "closed") for starts, ends in closed]
    open_ns = sum(b - a for a, b in calendar.open_between(start, end))
    assert open_ns + sum(gap.ends - gap.starts for gap in found) == end - start


def test_closures_of_a_range_without_end_are_told_of_its_last_year() -> None:
    first = next(closed_gaps(0, ist(20), "NSE"))
    assert first.starts >= ist(20) - LONGEST_CLOSED_NS


def test_counts_of_nothing_are_none() -> None:
    assert total([]) == Counts()
    assert total([Counts(5, 3, 1, 1), Counts(2, 2)]) == Counts(7, 5, 1, 1)
