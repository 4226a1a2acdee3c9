"""The parity forward on chains whose forward is known, with a tenth of their quotes stale.

The simulator knows its forward; of a recorded chain the forward of its quotes as they are stands
in. Stale is what a quote was when the forward was 0.5 to 1.5 % elsewhere, at the tightest spread:
legs here and there, each of its own time or all of one, and runs of whole strikes.
"""

import json
import math
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import dhan_chain
from pipeline.clock import IST, SECOND_NS, expiry_ns, to_ns, years_until
from pipeline.kernels import black, forward
from pipeline.models import Kind, RequestContext
from tests.support import recordings
from workers.simulator import exchange, smile
from workers.simulator.market import Market

MARKET_SEED = 11
NOW = to_ns(datetime(2026, 1, 22, 12, 0, tzinfo=IST))
TICK = 0.05
SEEDS = 200
BASIS_POINT = 1e-4

Floats = NDArray[np.float64]


class Quotes(NamedTuple):
    """A chain's legs, call and put of each strike in turn, and its forward; NaN for no quote."""

    strikes: Floats
    kind: NDArray[np.uint8]
    bid: Floats
    ask: Floats
    iv: Floats
    spot: float
    years: float
    forward: float


def fit(quotes: Quotes) -> forward.ForwardFit:
    return forward.parity_of_legs(
        *(quotes.strikes, quotes.kind, quotes.bid, quotes.ask, quotes.spot, quotes.years),
        smile.RATE,
    )


def miss_in_basis_points(quotes: Quotes, found: forward.ForwardFit) -> float:
    return abs(found.forward - quotes.forward) / quotes.spot / BASIS_POINT


@cache
def simulated(name: str, place: int, hours_left: float | None) -> Quotes:
    """The chain of the expiry in that place of the list: now, or so long before it expires."""
    underlying = exchange.BY_NAME[name]
    expiry = exchange.expiries(underlying, NOW)[place]
    ts_ns = NOW
    if hours_left is not None:
        ts_ns = expiry_ns(expiry) - int(hours_left * 3_600) * SECOND_NS
    chain = Market(MARKET_SEED).chain(underlying, expiry, ts_ns)
    strikes = np.repeat(chain.strikes, 2)
    day = exchange.market_day(ts_ns)
    since_s = np.array([(ts_ns - exchange.day_start_ns(day)) / SECOND_NS])
    return Quotes(
        strikes=strikes,
        kind=np.tile(np.array([Kind.CALL, Kind.PUT], np.uint8), chain.strikes.size),
        bid=np.where(chain.bid > 0, chain.bid, np.nan),
        ask=np.where(chain.ask > 0, chain.ask, np.nan),
        iv=smile.truth(MARKET_SEED, underlying, expiry, day, since_s, strikes).iv,
        spot=chain.spot,
        years=years_until(expiry_ns(expiry), ts_ns),
        forward=smile.forward(MARKET_SEED, underlying, expiry, ts_ns),
    )


def with_stale(quotes: Quotes, pattern: str, rng: np.random.Generator) -> Quotes:
    """A tenth of what is quoted, at the price of another time and one tick wide."""
    n = quotes.strikes.size
    is_stale = np.zeros(n, np.bool_)
    quoted = np.flatnonzero(quotes.bid > 0)
    if pattern == "legs":
        is_stale[rng.choice(quoted, round(quoted.size / 10), replace=False)] = True
    else:
        pairs = np.flatnonzero((quotes.bid[::2] > 0) & (quotes.bid[1::2] > 0))
        run = round(pairs.size / 10)
        middle = int(np.searchsorted(quotes.strikes[2 * pairs], quotes.forward))
        first = middle - run // 2 + (0 if pattern == "run-at-money" else rng.integers(-run, run))
        chosen = pairs[np.clip(np.arange(first, first + run), 0, pairs.size - 1)]
        is_stale[2 * chosen] = is_stale[2 * chosen + 1] = True
    moves = rng.choice([-1.0, 1.0], n) * rng.uniform(0.005, 0.015, n)
    if pattern != "legs" or rng.random() < 0.5:
        moves[:] = moves[0]
    price = np.empty(n)
    black.price(
        quotes.forward * (1 + moves),
        math.exp(-smile.RATE * quotes.years),
        quotes.years,
        quotes.strikes,
        quotes.kind == Kind.CALL,
        quotes.iv,
        price,
    )
    bid = np.maximum(np.floor(price / TICK), 1.0) * TICK
    return quotes._replace(
        bid=np.where(is_stale, bid, quotes.bid), ask=np.where(is_stale, bid + TICK, quotes.ask)
    )


CHAINS = [
    pytest.param(name, place, hours, id=f"{name}-{place}" + (f"-{hours}h-left" if hours else ""))
    for name, place, hours in [
        *(("NIFTY", 0, None), ("NIFTY", 1, None), ("NIFTY", 3, None), ("NIFTY", -1, None)),
        *(("NIFTY", 0, 5), ("BANKNIFTY", 0, None), ("BANKNIFTY", -1, None), ("BANKNIFTY", 0, 5)),
        *(("FINNIFTY", 1, None), ("FINNIFTY", 0, 1), ("SENSEX", 1, None), ("SENSEX", 0, 1)),
    ]
]


