"""What is refused, and with which of the provider's codes."""

import json
from datetime import date
from typing import Any

import pytest

from workers.simulator import exchange, requests
from workers.simulator.requests import Refused

CHAIN = {"UnderlyingScrip": 13, "UnderlyingSeg": "IDX_I", "Expiry": "2026-01-27"}


@pytest.mark.parametrize(
    ("headers", "accepted", "code"),
    [
        pytest.param({}, "", 808, id="no headers"),
        pytest.param({"access-token": "abc"}, "", 808, id="no client id"),
        pytest.param({"client-id": "1000"}, "", 808, id="no token"),
        pytest.param({"access-token": "abc", "client-id": "a b"}, "", 810, id="odd client id"),
        pytest.param({"access-token": "a b", "client-id": "1000"}, "", 809, id="odd token"),
        pytest.param({"access-token": "invalid", "client-id": "1"}, "", 809, id="says invalid"),
        pytest.param({"access-token": "expired.x", "client-id": "1"}, "", 807, id="says expired"),
        pytest.param({"access-token": "abc", "client-id": "1"}, "abd", 809, id="another token"),
    ],
)
def test_bad_credentials_are_refused(headers: dict[str, str], accepted: str, code: int) -> None:
    with pytest.raises(Refused) as refused:
        requests.client_of(headers, accepted)
    assert refused.value.code == code


def test_well_formed_credentials_pass() -> None:
    headers = {"access-token": "eyJ0.eyJp.s1-g_", "client-id": "1000000001"}
    assert requests.client_of(headers, "") == "1000000001"
    assert requests.client_of(headers, "eyJ0.eyJp.s1-g_") == "1000000001"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"UnderlyingScrip": 99}, 813, id="unknown underlying"),
        pytest.param({"UnderlyingSeg": "NSE_EQ"}, 813, id="wrong segment"),
        pytest.param({"UnderlyingSeg": 0}, 814, id="segment is no text"),
        pytest.param({"UnderlyingSeg": None}, 814, id="segment is null"),
        pytest.param({"UnderlyingScrip": 13.5}, 814, id="id is a fraction"),
        pytest.param({"UnderlyingScrip": True}, 814, id="id is a truth"),
        pytest.param({"UnderlyingScrip": "x"}, 814, id="id is a word"),
        pytest.param({"Expiry": "27-01-2026"}, 812, id="date the wrong way round"),
        pytest.param({"Expiry": "2026-02-30"}, 812, id="day that is none"),
        pytest.param({"Expiry": 20260127}, 814, id="date is a number"),
    ],
)
def test_wrong_chain_requests_are_refused(change: dict[str, Any], code: int) -> None:
    with pytest.raises(Refused) as refused:
        requests.chain_request(json.dumps(CHAIN | change).encode(), has_expiry=True)
    assert refused.value.code == code


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    for read in (lambda: requests.chain_request(body, True), lambda: requests.feed_request(body)):
        with pytest.raises(Refused) as refused:
            read()
        assert refused.value.code == 814


def test_ids_may_be_text_and_unknown_keys_are_ignored() -> None:
    asked = CHAIN | {"UnderlyingScrip": "13", "dhanClientId": "1", "more": [1]}
    found = requests.chain_request(json.dumps(asked).encode(), has_expiry=True)
    assert (found.underlying.name, found.expiry) == ("NIFTY", date(2026, 1, 27))


@pytest.mark.parametrize(("scrip", "segment"), [(51, "IDX_I"), (1, "BSE_FNO"), ("51", "IDX_I")])
def test_sensex_has_two_names(scrip: Any, segment: str) -> None:
    body = json.dumps({"UnderlyingScrip": scrip, "UnderlyingSeg": segment}).encode()
    assert requests.chain_request(body, has_expiry=False).underlying is exchange.BY_NAME["SENSEX"]


def test_feed_request_keeps_segments_and_drops_the_rest() -> None:
    body = b'{"IDX_I":[13,"51"],"NSE_EQ":[],"instruments":["x"],"dhanClientId":"1"}'
    assert requests.feed_request(body) == {"IDX_I": [13, 51], "NSE_EQ": []}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b'{"NSE_FNO":49081}', 814, id="no list"),
        pytest.param(b'{"NSE_FNO":[1.5]}', 814, id="fraction"),
        pytest.param(
            json.dumps({"NSE_FNO": list(range(600)), "NSE_EQ": list(range(401))}).encode(),
            804,
            id="more than a thousand",
        ),
    ],
)
def test_wrong_feed_requests_are_refused(body: bytes, code: int) -> None:
    with pytest.raises(Refused) as refused:
        requests.feed_request(body)
    assert refused.value.code == code
