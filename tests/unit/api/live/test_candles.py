import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.live.candles import KEPT, Series, parse_rest, quote_of
from api.live.channels import Refused
from pipeline import frames
from pipeline.buckets import Candle, bucket_start, joined, with_volumes
from pipeline.clock import SECOND_NS
from pipeline.models import market_snapshot
from tests.support import chains

OPEN_NS = chains.TS_INGEST // (60 * SECOND_NS) * 60 * SECOND_NS
CHAIN = chains.enriched(3)
TEXTS = frames.encode_client_json(CHAIN, market_snapshot(CHAIN.header), frames.Position("e1", 1, 1))


def candles_of(series: Series) -> list[dict[str, object]]:
    return [msgspec.json.decode(row) for row in series.rows().values()]


def at(seconds: float) -> int:
    return OPEN_NS + int(seconds * SECOND_NS)


def test_candle_forms_and_is_closed_by_the_next() -> None:
    series = Series(60)
    for seconds, price in ((1, 10.0), (20, 12.0), (40, 9.0), (59, 11.0), (60, 11.5)):
        assert series.add(at(seconds), price, None)
    closed, forming = candles_of(series)
    assert closed == {
        "starts": OPEN_NS, "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "closed": True,
    }  # fmt: skip
    assert (forming["starts"], forming["open"], forming["closed"]) == (at(60), 11.5, False)


def test_candle_is_closed_by_the_clock_where_nothing_follows() -> None:
    series = Series(60)
    series.add(at(30), 10.0, None)
    assert not series.pass_time(at(60.5))  # what was received in it may be on its way
    assert series.pass_time(at(61))
    assert candles_of(series)[0]["closed"] is True
    assert not series.pass_time(at(62))


def test_value_that_comes_late_is_put_into_its_candle() -> None:
    series = Series(60)
    series.add(at(30), 10.0, None)
    series.pass_time(at(61))
    assert series.add(at(59.9), 12.0, None)
    (candle,) = candles_of(series)
    assert (candle["high"], candle["close"], candle["closed"]) == (12.0, 12.0, True)


def test_volume_is_what_was_traded_since_the_value_before() -> None:
    series = Series(60)
    for seconds, total in ((1, 1_000), (30, 1_150), (61, 1_200), (70, 1_200)):
        series.add(at(seconds), 10.0, total)
    assert [candle["volume"] for candle in candles_of(series)] == [150, 50]


def test_value_without_a_price_makes_no_candle() -> None:
    series = Series(60)
    assert not series.add(at(1), None, 100)
    assert series.rows() == {}
    series.add(at(2), 10.0, 130)
    assert candles_of(series)[0]["volume"] == 30


def test_stored_candles_stand_before_what_forms() -> None:
    series = Series(60)
    stored = {"open": 8.0, "high": 20.0, "low": 7.0, "close": 9.0, "volume": 500}
    past = [
        {"starts": at(-60), "closed_at": at(-5), **stored},
        {"starts": at(0), "closed_at": at(7), **stored},
    ]
    series.begin(past, {"closed_at": at(7), "volume": 9_000}, at(10))
    assert not series.add(at(6), 10.0, 8_990)  # it is in there
    assert series.add(at(20), 10.0, 9_100)
    before, forming = candles_of(series)
    assert (before["closed"], before["volume"]) == (True, 500)
    assert forming == {"starts": at(0), **stored, "close": 10.0, "volume": 600, "closed": False}


def test_volume_of_the_first_candle_of_a_day_is_all_of_that_day() -> None:
    series = Series(60)
    series.begin([], {"closed_at": at(-86_400), "volume": 90_000}, at(0))
    series.add(at(1), 10.0, 300)
    series.add(at(2), 10.0, 250)  # the provider took something back
    series.add(at(3), 10.0, 270)
    assert candles_of(series)[0]["volume"] == 320


