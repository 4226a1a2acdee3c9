"""The surface: each expiry's own smile, linear variance between, and calendar gaps named."""

from datetime import date, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.models import Smile
from pipeline.surface import Slice, Surface, surface, total_variance
from tests.support import chains

DAY = 1 / 365
FORWARD = 25_000.0
K = np.linspace(-0.08, 0.08, 33)


def smile(years: float, iv: float = 0.13, **changes: Any) -> Smile:
    """A skewed smile of that volatility at the money."""
    s = iv * years**0.5
    rho, sigma = -0.3, 0.9 * s
    fields: dict[str, Any] = {"b": 0.5 * s, "rho": rho, "m": 0.0, "sigma": sigma}
    fields["a"] = s * s - fields["b"] * sigma
    return Smile(**(fields | {"error": 0.05, "points": 80, "status": "ok"} | changes))


def slice_of(days: float, iv: float = 0.13, **changes: Any) -> Slice:
    years = days * DAY
    expiry = date(2026, 1, 20) + timedelta(days=round(days))
    return Slice(expiry, years, FORWARD * np.exp(0.05 * years), smile(years, iv, **changes))


SLICES = [slice_of(7), slice_of(14, 0.14), slice_of(42, 0.15)]


def test_at_an_expiry_it_is_the_expirys_own_smile() -> None:
    made = Surface(SLICES)
    for one in SLICES:
        expected = np.sqrt(total_variance(one.smile, K) / one.years)
        np.testing.assert_allclose(made.iv(K, one.years), expected, rtol=1e-13)
    assert made.iv(0.0, 7 * DAY) == pytest.approx(0.13, rel=1e-12)


def test_between_expiries_total_variance_is_linear_in_time() -> None:
    made = Surface(SLICES)
    near, far = made.total_variance(K, 7 * DAY), made.total_variance(K, 14 * DAY)
    np.testing.assert_allclose(made.total_variance(K, 9 * DAY), near + (far - near) * 2 / 7)


@pytest.mark.parametrize(("days", "nearest"), [(1.0, 7.0), (365.0, 42.0)], ids=["before", "after"])
def test_outside_the_expiries_volatility_stays(days: float, nearest: float) -> None:
    made = Surface(SLICES)
    np.testing.assert_allclose(made.iv(K, days * DAY), made.iv(K, nearest * DAY))


def test_without_gaps_total_variance_never_falls_with_time() -> None:
    made = Surface(SLICES)
    assert made.gaps() == []
    years = np.linspace(0.1, 400, 500) * DAY
    w = made.total_variance(K[np.newaxis, :], years[:, np.newaxis])
    assert (np.diff(w, axis=0) > 0).all()


def test_the_order_of_the_slices_is_that_of_time() -> None:
    made = Surface(reversed(SLICES))
    assert made.slices == tuple(SLICES)
    np.testing.assert_array_equal(made.grid(K, [0.05]), Surface(SLICES).grid(K, [0.05]))


def test_strikes_are_measured_from_the_forward_of_their_time() -> None:
    made = Surface(SLICES)
    for days in (7, 10, 42):
        forward = FORWARD * np.exp(0.05 * days * DAY)
        assert made.forward(days * DAY) == pytest.approx(forward, rel=1e-12)
        assert made.iv_at_strike(25_500.0, days * DAY) == pytest.approx(
            made.iv(np.log(25_500 / forward), days * DAY), rel=1e-12
        )
    assert made.forward(1 * DAY) == made.forward(7 * DAY)
    assert made.forward(900 * DAY) == made.forward(42 * DAY)


def test_a_grid_has_a_row_a_time_and_a_column_a_point() -> None:
    made = Surface(SLICES)
    grid = made.grid(K, [7 * DAY, 20 * DAY])
    assert grid.shape == (2, K.size)
    assert grid[1, 5] == made.iv(K[5], 20 * DAY)


def test_a_later_expiry_with_less_variance_is_named() -> None:
    made = Surface([slice_of(7, 0.20), slice_of(14, 0.13), slice_of(42)])
    (gap,) = made.gaps()
    assert (gap.earlier, gap.later) == (made.slices[0].expiry, made.slices[1].expiry)
    assert gap.shortfall > 0
    lost = made.total_variance(gap.k, 7 * DAY) - made.total_variance(gap.k, 14 * DAY)
    assert gap.shortfall == pytest.approx(lost, rel=1e-12)


def test_a_gap_in_one_wing_is_found_where_it_is() -> None:
    far = slice_of(14, 0.131)
    steep = smile(7 * DAY, b=1.1 * 0.13 * (7 * DAY) ** 0.5, rho=-0.9)
    made = Surface([slice_of(7)._replace(smile=steep), far])
    (gap,) = made.gaps()
    assert gap.k < -0.03
    assert made.total_variance(0.0, 14 * DAY) > made.total_variance(0.0, 7 * DAY)


def test_crossings_where_nobody_trades_are_no_gap() -> None:
    near, far = slice_of(1), slice_of(300)
    steep = msgspec.structs.replace(near.smile, b=0.5)
    steep = msgspec.structs.replace(steep, a=near.smile.a)
    made = Surface([near._replace(smile=msgspec.structs.replace(steep, sigma=1e-6)), far])
    assert total_variance(made.slices[0].smile, -0.3) > total_variance(far.smile, -0.3)
    assert made.gaps() == []


def test_times_that_are_past_have_no_volatility() -> None:
    made = Surface(SLICES)
    assert np.isnan(made.iv(0.0, [0.0, -1.0])).all()
    assert np.isnan(made.iv_at_strike(-5.0, 0.1))


def test_a_surface_of_nothing_is_empty() -> None:
    made = Surface([])
    assert np.isnan(made.grid(K, [0.1, 0.2])).all()
    assert np.isnan(made.iv_at_strike(25_000.0, 0.1))
    assert made.gaps() == []


def test_one_expiry_alone_makes_a_surface() -> None:
    made = Surface(SLICES[:1])
    np.testing.assert_allclose(made.iv(K, [[0.01], [3.0]])[0], made.iv(K, 7 * DAY))


def test_headers_without_smile_forward_or_time_are_left_out() -> None:
    header = chains.enriched().header
    fitted = smile(header.years)
    full = msgspec.structs.replace(header, smile=fitted)
    other = date(2026, 2, 3)
    made = surface(
        [
            full,
            msgspec.structs.replace(full, expiry=other, smile=None),
            msgspec.structs.replace(full, expiry=other, forward=None),
            msgspec.structs.replace(full, expiry=other, years=-0.001),
        ]
    )
    assert [one.expiry for one in made.slices] == [header.expiry]
    assert made.slices[0] == Slice(header.expiry, header.years, chains_forward(header), fitted)


def chains_forward(header: Any) -> float:
    assert header.forward is not None
    return float(header.forward)


def test_of_two_snapshots_of_an_expiry_the_newer_stands() -> None:
    header = msgspec.structs.replace(chains.enriched().header, smile=smile(0.01, 0.2))
    newer = msgspec.structs.replace(
        header, ts_ingest=header.ts_ingest + 1, smile=smile(header.years, 0.1)
    )
    for given in ([header, newer], [newer, header]):
        (one,) = surface(given).slices
        assert one.smile == newer.smile
