"""The market: a function of seed and time, free of arbitrage, growing through the day."""

from datetime import date, datetime

import numpy as np
import pytest

from pipeline.clock import IST, SECOND_NS, expiry_ns, to_ns
from workers.simulator import exchange, paths, smile
from workers.simulator.market import ChainColumns, Market

NIFTY = exchange.BY_NAME["NIFTY"]
WEEKLY, MONTHLY, FAR = date(2026, 1, 27), date(2026, 2, 24), date(2026, 12, 29)


def ist_ns(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=IST))


NOON = ist_ns("2026-01-22T12:00:00")


def mids(columns: ChainColumns) -> np.ndarray:
    mid = np.where(columns.bid > 0, (columns.bid + columns.ask) / 2, np.nan)
    return np.asarray(mid)


def differing(left: ChainColumns, right: ChainColumns) -> list[str]:
    return [
        name
        for name in ChainColumns._fields
        if not np.array_equal(getattr(left, name), getattr(right, name))
    ]


def test_same_seed_and_time_give_the_same_market_however_one_came_there() -> None:
    walked = Market(3)
    for minute in (0, 1, 17, 40, 95):
        walked.chain(NIFTY, WEEKLY, NOON + minute * 60 * SECOND_NS)
    then = NOON + 120 * 60 * SECOND_NS
    assert differing(walked.chain(NIFTY, WEEKLY, then), Market(3).chain(NIFTY, WEEKLY, then)) == []
    assert differing(walked.chain(NIFTY, WEEKLY, NOON), Market(3).chain(NIFTY, WEEKLY, NOON)) == []


def test_another_seed_is_another_market() -> None:
    assert Market(1).spot(NIFTY, NOON) != Market(2).spot(NIFTY, NOON)


def test_volume_and_open_interest_only_grow_within_a_day() -> None:
    market = Market(3)
    first = before = market.chain(NIFTY, WEEKLY, NOON)
    for step in range(1, 40):
        now = market.chain(NIFTY, WEEKLY, NOON + step * 97 * SECOND_NS)
        assert np.all(now.volume >= before.volume)
        assert np.all(now.open_interest >= before.open_interest)
        assert np.array_equal(now.previous_close, before.previous_close)
        before = now
    assert before.volume.sum() > first.volume.sum()
    assert before.open_interest.sum() > first.open_interest.sum()


def test_volume_grows_every_three_seconds_at_the_money() -> None:
    market = Market(3)
    totals = [
        int(market.chain(NIFTY, WEEKLY, NOON + n * 3 * SECOND_NS).volume.sum()) for n in range(5)
    ]
    assert len(set(totals)) == 5


def test_previous_values_are_yesterdays_last_ones() -> None:
    turn = ist_ns("2026-01-22T09:15:00")
    market = Market(3)
    evening, morning = (market.chain(NIFTY, WEEKLY, turn + s * SECOND_NS) for s in (-1, 1))
    assert evening.ids is not None
    assert morning.ids is not None
    _ids, old, new = np.intersect1d(evening.ids, morning.ids, return_indices=True)
    has_traded = evening.volume[old] > 0
    old, new = old[has_traded], new[has_traded]
    assert len(old) > 150
    assert morning.volume[new].sum() < 0.001 * evening.volume[old].sum()
    grown = morning.previous_open_interest[new] - evening.open_interest[old]
    assert np.all(grown >= 0)
    assert np.all(grown <= np.maximum(0.01 * evening.open_interest[old], 65))
    traded_in_last_second = morning.previous_volume[new] > evening.volume[old]
    assert np.mean(traded_in_last_second) < 0.5
    quiet = ~traded_in_last_second
    assert np.array_equal(morning.previous_volume[new][quiet], evening.volume[old][quiet])
    assert np.array_equal(morning.previous_close[new][quiet], evening.last[old][quiet])


