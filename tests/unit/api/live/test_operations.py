"""What clients say on the socket, well and badly."""

import json

import msgspec
import pytest

from api.live.channels import Channel, Refused
from api.live.kinds import parse_channel
from api.live.operations import (
    Malformed,
    Subscribe,
    decode_operation,
    parse_fields,
)


def decoded(text: str) -> object:
    return decode_operation({"text": text}, False)


def test_subscribe_is_decoded_with_its_defaults() -> None:
    operation = decoded('{"op":"subscribe","id":7,"channels":["underlying:NIFTY"]}')
    assert operation == Subscribe(id=7, channels=["underlying:NIFTY"], interval_ms=250)


def test_msgpack_is_decoded_where_it_was_agreed() -> None:
    packed = msgspec.msgpack.encode({"op": "ping", "id": "a"})
    assert decode_operation({"bytes": packed}, True).id == "a"
    with pytest.raises(Malformed):
        decode_operation({"bytes": packed}, False)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '"x"', "[" * 5_000, "nan"])
def test_what_is_no_object_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        decoded(text)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({}, "unknown_op"),
        ({"op": "drop"}, "unknown_op"),
        ({"op": ["auth"]}, "unknown_op"),
        ({"op": "auth"}, "invalid_op"),
        ({"op": "auth", "token": 1}, "invalid_op"),
        ({"op": "auth", "token": "x", "more": 1}, "invalid_op"),
        ({"op": "subscribe", "channels": "x"}, "invalid_op"),
        ({"op": "subscribe", "channels": [], "interval_ms": 5}, "invalid_op"),
        ({"op": "ping", "id": {}}, "invalid_op"),
    ],
    ids=str,
)
def test_wrong_operation_is_refused_with_a_code(message: object, code: str) -> None:
    with pytest.raises(Refused) as caught:
        decoded(json.dumps(message))
    assert caught.value.code == code


def test_refusal_carries_the_id_of_the_operation() -> None:
    with pytest.raises(Refused) as caught:
        decoded('{"op":"fly","id":3}')
    assert caught.value.operation_id == 3


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("underlying:NIFTY", Channel("underlying", "NIFTY")),
        ("chain:NIFTY-20260127", Channel("chain", "NIFTY-20260127")),
        ("chain:NIFTY-nearest", Channel("chain", "NIFTY-nearest")),
        ("contract:M&M-20260127-25000.5-PE", Channel("contract", "M&M-20260127-25000.5-PE")),
    ],
)
def test_channel_is_parsed(name: str, channel: Channel) -> None:
    assert parse_channel(name) == channel
    assert channel.name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "NIFTY",
        "underlying:",
        "underlying:NIFTY-20260127",
        "chain:NIFTY",
        "chain:NIFTY-20261327",
        "contract:NIFTY-20260127-x-CE",
        "health:NIFTY",
        "underlying:NI FTY",
        "underlying:NI*FTY!",
        "contract:*-CE",
    ],
)
def test_wrong_channel_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        parse_channel(name)


def test_fields_keep_the_order_of_rows() -> None:
    assert parse_fields(["vega", "symbol", "last"]) == ("last", "vega")
    with pytest.raises(Refused):
        parse_fields(["last", "colour"])
