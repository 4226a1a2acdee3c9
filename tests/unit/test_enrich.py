"""Enrichment: which price, which forward, which status, and that no data makes it raise."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import clock, dhan_chain, enrich, frames
from pipeline.kernels import black
from pipeline.models import (
    LEG_COLUMNS,
    NULL_INTEGER,
    ChainSnapshot,
    EnrichedChain,
    GreeksSource,
    IvStatus,
    Kind,
    PriceSource,
    RequestContext,
)
from tests.support import recordings

EXPIRY = date(2026, 1, 27)
TS_INGEST = clock.expiry_ns(EXPIRY) - 5 * 86_400 * clock.SECOND_NS
YEARS, RATE, FORWARD, SPOT, SMILE = 5 / 365, 0.065, 25_021.0, 25_000.0, 0.14
STRIKES = np.repeat(np.arange(24_000.0, 26_050.0, 50.0), 2)
CALLS = np.arange(STRIKES.size) % 2 == 0
GREEKS = ("delta", "gamma", "theta", "vega", "rho")
PLACE = 40  # the call at 25,000
RECORDED = "dhan_v2_optionchain_NIFTY_exp20250130_at20250128T093332Z_LIVE.json"


@pytest.fixture(scope="module", autouse=True)
def compiled_kernels() -> None:
    enrich.warmup()


def legs_of_a_market() -> dict[str, Any]:
    """Two-sided quotes round one volatility; the last price is a little stale."""
    mid = np.empty(STRIKES.size)
    volatility = np.full(STRIKES.size, SMILE)
    black.price(FORWARD, math.exp(-RATE * YEARS), YEARS, STRIKES, CALLS, volatility, mid)
    mid = np.maximum(mid, 0.3)
    return {
        "strike": STRIKES,
        "kind": np.where(CALLS, Kind.CALL, Kind.PUT).astype(np.uint8),
        "bid": mid - 0.1,
        "ask": mid + 0.1,
        "last": mid * 1.01,
        "open_interest": np.arange(STRIKES.size, dtype=np.int64) * 65,
        "volume": np.arange(STRIKES.size, dtype=np.int64)[::-1] * 65,
        "security_id": np.arange(STRIKES.size, dtype=np.int64) + 1,
    }


def snapshot(legs: Mapping[str, Any] | None = None, **changes: Any) -> ChainSnapshot:
    fields: dict[str, Any] = {
        "underlying": "NIFTY",
        "expiry": EXPIRY,
        "provider": "dhan",
        "ts_event": None,
        "ts_ingest": TS_INGEST,
        "spot": SPOT,
        "lot": 65,
        "legs": legs_of_a_market() if legs is None else legs,
    }
    return ChainSnapshot(**(fields | changes))


def changed(place: int, **values: float) -> EnrichedChain:
    """The market with one leg changed, enriched."""
    legs = legs_of_a_market()
    for name, value in values.items():
        legs[name] = legs[name].copy()
        legs[name][place] = value
    return enrich.enrich(snapshot(legs), rate=RATE)


def assert_consistent(chain: EnrichedChain) -> None:
    """Every column in its dtype and length; a value exactly where the status says so."""
    assert list(chain.legs) == [spec.name for spec in LEG_COLUMNS]
    for spec in LEG_COLUMNS:
        assert chain.legs[spec.name].dtype == np.dtype(spec.dtype), spec.name
        assert chain.legs[spec.name].shape == (chain.header.n,), spec.name
    status = chain.legs["iv_status"]
    has_value = status <= IvStatus.ILL_CONDITIONED
    assert set(status.tolist()) <= set(IvStatus) - {IvStatus.NOT_CONVERGED}
    assert np.array_equal(np.isfinite(chain.legs["iv"]), has_value)
    assert np.array_equal(chain.legs["greeks_source"] != GreeksSource.NONE, has_value)
    for name in GREEKS:
        assert np.isnan(chain.legs[name][~has_value]).all()
    assert np.isfinite(chain.legs["iv_fit"]).any() == (chain.header.smile is not None)
    assert frames.decode_frame(frames.encode_frame(chain)).header == chain.header


def test_a_market_of_one_volatility_is_read_back() -> None:
    chain = enrich.enrich(snapshot(), rate=RATE)
    assert_consistent(chain)
    header, legs = chain.header, chain.legs
    near = np.abs(STRIKES - FORWARD) < 500
    assert legs["iv"][near] == pytest.approx(SMILE, abs=1e-9)
    assert (legs["price_source"] == PriceSource.MID).all()
    assert (legs["greeks_source"][near] == GreeksSource.COMPUTED).all()
    assert header.forward == pytest.approx(FORWARD, abs=1e-6)
    assert header.discount == math.exp(-RATE * header.years)
    assert header.years == pytest.approx(YEARS, rel=1e-12)
    assert (header.chain, header.model, header.n) == ("NIFTY-20260127", "black76", STRIKES.size)
    assert (header.forward_source, header.forward_pairs) == ("parity", 21)
    assert header.forward_residual == pytest.approx(0.0, abs=1e-6)
    assert header.aggregates.atm_strike == 25_000.0
    assert header.aggregates.atm_iv == pytest.approx(SMILE, abs=1e-9)
    assert header.aggregates.call_open_interest == int(legs["open_interest"][CALLS].sum())


def test_time_runs_from_the_venues_instant_where_there_is_one() -> None:
    hour_ns = 3_600 * clock.SECOND_NS
    chain = enrich.enrich(snapshot(ts_event=TS_INGEST - hour_ns), rate=RATE)
    assert chain.header.years == pytest.approx(YEARS + 1 / (24 * 365), rel=1e-12)


@pytest.mark.parametrize(
    ("values", "source", "status"),
    [
        pytest.param({}, PriceSource.MID, IvStatus.OK, id="two-sided"),
        pytest.param({"bid": math.nan}, PriceSource.LAST, IvStatus.OK, id="no-bid"),
        pytest.param({"ask": math.nan}, PriceSource.LAST, IvStatus.OK, id="no-ask"),
        pytest.param({"ask": 1e4}, PriceSource.LAST, IvStatus.OK, id="too-wide"),
        pytest.param({"bid": 500.0}, PriceSource.LAST, IvStatus.OK, id="crossed-with-last"),
        pytest.param(
            {"bid": 500.0, "last": math.nan}, PriceSource.NONE, IvStatus.CROSSED, id="crossed"
        ),
        pytest.param(
            {"bid": math.nan, "last": math.nan}, PriceSource.NONE, IvStatus.NO_PRICE, id="nothing"
        ),
        pytest.param({"bid": 0.0, "last": 0.0}, PriceSource.NONE, IvStatus.NO_PRICE, id="zeros"),
        pytest.param(
            {"ask": math.nan, "last": math.inf}, PriceSource.LAST, IvStatus.INVALID, id="infinite"
        ),
        pytest.param(
            {"ask": math.nan, "last": -1.0}, PriceSource.LAST, IvStatus.INVALID, id="negative"
        ),
        pytest.param(
            {"ask": math.nan, "last": 3e4}, PriceSource.LAST, IvStatus.ABOVE_MAXIMUM, id="above"
        ),
    ],
)
def test_price_and_status_of_a_leg(
    values: dict[str, float], source: PriceSource, status: IvStatus
) -> None:
    chain = changed(PLACE, **values)
    assert_consistent(chain)
    assert chain.legs["price_source"][PLACE] == source
    assert chain.legs["iv_status"][PLACE] == status


def test_the_last_price_is_solved_where_the_quote_is_none() -> None:
    by_last = changed(PLACE, bid=math.nan).legs["iv"][PLACE]
    by_mid = changed(PLACE).legs["iv"][PLACE]
    assert by_last > by_mid * 1.005


def test_a_deep_leg_below_intrinsic_has_no_volatility() -> None:
    chain = changed(0, bid=1_000.0, ask=1_000.1)
    assert chain.legs["iv_status"][0] == IvStatus.BELOW_INTRINSIC
    assert_consistent(chain)


def test_an_expired_chain_has_status_expired_throughout() -> None:
    chain = enrich.enrich(snapshot(ts_ingest=clock.expiry_ns(EXPIRY)), rate=RATE)
    assert (chain.legs["iv_status"] == IvStatus.EXPIRED).all()
    assert (chain.header.forward, chain.header.forward_source) == (None, "none")
    assert chain.header.aggregates.max_pain is not None
    assert_consistent(chain)
    missing = enrich.enrich(
        snapshot(with_provider_columns(), ts_ingest=clock.expiry_ns(EXPIRY) + 1_000),
        rate=RATE,
        greeks="missing",
    )
    assert (missing.legs["iv_status"] == IvStatus.EXPIRED).all()


def test_without_quotes_the_spot_is_carried_and_said_so() -> None:
    legs = legs_of_a_market()
    del legs["bid"], legs["ask"]
    chain = enrich.enrich(snapshot(legs), rate=RATE)
    assert_consistent(chain)
    assert chain.header.forward_source == "spot_carry"
    assert chain.header.forward == pytest.approx(SPOT * math.exp(RATE * YEARS))
    assert chain.header.forward_residual is None
    assert (chain.legs["price_source"] == PriceSource.LAST).all()


def test_without_any_forward_priced_legs_are_invalid_and_others_have_no_price() -> None:
    legs = legs_of_a_market()
    del legs["bid"], legs["ask"]
    legs["last"][::3] = np.nan
    chain = enrich.enrich(snapshot(legs, spot=None), rate=RATE)
    assert_consistent(chain)
    assert chain.header.forward is None
    assert chain.header.forward_source == "none"
    assert (chain.legs["iv_status"][::3] == IvStatus.NO_PRICE).all()
    assert (chain.legs["iv_status"][1::3] == IvStatus.INVALID).all()
    assert chain.header.aggregates.atm_strike is None


@pytest.mark.parametrize("side", [True, False], ids=["calls-only", "puts-only"])
def test_a_chain_of_one_side_is_solved_on_the_carried_spot(side: bool) -> None:
    kept = {name: column[side == CALLS] for name, column in legs_of_a_market().items()}
    chain = enrich.enrich(snapshot(kept), rate=RATE)
    assert_consistent(chain)
    assert chain.header.forward_source == "spot_carry"
    assert (chain.legs["iv_status"] == IvStatus.OK).any()


def test_missing_sides_leave_the_other_pairs_to_the_forward() -> None:
    kept = np.ones(STRIKES.size, np.bool_)
    kept[[36, 41, 45, 50]] = False
    chain = enrich.enrich(
        snapshot({name: column[kept] for name, column in legs_of_a_market().items()}), rate=RATE
    )
    assert_consistent(chain)
    assert chain.header.forward == pytest.approx(FORWARD, abs=1e-6)
    assert chain.header.forward_pairs == 21


def with_provider_columns() -> dict[str, Any]:
    """The market with the provider's values on every second strike."""
    legs = legs_of_a_market()
    given = (np.arange(STRIKES.size) // 2) % 2 == 0
    for name, value in (("iv", 0.2), ("delta", 0.5), ("gamma", 1e-3), ("theta", -9), ("vega", 8)):
        legs[f"{name}_provider"] = np.where(given, value, np.nan).astype(np.float32)
    legs["delta_provider"][0] = 0.0  # a placeholder
    return legs


def test_missing_computes_only_what_the_provider_lacks() -> None:
    legs = with_provider_columns()
    chain = enrich.enrich(snapshot(legs), rate=RATE, greeks="missing")
    everything = enrich.enrich(snapshot(legs), rate=RATE)
    assert_consistent(chain)
    given = np.isfinite(legs["iv_provider"]) & (legs["delta_provider"] != 0)
    assert (chain.legs["greeks_source"][given] == GreeksSource.PROVIDER).all()
    assert (chain.legs["iv"][given] == np.float64(np.float32(0.2))).all()
    assert (chain.legs["theta"][given] == -9.0).all()
    for name in ("iv", *GREEKS):
        assert np.array_equal(
            chain.legs[name][~given], everything.legs[name][~given], equal_nan=True
        )
    assert np.array_equal(chain.legs["rho"], everything.legs["rho"], equal_nan=True)
    assert (everything.legs["greeks_source"] != GreeksSource.PROVIDER).all()


def test_smile_and_aggregates_are_ours_whatever_the_provider_gives() -> None:
    legs = with_provider_columns()
    chain = enrich.enrich(snapshot(legs), rate=RATE, greeks="missing")
    everything = enrich.enrich(snapshot(legs), rate=RATE)
    assert chain.header == everything.header
    assert chain.legs["iv_fit"].tobytes() == everything.legs["iv_fit"].tobytes()


def test_smile_of_a_market_of_one_volatility_is_flat() -> None:
    chain = enrich.enrich(snapshot(), rate=RATE)
    assert chain.header.smile is not None
    assert chain.header.smile.status == "ok"
    assert chain.header.smile.error == pytest.approx(0.0, abs=0.01)
    near = np.abs(STRIKES - FORWARD) < 500
    assert chain.legs["iv_fit"][near] == pytest.approx(SMILE, abs=1e-4)


def test_stale_last_prices_do_not_bend_the_smile_of_the_quotes() -> None:
    legs = legs_of_a_market()
    stale = slice(10, None, 7)
    for name in ("bid", "ask"):
        legs[name] = legs[name].copy()
        legs[name][stale] = math.nan
    legs["last"] = legs["last"] * np.where(np.isnan(legs["bid"]), 1.3, 1.0)
    chain = enrich.enrich(snapshot(legs), rate=RATE)
    near = np.abs(STRIKES - FORWARD) < 500
    assert chain.legs["iv_fit"][near] == pytest.approx(SMILE, abs=2e-3)
    assert np.abs(chain.legs["iv"][near] - SMILE).max() > 0.01


def test_chain_that_tells_too_little_has_no_smile() -> None:
    legs = {name: column[36:44] for name, column in legs_of_a_market().items()}
    chain = enrich.enrich(snapshot(legs), rate=RATE)
    assert chain.header.smile is None
    assert np.isnan(chain.legs["iv_fit"]).all()
    assert np.isfinite(chain.legs["iv"]).all()


def test_a_leg_of_no_kind_is_invalid() -> None:
    chain = changed(PLACE, kind=7)
    assert_consistent(chain)
    assert chain.legs["iv_status"][PLACE] == IvStatus.INVALID


def test_an_empty_chain_is_enriched_to_an_empty_one() -> None:
    empty = {name: column[:0] for name, column in legs_of_a_market().items()}
    chain = enrich.enrich(snapshot(empty), rate=RATE)
    assert_consistent(chain)
    assert chain.header.n == 0
    assert chain.header.aggregates.max_pain is None


def test_the_same_snapshot_gives_the_same_bytes_whatever_came_before() -> None:
    first = frames.encode_frame(enrich.enrich(snapshot(), rate=RATE))
    changed(3, bid=math.nan)
    enrich.enrich(snapshot(spot=None), rate=RATE)
    legs = frames.decode_frame(first).legs  # read-only views this time
    given = {name: legs[name] for name in legs_of_a_market()}
    assert frames.encode_frame(enrich.enrich(snapshot(given), rate=RATE)) == first


def test_the_snapshot_is_left_as_it_was() -> None:
    legs = with_provider_columns()
    before = {name: column.tobytes() for name, column in legs.items()}
    enrich.enrich(snapshot(legs), rate=RATE, greeks="missing")
    assert {name: column.tobytes() for name, column in legs.items()} == before


def test_columns_that_differ_in_length_are_refused() -> None:
    with pytest.raises(ValueError, match="column bid"):
        enrich.enrich(snapshot(legs_of_a_market() | {"bid": np.zeros(3)}), rate=RATE)


any_float = st.floats() | st.sampled_from([0.0, 100.0, 110.0, 5.0, 5.1])
any_leg = st.tuples(
    any_float,
    st.integers(0, 3),
    any_float,
    any_float,
    any_float,
    st.integers(0, 10**9) | st.just(NULL_INTEGER),
    st.floats(width=32),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(any_leg, max_size=10),
    st.none() | st.floats(),
    st.integers(-(10**18), 10**18),
    st.sampled_from(["all", "missing"]),
)
def test_no_data_makes_it_raise(
    rows: list[tuple[Any, ...]], spot: float | None, offset_ns: int, greeks: str
) -> None:
    names = ("strike", "kind", "bid", "ask", "last", "open_interest", "iv_provider")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    legs = {name: np.array(column) for name, column in zip(names, columns, strict=True)}
    legs["kind"] = legs["kind"].astype(np.uint8)
    legs["open_interest"] = legs["open_interest"].astype(np.int64)
    for name in ("delta", "gamma", "theta", "vega"):
        legs[f"{name}_provider"] = legs["iv_provider"]
    with np.errstate(over="ignore"):
        chain = enrich.enrich(
            snapshot(legs, spot=spot, ts_ingest=TS_INGEST + offset_ns), rate=RATE, greeks=greeks
        )
    assert_consistent(chain)
    assert msgspec.json.encode(chain.header)


def recorded_chain() -> EnrichedChain:
    folder = recordings.shared_dir()
    if folder is None:
        pytest.skip("no recorded chain beside the checkout; the synthetic market stands in")
    body = (folder / "data/dhan" / RECORDED).read_bytes()
    index = json.loads((folder / "data/dhan/dhan_v2_recordings_index.json").read_text())
    entry = next(entry for entry in index if entry["file"] == RECORDED)
    received = parsedate_to_datetime(entry["http_date"]).astimezone(UTC)
    assert received == datetime(2025, 1, 28, 9, 33, 32, tzinfo=UTC)
    asked = RequestContext(
        provider="dhan",
        underlying="NIFTY",
        expiry=date(2025, 1, 30),
        security_id=13,
        segment="IDX_I",
        path="/optionchain",
        status=200,
    )
    return enrich.enrich(dhan_chain.map_chain(body, asked, clock.to_ns(received)), rate=RATE)


def test_the_recorded_live_chain_gives_one_volatility_for_call_and_put() -> None:
    chain = recorded_chain()
    assert_consistent(chain)
    header, legs = chain.header, chain.legs
    assert header.forward == pytest.approx(22_980.24, abs=0.05)
    assert (header.forward_source, header.forward_pairs) == ("parity", 21)
    is_call = legs["kind"] == Kind.CALL
    strikes = legs["strike"][is_call]
    middle = int(np.argmin(np.abs(strikes - header.forward)))
    near = slice(middle - 10, middle + 11)
    call, put = (
        {name: legs[name][side][near] for name in ("iv", "iv_provider", "price_source")}
        for side in (is_call, ~is_call)
    )
    assert (call["price_source"] == PriceSource.MID).all()
    assert (put["price_source"] == PriceSource.MID).all()
    gap = 100 * np.abs(call["iv"] - put["iv"])
    assert np.median(gap) <= 0.1
    assert gap.max() <= 0.25
    # The provider prints zero where it finds no volatility, and so it counts here.
    theirs = 100 * np.abs(np.nan_to_num(call["iv_provider"]) - np.nan_to_num(put["iv_provider"]))
    assert np.median(theirs) == pytest.approx(2.04, abs=0.01)
    assert theirs.max() == pytest.approx(18.9, abs=0.05)


def test_the_recorded_live_chain_has_a_status_for_every_leg() -> None:
    chain = recorded_chain()
    counts = np.bincount(chain.legs["iv_status"], minlength=10)
    assert chain.header.n == 498
    assert counts[IvStatus.NO_PRICE] == 280
    assert counts[IvStatus.OK] + counts[IvStatus.ILL_CONDITIONED] > 180
    assert (np.bincount(chain.legs["price_source"])[1:] == [218]).all()
