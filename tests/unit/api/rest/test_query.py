"""What query parameters mean, and how a wrong one is told."""

from datetime import UTC, datetime

import pytest

from api.errors import ApiError
from api.rest.query import (
    Query,
    around,
    choice,
    flag,
    instant,
    integer,
    limit,
    listed,
    number,
    parse_instant,
)
from pipeline.clock import to_ns

QUERY = Query(
    number("strike.gte", ""),
    choice("kind", "", "call", "put"),
    around(),
    listed("fields", "", at_most=3, known=("iv", "delta", "last")),
    limit(),
    instant("start", ""),
    flag("verbose", ""),
    integer("offset", "", default=0),
)


def told(*pairs: tuple[str, str]) -> list[str]:
    with pytest.raises(ApiError) as caught:
        QUERY.parse(pairs)
    assert caught.value.status == 400
    return [error["parameter"] for error in caught.value.errors]


def test_nothing_given_is_the_defaults() -> None:
    values = QUERY.parse([])
    assert values["limit"] == 1_000
    assert values["kind"] is None


def test_values_are_parsed() -> None:
    values = QUERY.parse([("strike.gte", "25000.5"), ("kind", "put"), ("fields", "iv, last,iv")])
    assert values["strike.gte"] == 25_000.5
    assert values["kind"] == "put"
    assert values["fields"] == ("iv", "last")


def test_integer_has_a_sign_and_a_default() -> None:
    assert QUERY.parse([("offset", "-1")])["offset"] == -1
    assert QUERY.parse([("offset", "123456789")])["offset"] == 123_456_789
    assert QUERY.parse([])["offset"] == 0


@pytest.mark.parametrize(
    ("text", "means"), [("true", True), ("True", True), ("false", False), ("FALSE", False)]
)
def test_flag_is_read_in_any_case(text: str, means: bool) -> None:
    assert QUERY.parse([("verbose", text)])["verbose"] is means
    assert QUERY.parse([])["verbose"] is False


@pytest.mark.parametrize("text", ["atm±10", "atm+-10", "atm -10", "atm+10", "10", "ATM +/-10"])
def test_around_is_read_as_people_type_it(text: str) -> None:
    assert QUERY.parse([("around", text)])["around"] == 10


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nope", "1"),
        ("verbose", "1"),
        ("offset", "1.0"),
        ("offset", "1234567890"),
        ("offset", "٣"),
        ("strike.gte", "x"),
        ("strike.gte", "nan"),
        ("strike.gte", "inf"),
        ("kind", "CE"),
        ("around", "atm"),
        ("around", "atm±99999"),
        ("fields", ""),
        ("fields", "iv,nope"),
        ("limit", "0"),
        ("limit", "10001"),
        ("limit", "-1"),
        ("limit", "１０"),
        ("start", "yesterday"),
        ("start", "2026-01-20T09:15:00"),
        ("start", "2026-02-30"),
        ("start", "9" * 25),
        ("start", "1768880700"),
        ("start", "1768880700000001"),
        ("start", "99999999999999"),
    ],
)
def test_wrong_parameter_is_named(name: str, text: str) -> None:
    assert told((name, text)) == [name]


def test_repeated_parameter_is_wrong() -> None:
    assert told(("kind", "call"), ("kind", "put")) == ["kind"]


def test_every_wrong_parameter_is_named() -> None:
    assert told(("kind", "x"), ("limit", "x"), ("zzz", "")) == ["kind", "limit", "zzz"]


@pytest.mark.parametrize(
    ("text", "instant_of"),
    [
        ("2026-01-20", datetime(2026, 1, 19, 18, 30, tzinfo=UTC)),
        ("2026-01-20T09:15:00+05:30", datetime(2026, 1, 20, 3, 45, tzinfo=UTC)),
        ("2026-01-20T09:15:00 05:30", datetime(2026, 1, 20, 3, 45, tzinfo=UTC)),
        ("2026-01-20T03:45:00.000001Z", datetime(2026, 1, 20, 3, 45, 0, 1, tzinfo=UTC)),
        ("1768880700000001000", datetime(2026, 1, 20, 3, 45, 0, 1, tzinfo=UTC)),
        ("1768880700001", datetime(2026, 1, 20, 3, 45, 0, 1_000, tzinfo=UTC)),
        ("100000000000", datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        ("100000000000000000", datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_instants_are_read(text: str, instant_of: datetime) -> None:
    assert parse_instant(text) == to_ns(instant_of)
