"""Listings: expiries, ladders, lots and ids."""

from datetime import date, datetime

import numpy as np
import pytest

from pipeline.clock import IST, to_ns
from workers.simulator import exchange


def ist_ns(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=IST))


@pytest.mark.parametrize(
    ("name", "expiry", "lot"),
    [
        ("NIFTY", "2025-01-30", 25),
        ("NIFTY", "2025-02-06", 75),
        ("NIFTY", "2025-12-30", 75),
        ("NIFTY", "2026-01-06", 65),
        ("BANKNIFTY", "2025-12-30", 35),
        ("BANKNIFTY", "2026-01-27", 30),
        ("FINNIFTY", "2026-01-27", 60),
        ("SENSEX", "2026-01-29", 20),
    ],
)
def test_lot_belongs_to_the_series(name: str, expiry: str, lot: int) -> None:
    assert exchange.lot(exchange.BY_NAME[name], date.fromisoformat(expiry)) == lot


@pytest.mark.parametrize(
    ("name", "count", "step"),
    [("NIFTY", 241, 50), ("BANKNIFTY", 351, 100), ("FINNIFTY", 191, 50), ("SENSEX", 181, 100)],
)
def test_near_ladder_is_uniform_around_the_spot(name: str, count: int, step: int) -> None:
    underlying = exchange.BY_NAME[name]
    ladder = exchange.strikes(underlying, date(2026, 1, 27), date(2026, 1, 20), underlying.base)
    assert len(ladder) == count
    assert set(np.diff(ladder)) == {step}
    assert abs(ladder[count // 2] - underlying.base) <= 5 * step


def test_far_ladder_is_wide() -> None:
    underlying = exchange.BY_NAME["NIFTY"]
    ladder = exchange.strikes(underlying, date(2027, 12, 28), date(2026, 1, 20), 25_000.0)
    assert set(np.diff(ladder)) == {1_000}


def test_expiry_is_listed_until_it_settles_and_answered_until_midnight() -> None:
    nifty, day = exchange.BY_NAME["NIFTY"], date(2026, 1, 27)
    before, after = ist_ns("2026-01-27T15:29:59"), ist_ns("2026-01-27T15:30:00")
    assert exchange.expiries(nifty, before)[0] == day
    assert exchange.expiries(nifty, after)[0] == date(2026, 2, 3)
    assert len(exchange.expiries(nifty, before)) >= 17
    assert exchange.is_answered(nifty, day, ist_ns("2026-01-27T23:59:59"))
    assert not exchange.is_answered(nifty, day, ist_ns("2026-01-28T00:00:00"))
    assert not exchange.is_answered(nifty, date(2026, 1, 28), before)


def test_market_day_turns_at_0915_ist() -> None:
    turn = ist_ns("2026-01-27T09:15:00")
    assert exchange.market_day(turn) == exchange.market_day(turn - 1) + 1
    assert exchange.day_start_ns(exchange.market_day(turn)) == turn


def test_ids_are_unique_across_every_listed_chain_and_lead_back_to_it() -> None:
    now = ist_ns("2026-01-20T11:00:00")
    seen: set[tuple[str, int]] = set()
    for underlying in exchange.UNDERLYINGS:
        for expiry in exchange.expiries(underlying, now):
            ladder = exchange.strikes(underlying, expiry, date(2026, 1, 20), underlying.base)
            ids = exchange.security_ids(underlying, expiry, ladder).tolist()
            assert len(ids) == 2 * len(ladder)
            found = {(underlying.segment, one) for one in ids}
            assert len(found) == len(ids)
            assert not found & seen
            seen |= found
            for one in (ids[0], ids[-1]):
                assert exchange.chain_of(underlying.segment, one, now) == (underlying, expiry)


def test_contract_keeps_its_id_when_the_ladder_moves() -> None:
    nifty, expiry = exchange.BY_NAME["NIFTY"], date(2026, 1, 27)
    ids = []
    for spot in (25_400.0, 26_600.0):
        ladder = exchange.strikes(nifty, expiry, date(2026, 1, 20), spot)
        at = 2 * int(np.flatnonzero(ladder == 26_000.0)[0])
        ids.append(exchange.security_ids(nifty, expiry, ladder)[at])
    assert ids[0] == ids[1]


def test_ids_of_other_segments_are_unknown() -> None:
    now = ist_ns("2026-01-20T11:00:00")
    assert exchange.chain_of("NSE_FNO", 1, now) is None
    assert exchange.chain_of("NSE_EQ", 341_480, now) is None


def test_sensex_answers_under_both_its_ids() -> None:
    sensex = exchange.BY_NAME["SENSEX"]
    assert exchange.BY_REQUEST[51, "IDX_I"] is sensex
    assert exchange.BY_REQUEST[1, "BSE_FNO"] is sensex