@pytest.mark.parametrize("pattern", ["legs", "run", "run-at-money"])
@pytest.mark.parametrize(("name", "place", "hours_left"), CHAINS)
def test_a_tenth_of_stale_quotes_leaves_the_simulated_forward_within_a_basis_point(
    name: str, place: int, hours_left: float | None, pattern: str
) -> None:
    clean = simulated(name, place, hours_left)
    worst = 0.0
    for seed in range(SEEDS):
        found = fit(with_stale(clean, pattern, np.random.default_rng(seed)))
        assert found.source == forward.PARITY, seed
        worst = max(worst, miss_in_basis_points(clean, found))
    assert worst <= 1.0


@pytest.mark.parametrize(("name", "place", "hours_left"), CHAINS)
def test_books_without_bids_on_one_side_leave_the_forward_to_the_other_strikes(
    name: str, place: int, hours_left: float | None
) -> None:
    quotes = simulated(name, place, hours_left)
    bid = quotes.bid.copy()
    bid[np.random.default_rng(5).choice(bid.size, bid.size // 3, replace=False)] = np.nan
    found = fit(quotes._replace(bid=bid))
    assert found.source == forward.PARITY
    assert miss_in_basis_points(quotes, found) <= 1.0


@pytest.mark.parametrize(("name", "place", "hours_left"), CHAINS)
def test_three_strikes_are_enough_of_which_one_may_be_stale(
    name: str, place: int, hours_left: float | None
) -> None:
    quotes = simulated(name, place, hours_left)
    nearest = np.argsort(np.abs(quotes.strikes - quotes.forward), kind="stable")[:6]
    few = np.sort(nearest)
    three = Quotes(*(c[few] if isinstance(c, np.ndarray) else c for c in quotes))
    assert miss_in_basis_points(quotes, fit(three)) <= 1.0
    stale = three.bid.copy()
    stale[2] *= 0.8
    found = fit(three._replace(bid=stale, ask=np.where(stale != three.bid, stale, three.ask)))
    assert miss_in_basis_points(quotes, found) <= 1.0


def recorded() -> list[tuple[str, Quotes]]:
    """Every recorded chain, its forward and volatilities those that its quotes have as they are."""
    folder = recordings.shared_dir()
    if folder is None:
        pytest.skip("no recorded chains beside the checkout; the simulated ones stand in")
    files = Path(folder / "data/dhan")
    index = json.loads((files / "dhan_v2_recordings_index.json").read_text())
    entries = [entry for entry in index if "_optionchain_" in entry["file"]]
    return [(e["file"], _quotes_of(files / e["file"], e["http_date"])) for e in entries]


def _quotes_of(file: Path, http_date: str) -> Quotes:
    expiry = datetime.strptime(file.name.split("_exp")[1][:8], "%Y%m%d").replace(tzinfo=UTC).date()
    ts_ns = to_ns(parsedate_to_datetime(http_date).astimezone(UTC))
    snapshot = dhan_chain.map_chain(file.read_bytes(), _asked(expiry), ts_ns)
    legs = snapshot.legs
    strikes = np.unique(legs["strike"])
    at = 2 * np.searchsorted(strikes, legs["strike"]) + (legs["kind"] == Kind.PUT)
    bid, ask = np.full((2, 2 * strikes.size), np.nan)
    bid[at], ask[at] = legs["bid"], legs["ask"]
    assert snapshot.spot is not None
    quotes = Quotes(
        strikes=np.repeat(strikes, 2),
        kind=np.tile(np.array([Kind.CALL, Kind.PUT], np.uint8), strikes.size),
        bid=bid,
        ask=ask,
        iv=np.full(bid.size, 0.15),
        spot=snapshot.spot,
        years=years_until(expiry_ns(expiry), ts_ns),
        forward=math.nan,
    )
    return quotes._replace(forward=fit(quotes).forward)


def _asked(expiry: date) -> RequestContext:
    return RequestContext(
        provider="dhan",
        underlying="NIFTY",
        expiry=expiry,
        security_id=13,
        segment="IDX_I",
        path="/optionchain",
        status=200,
    )


def test_the_forward_of_a_recorded_chain_is_within_the_spreads_of_its_strikes() -> None:
    """Whoever buys the call at the ask and sells the put at the bid pays at least the forward."""
    for file, quotes in recorded():
        found = fit(quotes)
        assert (found.source, found.pairs >= 10) == (forward.PARITY, True), file
        call_bid, put_bid = quotes.bid.reshape(-1, 2).T
        call_ask, put_ask = quotes.ask.reshape(-1, 2).T
        is_quoted = (call_bid > 0) & (put_bid > 0) & (call_ask >= call_bid) & (put_ask >= put_bid)
        strikes = quotes.strikes[::2]
        least = strikes + (call_bid - put_ask) / found.discount
        most = strikes + (call_ask - put_bid) / found.discount
        holds = (least - TICK <= found.forward) & (found.forward <= most + TICK)
        assert holds[is_quoted].mean() > 0.85, file


@pytest.mark.parametrize("pattern", ["legs", "run", "run-at-money"])
def test_a_tenth_of_stale_quotes_leaves_the_forward_of_a_recorded_chain(pattern: str) -> None:
    for file, quotes in recorded():
        for seed in range(SEEDS):
            found = fit(with_stale(quotes, pattern, np.random.default_rng(seed)))
            assert miss_in_basis_points(quotes, found) <= 1.0, (file, seed)
