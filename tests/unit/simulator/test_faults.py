"""Faults: each spoils what it says, as often as it was told."""

import json
import math
from datetime import date
from typing import Any

import msgspec
import pytest

from workers.simulator import answers, exchange, faults
from workers.simulator.faults import Faults, spoil
from workers.simulator.market import Market

NOW_NS = 1_769_400_000_000_000_000
EXPIRY = date(2026, 1, 27)
BODY = answers.chain(Market(5).chain(exchange.BY_NAME["FINNIFTY"], EXPIRY, NOW_NS))


def legs(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [leg for sides in document["data"]["oc"].values() for leg in sides.values() if leg]


def spoilt(kind: str) -> dict[str, Any]:
    answer = spoil(kind, BODY, None)
    assert answer.status == 200
    document: dict[str, Any] = json.loads(answer.body)
    return document


def test_order_is_counted_down_and_matches_only_what_it_names() -> None:
    waiting = Faults()
    waiting.order(b'{"kind":"zeros","count":2,"underlying":"NIFTY"}')
    waiting.order(b'{"kind":"truncated","expiry":"2026-02-24"}')
    assert waiting.take("SENSEX", EXPIRY) is None
    assert [waiting.take("NIFTY", EXPIRY) for _ in range(3)] == ["zeros", "zeros", None]
    assert waiting.take("SENSEX", date(2026, 2, 24)) == "truncated"
    assert waiting.waiting == ()


def test_clear_forgets_every_order() -> None:
    waiting = Faults()
    waiting.order(b'{"kind":"stale","count":9}')
    waiting.clear()
    assert waiting.take("NIFTY", EXPIRY) is None


@pytest.mark.parametrize(
    "order", [b'{"kind":"strange"}', b'{"kind":"zeros","count":0}', b'{"kind":"zeros","x":1}', b"{"]
)
def test_order_that_makes_no_sense_is_refused(order: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Faults().order(order)


@pytest.mark.parametrize("kind", faults.KINDS)
def test_every_kind_gives_an_answer(kind: str) -> None:
    assert spoil(kind, BODY, "before").body != BODY


def test_truncated_body_is_no_json() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(spoil("truncated", BODY, None).body)


def test_proxy_page_is_html_with_502() -> None:
    answer = spoil("html_502", BODY, None)
    assert (answer.status, answer.media_type) == (502, "text/html")
    assert answer.body.startswith("<html>")


def test_error_comes_with_status_200() -> None:
    assert spoilt("error_200") == {"data": {"806": "Data APIs not subscribed"}, "status": "failed"}


def test_zeros_leave_no_number() -> None:
    document = spoilt("zeros")
    assert document["data"]["last_price"] == 0
    values = [value for leg in legs(document) for value in leg.values()]
    assert all(not any(v.values()) if isinstance(v, dict) else v == 0 for v in values)


def test_sides_are_absent_or_null() -> None:
    sides = list(spoilt("missing_side")["data"]["oc"].values())
    assert "pe" not in sides[0]
    assert sides[1]["ce"] is None
    assert sides[2]["ce"]
    assert sides[2]["pe"]


def test_strikes_are_nan() -> None:
    strikes = list(spoilt("nan_strike")["data"]["oc"])
    assert any(math.isnan(float(one)) for one in strikes if one != "at the money")
    assert "at the money" in strikes


def test_settled_chain_has_neither_book_nor_greeks() -> None:
    for leg in legs(spoilt("expired")):
        assert leg["top_bid_price"] == leg["top_ask_price"] == leg["implied_volatility"] == 0
        assert not any(leg["greeks"].values())


def test_greeks_are_null_and_fields_unheard_of() -> None:
    assert all(leg["greeks"] is None for leg in legs(spoilt("null_greeks")))
    assert "phase" in legs(spoilt("unknown_field"))[0]


def test_stale_answer_is_the_one_before() -> None:
    assert spoil("stale", BODY, "before").body == "before"
    assert spoil("stale", BODY, None).body == BODY
