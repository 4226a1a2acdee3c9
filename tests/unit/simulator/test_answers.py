"""The wire form: recorded bodies written anew must come out byte for byte."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.recordings import shared_dir
from workers.simulator import answers, exchange
from workers.simulator.instruments import Instrument
from workers.simulator.market import ChainColumns, Market

NOW_NS = 1_769_400_000_000_000_000  # 2026-01-26 09:30 IST
NAMES = {
    "average": "average_price",
    "last": "last_price",
    "bid": "top_bid_price",
    "bid_quantity": "top_bid_quantity",
    "ask": "top_ask_price",
    "ask_quantity": "top_ask_quantity",
    "volume": "volume",
    "open_interest": "oi",
    "previous_close": "previous_close_price",
    "previous_volume": "previous_volume",
    "previous_open_interest": "previous_oi",
    "iv_percent": "implied_volatility",
}
QUANTITIES = ("bid_quantity", "ask_quantity", "volume", "open_interest")
WHOLE = {*QUANTITIES, "previous_volume", "previous_open_interest"}


def columns_of(body: str) -> ChainColumns:
    """The numbers of a body, its negative zeros kept."""
    document = json.loads(body, parse_int=lambda text: -0.0 if text == "-0" else int(text))
    chain = document["data"]["oc"]
    legs = [leg for sides in chain.values() for leg in (sides["ce"], sides["pe"])]
    has_ids = "security_id" in legs[0]
    columns: dict[str, Any] = {
        name: np.array([leg.get(key, 0) for leg in legs], np.int64 if name in WHOLE else np.float64)
        for name, key in NAMES.items()
    }
    greeks: dict[str, Any] = {
        name: np.array([leg["greeks"][name] for leg in legs], np.float64)
        for name in ("delta", "theta", "gamma", "vega")
    }
    return ChainColumns(
        spot=float(document["data"]["last_price"]),
        strikes=np.array([float(strike) for strike in chain]),
        ids=np.array([leg["security_id"] for leg in legs]) if has_ids else None,
        **columns,
        **greeks,
    )


def recorded(pattern: str) -> list[Path]:
    shared = shared_dir()
    return sorted((shared / "data/dhan").glob(pattern)) if shared else []


def test_recorded_chains_written_anew_are_the_same_bytes() -> None:
    files = recorded("dhan_v2_optionchain_*.json")
    if not files:
        pytest.skip("no recorded chains beside the checkout")
    for file in files:
        body = file.read_text()
        assert answers.chain(columns_of(body)) == body, file.name


def test_simulated_chain_read_and_written_again_is_the_same_bytes() -> None:
    underlying = exchange.BY_NAME["NIFTY"]
    columns = Market(5).chain(underlying, date(2026, 1, 27), NOW_NS)
    body = answers.chain(columns)
    assert answers.chain(columns_of(body)) == body
    assert answers.chain(columns._replace(ids=None)) == answers.chain(
        columns_of(answers.chain(columns._replace(ids=None)))
    )


def test_leg_has_the_provider_keys_in_their_order() -> None:
    columns = Market(5).chain(exchange.BY_NAME["SENSEX"], date(2026, 1, 29), NOW_NS)
    document = json.loads(answers.chain(columns))
    assert list(document) == ["data", "status"]
    assert list(document["data"]) == ["last_price", "oc"]
    for sides in document["data"]["oc"].values():
        assert list(sides) == ["ce", "pe"]
        for leg in sides.values():
            assert list(leg) == sorted(leg)
            assert set(leg) == {*NAMES.values(), "greeks", "security_id"}
            assert list(leg["greeks"]) == ["delta", "theta", "gamma", "vega"]


def test_leg_of_2025_lacks_average_and_id() -> None:
    columns = Market(5).chain(exchange.BY_NAME["NIFTY"], date(2026, 1, 27), NOW_NS)
    document = json.loads(answers.chain(columns._replace(ids=None)))
    leg = next(iter(document["data"]["oc"].values()))["ce"]
    assert set(leg) == {*NAMES.values(), "greeks"} - {"average_price"}


def test_strikes_are_six_decimal_keys_ascending_and_no_number_has_an_idle_form() -> None:
    body = answers.chain(Market(5).chain(exchange.BY_NAME["NIFTY"], date(2026, 1, 27), NOW_NS))
    keys = re.findall(r'"(\d+\.\d+)":\{"ce"', body)
    assert all(re.fullmatch(r"\d+\.\d{6}", key) for key in keys)
    assert [float(key) for key in keys] == sorted(map(float, keys))
    assert len(keys) == 241
    numbers = re.findall(r'":(-?[\d.eE+-]+)', body)
    assert all(re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", number) for number in numbers)
    assert '"theta":-0,' in body
    assert "null" not in body


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (134.0, "134"),
        (0.0, "0"),
        (-0.0, "-0"),
        (14.11004510844025, "14.11004510844025"),
        (2.5e-05, "0.000025"),
        (23092.19921875, "23092.19921875"),
        (1e16, "10000000000000000"),
    ],
)
def test_number_has_its_shortest_digits_without_exponent(value: float, text: str) -> None:
    assert answers.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.530391, "0.53039"),
        (-31.6034, "-31.6034"),
        (0.00001, "0.00001"),
        (-0.0000049, "-0"),
        (0.0000049, "0"),
        (0.0, "0"),
        (-0.0, "-0"),
        (0.000005001, "0.00001"),
        (120.0, "120"),
        (-1.0, "-1"),
    ],
)
def test_greek_is_rounded_to_five_decimals(value: float, text: str) -> None:
    assert answers.rounded(value) == text


def test_expiry_list_matches_the_recorded_form() -> None:
    days = [date(2025, 1, 30), date(2025, 2, 6)]
    assert answers.expiry_list(days) == '{"data":["2025-01-30","2025-02-06"],"status":"success"}'
    for file in recorded("dhan_v2_expirylist_*.json"):
        listed = [date.fromisoformat(day) for day in json.loads(file.read_text())["data"]]
        assert answers.expiry_list(listed) == file.read_text()


DEAD = Instrument(0.0, lower_limit=0.05, upper_limit=20.05)


def test_feed_answers_match_the_recorded_ones_of_dead_and_unknown_instruments() -> None:
    assert answers.feed("ltp", {"NSE_EQ": {13247: DEAD}}) == (
        '{"data":{"NSE_EQ":{"13247":{"last_price":0}}},"status":"success"}'
    )
    assert answers.feed("ltp", {"NSE_EQ": {}, "BSE_EQ": {}}) == (
        '{"data":{"BSE_EQ":{},"NSE_EQ":{}},"status":"success"}'
    )
    assert answers.feed("ohlc", {"NSE_FNO": {49081: DEAD}}) == (
        '{"data":{"NSE_FNO":{"49081":{"last_price":0,'
        '"ohlc":{"open":0,"close":0,"high":0,"low":0}}}},"status":"success"}'
    )
    for file in recorded("dhan_v2_marketfeed_quote_dead_*.json"):
        assert answers.feed("quote", {"NSE_FNO": {49081: DEAD}}) == file.read_text()


def test_error_bodies_have_the_code_as_key() -> None:
    assert answers.data_error(805) == (
        429,
        '{"data":{"805":"Too many requests. Further requests may result in the user being '
        'blocked."},"status":"failed"}',
    )
    assert {code: status for code, (status, _text) in answers.ERRORS.items()} == {
        **{800: 500, 804: 400, 805: 429, 806: 401, 807: 401, 808: 401, 809: 401, 810: 401},
        **{811: 400, 812: 400, 813: 400, 814: 400},
    }


def test_unknown_path_gets_the_recorded_shape() -> None:
    assert answers.http_error(404, "Not Found", "/v2/nothing", 1_737_794_954_581_000_000) == (
        '{"timestamp":1737794954581,"status":404,"error":"Not Found","path":"/v2/nothing"}'
    )