def test_quantities_are_multiples_of_the_lot_and_prices_of_the_tick() -> None:
    for expiry in (WEEKLY, MONTHLY, FAR):
        columns = Market(3).chain(NIFTY, expiry, NOON)
        lot = exchange.lot(NIFTY, expiry)
        for name in ("bid_quantity", "ask_quantity", "volume", "open_interest", "previous_volume"):
            assert np.all(getattr(columns, name) % lot == 0), name
        for name in ("last", "bid", "ask", "previous_close"):
            ticks = getattr(columns, name) * 20
            np.testing.assert_allclose(ticks, np.rint(ticks), atol=1e-6)


@pytest.mark.parametrize("underlying", exchange.UNDERLYINGS, ids=lambda one: one.name)
def test_put_call_parity_holds_within_the_spread_on_the_true_forward(
    underlying: exchange.Underlying,
) -> None:
    for expiry in exchange.expiries(underlying, NOON)[:3]:
        columns = Market(4).chain(underlying, expiry, NOON)
        forward = smile.forward(4, underlying, expiry, NOON)
        years = (expiry_ns(expiry) - NOON) / SECOND_NS / (365 * 86_400)
        discount = np.exp(-smile.RATE * years)
        mid = mids(columns)
        implied = columns.strikes + (mid[::2] - mid[1::2]) / discount
        spread = (columns.ask - columns.bid)[::2] + (columns.ask - columns.bid)[1::2]
        has_both = ~np.isnan(implied)
        assert has_both.sum() > 20
        gap = np.abs(implied - forward)[has_both]
        assert np.all(gap <= spread[has_both] / discount / 2 + 1e-6)


def test_forward_carries_over_spot_by_rate_less_dividends() -> None:
    for expiry in (WEEKLY, MONTHLY, FAR):
        years = (expiry_ns(expiry) - NOON) / SECOND_NS / (365 * 86_400)
        carry = np.log(smile.forward(4, NIFTY, expiry, NOON) / Market(4).spot(NIFTY, NOON))
        assert carry == pytest.approx(0.053 * years, abs=0.001)


@pytest.mark.parametrize("expiry", [WEEKLY, MONTHLY, FAR], ids=str)
def test_no_time_value_is_negative_and_no_butterfly_is_free(expiry: date) -> None:
    strikes = np.arange(15_000.0, 38_001.0, 50.0)
    found = smile.truth(3, NIFTY, expiry, exchange.market_day(NOON), np.array([9_900.0]), strikes)
    discount = np.exp(-smile.RATE * found.years)
    assert np.all(found.call >= discount * np.maximum(found.forward - strikes, 0) - 1e-9)
    assert np.all(found.put >= discount * np.maximum(strikes - found.forward, 0) - 1e-9)
    assert np.all(np.diff(found.call) <= 1e-9)
    assert np.all(np.diff(found.call, 2) >= -1e-9)
    assert np.all(np.diff(found.put, 2) >= -1e-9)


def test_books_are_never_crossed_and_widen_away_from_the_money() -> None:
    columns = Market(3).chain(NIFTY, WEEKLY, NOON)
    has_bid = columns.bid > 0
    assert np.all(columns.ask[has_bid] > columns.bid[has_bid])
    assert np.all((columns.ask_quantity > 0) == (columns.ask > 0))
    assert np.all((columns.bid_quantity > 0) == has_bid)
    calls = slice(0, None, 2)
    spread = (columns.ask - columns.bid)[calls][has_bid[calls]]
    moneyness = np.abs(columns.strikes[has_bid[calls]] - columns.spot)
    deep = columns.strikes[has_bid[calls]] < columns.spot - 1_200
    assert np.median(spread[moneyness < 200]) < 1.0 < np.median(spread[deep])