def test_value_out_of_its_order_closes_no_candle_and_counts_nothing() -> None:
    series = Series(60)
    series.add(at(10), 10.0, 100)
    series.add(at(30), 11.0, 200)
    assert series.add(at(20), 12.0, 150)
    assert not series.add(at(20), 12.0, 150)
    series.add(at(40), 11.5, 210)
    (candle,) = candles_of(series)
    assert (candle["high"], candle["close"], candle["volume"]) == (12.0, 11.5, 110)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 5_000), st.integers(1, 99), st.integers(0, 9)),
        min_size=1,
        max_size=30,
        unique_by=lambda value: value[0],
    ),
    st.integers(0, 40),
    st.sampled_from([7, 60, 900]),
)
def test_candles_that_form_are_those_that_are_stored(
    values: list[tuple[int, int, int]], seen: int, interval_s: int
) -> None:
    """Whatever part of the values was stored before the series began."""
    total, told = 0, []
    for seconds, price, traded in sorted(values):
        total += traded
        told.append((at(seconds), float(price), total))
    stored = _stored(told, interval_s)
    series = Series(interval_s)
    if told[:seen]:
        newest, volume = told[:seen][-1][0], told[:seen][-1][2]
        day = {"closed_at": newest, "volume": volume}
        series.begin(_stored(told[:seen], interval_s)[-KEPT:], day, newest)
    for value in told[max(0, seen - 1) :]:
        series.add(*value)
    formed = candles_of(series)
    names = ("starts", "open", "high", "low", "close", *(["volume"] if seen else []))
    expected = [[one[name] for name in names] for one in stored]
    assert [[one[name] for name in names] for one in formed] == expected[-KEPT:]


def _stored(told: list[tuple[int, float, int]], interval_s: int) -> list[Candle]:
    """Candles of values as `pipeline.candles` makes them."""
    found: list[Candle] = []
    for ts_ns, price, total in told:
        starts = bucket_start(ts_ns, interval_s)
        prices = dict.fromkeys(("open", "high", "low", "close"), price)
        one: Candle = {"starts": starts, **prices, "n": 1, "closed_at": ts_ns}
        one["volume_total"] = total
        if found and found[-1]["starts"] == starts:
            found[-1] = joined(found[-1], one)
        else:
            found.append(one)
    with_volumes(found, None)
    return found


@given(st.lists(st.tuples(st.integers(0, 200 * 60), st.floats(1, 1e6)), max_size=80))
def test_newest_candles_are_kept_in_order_with_one_forming(values: list[tuple[int, float]]) -> None:
    series = Series(60)
    for seconds, price in sorted(values):
        series.add(at(seconds), price, None)
    found = candles_of(series)
    starts = [candle["starts"] for candle in found]
    expected = sorted({at(seconds // 60 * 60) for seconds, _ in values})
    assert starts == expected[-KEPT:]
    assert [candle["closed"] for candle in found] == [True] * (len(found) - 1) + [False] * bool(
        found
    )


def test_quotes_of_contracts_and_underlyings() -> None:
    (contract, *_) = TEXTS.contracts.values()
    row = msgspec.json.decode(contract)["row"]
    assert quote_of(contract) == (chains.TS_INGEST, row["last"], row["volume"])
    assert quote_of(TEXTS.underlying) == (chains.TS_INGEST, chains.SPOT, None)
    with pytest.raises(msgspec.ValidationError):
        quote_of(TEXTS.chain)


def test_names_of_candle_channels() -> None:
    assert parse_rest("NIFTY:5m") == ("NIFTY", 300)
    assert parse_rest("NIFTY-20260127-25000-CE:1d") == ("NIFTY-20260127-25000-CE", 86_400)


@pytest.mark.parametrize(
    "rest", ["NIFTY", "NIFTY:0m", "NIFTY:2d", "NIFTY-20260127:1m", ":1m", "X:m"]
)
def test_names_that_have_no_candles_are_refused(rest: str) -> None:
    with pytest.raises(Refused):
        parse_rest(rest)
