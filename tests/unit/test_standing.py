"""Ranks and percentiles of volatilities, from closes that are given."""

from datetime import UTC, datetime

import pytest

from pipeline.buckets import DAY_NS
from pipeline.clock import to_ns
from pipeline.standing import Close, Standing, standing, standings

MIDNIGHT = to_ns(datetime(2026, 1, 19, 18, 30, tzinfo=UTC))  # 20 January, IST


@pytest.mark.parametrize(
    ("iv", "window", "wanted"),
    [
        (0.15, [0.1, 0.12, 0.2], Standing(0.15, 0.5, 2 / 3, 0.1, 0.2, 3)),
        (0.2, [0.1, 0.2, 0.2], Standing(0.2, 1.0, 1 / 3, 0.1, 0.2, 3)),
        (0.3, [0.1, 0.2], Standing(0.3, 1.0, 1.0, 0.1, 0.3, 2)),
        (0.05, [0.1, 0.25], Standing(0.05, 0.0, 0.0, 0.05, 0.25, 2)),
        (0.1, [0.1, 0.1], Standing(0.1, None, 0.0, 0.1, 0.1, 2)),
        (0.1, [0.2], Standing(0.1, None, None, 0.2, 0.2, 1)),
        (None, [0.1, 0.2], Standing(None, None, None, 0.1, 0.2, 2)),
        (0.1, [], Standing(0.1, None, None, None, None, 0)),
    ],
    ids=["between", "at the top", "above", "below", "all alike", "one close", "none", "no closes"],
)
def test_standing_is_between_the_lowest_and_the_highest(
    iv: float | None, window: list[float], wanted: Standing
) -> None:
    found = standing(iv, window)
    assert found.rank == (None if wanted.rank is None else pytest.approx(wanted.rank))
    assert (found.percentile, found.low, found.high, found.days) == (
        *(wanted.percentile, wanted.low, wanted.high, wanted.days),
    )


def test_only_days_before_count_and_no_more_than_asked() -> None:
    closes = [Close(MIDNIGHT + n * DAY_NS, 0.1 + n / 100) for n in range(5)]
    points = [(MIDNIGHT + n * DAY_NS + 1, 0.1) for n in range(6)]
    found = standings(points, closes, 3)
    assert [one.days for one in found] == [0, 1, 2, 3, 3, 3]
    assert [one.low for one in found[3:]] == pytest.approx([0.1, 0.1, 0.1])
    assert found[5].high == pytest.approx(0.14)
    assert found[4].percentile == 0.0