def test_wings_are_dead_and_say_so_with_zeros_and_placeholder_iv() -> None:
    columns = Market(3).chain(NIFTY, WEEKLY, NOON)
    is_dead = columns.last == 0
    assert 100 < is_dead.sum() < 400
    zeros = ("bid", "ask", "volume", "open_interest", "average", "previous_open_interest")
    for name in zeros:
        assert not getattr(columns, name)[is_dead].any(), name
    is_call = np.tile([True, False], len(columns.strikes))
    outward = is_call == (np.repeat(columns.strikes, 2) > columns.spot)
    assert np.all((columns.iv_percent[is_dead] > 0) == outward[is_dead])
    assert np.all(columns.iv_percent[is_dead] < 20)
    for name in ("delta", "gamma", "vega", "theta"):
        assert np.all(np.round(getattr(columns, name)[is_dead], 5) == 0), name


def test_greeks_are_computed_again_only_when_the_leg_trades() -> None:
    market = Market(3)
    before = market.chain(NIFTY, WEEKLY, NOON)
    after = market.chain(NIFTY, WEEKLY, NOON + 60 * SECOND_NS)
    traded = after.volume != before.volume
    assert 20 < traded.sum() < len(traded)
    same = [
        getattr(after, name)[~traded] == getattr(before, name)[~traded]
        for name in ("iv_percent", "delta", "theta", "gamma", "vega", "last")
    ]
    assert np.all(same)
    moved = traded & (before.iv_percent > 0)
    assert np.mean(after.iv_percent[moved] != before.iv_percent[moved]) > 0.9


def test_last_of_an_idle_leg_is_stale() -> None:
    columns = Market(3).chain(NIFTY, WEEKLY, NOON)
    has_book = columns.bid > 0
    is_outside = (columns.last < columns.bid) | (columns.last > columns.ask)
    assert 0.1 < np.mean(is_outside[has_book]) < 0.9


def test_chain_freezes_when_it_has_settled() -> None:
    market = Market(3)
    closing = market.chain(NIFTY, WEEKLY, ist_ns("2026-01-27T15:29:59"))
    later = market.chain(NIFTY, WEEKLY, ist_ns("2026-01-27T22:00:00"))
    assert differing(closing, later) == []


def test_spot_moves_like_an_index() -> None:
    day = exchange.market_day(NOON)
    path = paths.spot_path(3, NIFTY, day)
    returns = np.diff(np.log(path))
    per_year = float(np.std(returns)) * np.sqrt(252 * 22_500)
    assert 0.11 < per_year < 0.16
    assert np.max(np.abs(returns)) < 0.01
    following = paths.spot_path(3, NIFTY, day + 1)
    assert path[-1] == pytest.approx(following[0], rel=1e-6)
    starts = [paths.spot_path(3, NIFTY, day + n)[0] for n in range(0, 60, 4)]
    assert np.all(np.abs(np.log(np.array(starts) / NIFTY.base)) < 0.2)


def test_indices_move_together_but_not_alike() -> None:
    day = exchange.market_day(NOON)
    nifty, sensex = (
        np.diff(np.log(paths.spot_path(3, exchange.BY_NAME[name], day)))
        for name in ("NIFTY", "SENSEX")
    )
    assert 0.8 < np.corrcoef(nifty, sensex)[0, 1] < 0.999


def test_near_volatility_is_higher_and_falls_with_the_spot_rising() -> None:
    day = exchange.market_day(NOON)
    level, spot = paths.level_path(3, NIFTY, day), paths.spot_path(3, NIFTY, day)[::60]
    slow = np.linspace(np.log(spot[0]), np.log(spot[-1]), len(spot))
    assert np.corrcoef(np.log(level), np.log(spot) - slow)[0, 1] < -0.1


def test_what_is_kept_is_bounded_over_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.simulator.market._MOST_VIEWS", 3)
    market = Market(3)
    sensex = exchange.BY_NAME["SENSEX"]
    for week in range(8):
        now = NOON + week * 7 * 86_400 * SECOND_NS
        market.chain(sensex, exchange.expiries(sensex, now)[0], now)
    assert len(market._views) == 3
    caches = (paths.spot_path, paths.level_path, paths.basis_path, paths._log_path)
    assert all(cache.cache_info().maxsize is not None for cache in caches)
