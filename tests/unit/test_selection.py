"""Which chains and legs a selection keeps, against a slow twin."""

from datetime import date

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.models import ChainHeader, Kind
from pipeline.selection import Selection, selection
from tests.support import chains

HEADER = chains.enriched(1).header


def slow_rows(chosen: Selection, header: ChainHeader, legs: list[tuple[float, int]]) -> list[int]:
    """The indices of the legs kept, one leg at a time."""
    strikes = sorted({strike for strike, _kind in legs})
    kept = set(strikes)
    if chosen.band_strikes is not None or chosen.band_percent is not None:
        forward = header.forward
        if forward is None or not strikes:
            return []
        nearest = min(strikes, key=lambda strike: (abs(strike - forward), strike))
        if chosen.band_strikes is not None:
            place = strikes.index(nearest)
            first = max(0, place - chosen.band_strikes)
            kept &= set(strikes[first : place + chosen.band_strikes + 1])
        if chosen.band_percent is not None:
            reach = forward * chosen.band_percent / 100
            kept &= {strike for strike in strikes if forward - reach <= strike <= forward + reach}
    return [
        number
        for number, (strike, kind) in enumerate(legs)
        if strike in kept and chosen.kind in (None, kind)
    ]


@given(
    strikes=st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["both", "call", "put"]))),
    forward=st.one_of(st.none(), st.floats(0.5, 70, width=16)),
    band_strikes=st.one_of(st.none(), st.integers(0, 12)),
    band_percent=st.one_of(st.none(), st.sampled_from([0.0, 5.0, 40.0, 150.0])),
    kind=st.sampled_from([None, "call", "put"]),
)
def test_rows_kept_are_those_of_the_slow_twin(
    strikes: list[tuple[int, str]],
    forward: float | None,
    band_strikes: int | None,
    band_percent: float | None,
    kind: str | None,
) -> None:
    listed = {float(strike): sides for strike, sides in strikes}
    legs = [
        (strike, int(side))
        for strike in sorted(listed)
        for side in (Kind.CALL, Kind.PUT)
        if listed[strike] in ("both", side.name.lower())
    ]
    header = msgspec.structs.replace(HEADER, forward=forward, n=len(legs))
    columns = {
        "strike": np.array([strike for strike, _ in legs], "<f8"),
        "kind": np.array([side for _, side in legs], "u1"),
    }
    chosen = selection(band_strikes=band_strikes, band_percent=band_percent, kind=kind)
    rows = chosen.rows(header, columns)
    everything = np.arange(len(legs))
    kept = everything if rows is None else everything[rows]
    assert kept.tolist() == slow_rows(chosen, header, legs)


@pytest.mark.parametrize(
    ("symbol", "wanted"),
    [
        ("NIFTY-20260127", True),
        ("NIFTY-20260203", False),
        ("NIFTY-20260127-25000-CE", True),
        ("BANKNIFTY-20260127", False),
        ("NIFTY", True),  # its list of expiries
        ("BANKNIFTY", False),
        ("no symbol at all", False),
    ],
)
def test_symbol_tells_whether_an_entry_is_wanted(symbol: str, wanted: bool) -> None:
    chosen = selection(underlying="NIFTY", expiry="2026-01-27")
    assert chosen.wants(symbol) is wanted
    assert selection().wants(symbol)


def test_several_of_each_may_be_named() -> None:
    chosen = selection(
        underlying=("NIFTY", "M&M"), expiry=["2026-01-27", date(2026, 2, 24)], kind="put"
    )
    assert chosen.kind is Kind.PUT
    assert chosen.wants("M&M-20260224")
    assert not chosen.wants("M&M-20260225")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kind": "ce"}, "call or put"),
        ({"expiry": "27JAN"}, "27JAN"),
        ({"band_strikes": -1}, "band_strikes"),
        ({"band_percent": float("nan")}, "band_percent"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        selection(**wrong)  # type: ignore[arg-type]
