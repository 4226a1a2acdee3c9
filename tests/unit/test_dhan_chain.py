import json

import numpy as np
import pytest

from pipeline import dhan_chain
from pipeline.errors import DecodeError
from pipeline.models import COMPUTED_COLUMNS, LEG_COLUMNS, NULL_INTEGER, Kind
from tests.support import chains
from tests.support.chains import encoded, request_context


def mapped(answer: dict) -> dict:
    return dict(dhan_chain.map_chain(encoded(answer), request_context(), 1).legs)


def test_chain_runs_by_strike_with_the_call_first_and_every_column_as_long() -> None:
    snapshot = dhan_chain.map_chain(encoded(chains.body(5)), request_context(), 17)
    assert snapshot.ts_ingest == 17
    assert snapshot.spot == 25_000.0
    assert snapshot.lot == chains.LOT
    strikes = snapshot.legs["strike"].tolist()
    assert strikes == sorted(strikes)
    assert snapshot.legs["kind"].tolist() == [Kind.CALL, Kind.PUT] * 5
    assert {len(column) for column in snapshot.legs.values()} == {10}


def test_zero_prices_and_greeks_are_absent_while_zero_quantities_are_values() -> None:
    nothing = dict.fromkeys(
        [
            *("average_price", "implied_volatility", "last_price", "oi", "previous_close_price"),
            *("previous_oi", "security_id", "top_ask_price", "top_ask_quantity"),
            *("top_bid_price", "top_bid_quantity", "volume"),
        ],
        0,
    )
    legs = mapped(chains.body(3, **nothing, greeks=dict.fromkeys(("delta", "gamma"), 0)))
    for name in ("last", "bid", "ask", "average", "previous_close", "iv_provider"):
        assert np.isnan(legs[name]).all(), name
    for name in ("delta_provider", "gamma_provider", "theta_provider", "vega_provider"):
        assert np.isnan(legs[name]).all(), name
    assert legs["security_id"].tolist() == [NULL_INTEGER] * 6
    for name in ("volume", "open_interest", "bid_size", "ask_size"):
        assert legs[name].tolist() == [0] * 6, name


def test_placeholder_volatility_of_an_untraded_leg_is_absent() -> None:
    legs = mapped(chains.body(1, last_price=0, implied_volatility=9.9))
    assert np.isnan(legs["iv_provider"]).all()


def test_provider_volatility_turns_from_percent_to_decimal() -> None:
    assert mapped(chains.body(1))["iv_provider"].tolist() == pytest.approx([0.125, 0.125])


def test_missing_side_null_greeks_and_unknown_fields_are_taken() -> None:
    answer = chains.body(3)
    sides = list(answer["data"]["oc"].values())
    del sides[0]["pe"]
    sides[1]["ce"] = None
    sides[2]["ce"]["greeks"] = None
    sides[2]["pe"]["a_field_of_tomorrow"] = {"x": 1}
    legs = mapped(answer)
    assert legs["kind"].tolist() == [Kind.CALL, Kind.PUT, Kind.CALL, Kind.PUT]
    assert legs["strike"].tolist() == [24_950.0, 25_000.0, 25_050.0, 25_050.0]


def test_missing_fields_of_older_bodies_are_absent() -> None:
    answer = chains.body(1)
    for side in next(iter(answer["data"]["oc"].values())).values():
        del side["average_price"], side["security_id"]
    legs = mapped(answer)
    assert np.isnan(legs["average"]).all()
    assert legs["security_id"].tolist() == [NULL_INTEGER] * 2


def test_spot_is_rounded_from_its_float32_to_the_tick() -> None:
    answer = chains.body(1)
    answer["data"]["last_price"] = 22952.94921875
    assert dhan_chain.map_chain(encoded(answer), request_context(), 1).spot == 22_952.95


@pytest.mark.parametrize("spot", [0, -1, None])
def test_spot_that_is_no_price_is_absent(spot: float | None) -> None:
    answer = chains.body(1)
    answer["data"]["last_price"] = spot
    assert dhan_chain.map_chain(encoded(answer), request_context(), 1).spot is None


@pytest.mark.parametrize("strike", ["nan", "NaN.000000", "inf", "-50.000000", "0.000000", "abc"])
def test_strike_that_is_no_price_is_refused_by_name(strike: str) -> None:
    answer = chains.body(1)
    answer["data"]["oc"][strike] = {"ce": chains.leg(1.0), "pe": chains.leg(1.0)}
    with pytest.raises(DecodeError, match=strike):
        dhan_chain.map_chain(encoded(answer), request_context(), 1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(encoded(chains.body(3))[:-40], id="truncated"),
        pytest.param(b"<html><body>502 Bad Gateway</body></html>", id="html"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"data":{"last_price":NaN,"oc":{}}}', id="bare NaN"),
        pytest.param(b'{"data":{"805":"Too many requests"},"status":"failed"}', id="error body"),
        pytest.param(b'{"data":{"oc":{"1.0":{"ce":{"oi":"x"}}}}}', id="text for a number"),
    ],
)
def test_body_that_is_no_chain_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        dhan_chain.map_chain(body, request_context(), 1)


def test_chain_without_strikes_has_no_legs() -> None:
    assert mapped({"data": {"last_price": 1, "oc": {}}, "status": "success"})["strike"].size == 0


def test_lot_needs_enough_witnesses() -> None:
    assert dhan_chain.map_chain(encoded(chains.body(1)), request_context(), 1).lot is None
    many = json.loads(encoded(chains.body(9)))
    assert dhan_chain.map_chain(encoded(many), request_context(), 1).lot == chains.LOT


def test_strikes_in_any_order_and_notation_come_ascending() -> None:
    answer = chains.body(5)
    strikes = answer["data"]["oc"]
    shuffled = {text: strikes[text] for text in sorted(strikes, key=lambda text: text[::-1])}
    shuffled["2.49e4"] = shuffled.pop("24900.000000")
    in_order, turned = mapped(answer), mapped(answer | {"data": {"oc": shuffled}})
    assert list(shuffled) != list(strikes)
    for name, column in in_order.items():
        assert column.tobytes() == turned[name].tobytes(), name


def test_greeks_that_are_null_or_missing_are_absent_beside_their_volatility() -> None:
    answer = chains.body(3)
    legs = [leg for sides in answer["data"]["oc"].values() for leg in sides.values()]
    legs[0]["greeks"] = None
    del legs[1]["greeks"]
    legs[2]["greeks"] = {"delta": 0.25, "gamma": None}
    columns = mapped(answer)
    assert columns["iv_provider"].tolist() == [0.125] * 6
    assert np.isnan(columns["delta_provider"]).tolist() == [True, True] + [False] * 4
    assert np.isnan(columns["gamma_provider"]).tolist() == [True] * 3 + [False] * 3
    assert columns["delta_provider"][2] == 0.25


def test_columns_are_those_of_the_layout_that_a_provider_can_fill() -> None:
    legs = mapped(chains.body(2))
    assert set(legs) == {spec.name for spec in LEG_COLUMNS} - COMPUTED_COLUMNS
    for spec in LEG_COLUMNS:
        if spec.name in legs:
            assert legs[spec.name].dtype == np.dtype(spec.dtype), spec.name
