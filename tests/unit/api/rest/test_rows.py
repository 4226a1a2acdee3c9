"""Windows over the rows of a chain."""

import json

import msgspec
import pytest

from api.rest.rows import Window, select_rows

STRIKES = (24_900.0, 24_950.0, 25_000.0, 25_050.0, 25_100.0)
ROWS = [
    {"symbol": f"N-{strike:.0f}-{kind}", "strike": strike, "kind": kind, "iv": None, "last": 1.5}
    for strike in STRIKES
    for kind in ("call", "put")
]
ENCODED = msgspec.Raw(json.dumps(ROWS).encode())


def chosen(atm: float | None = 25_010.0, **window: object) -> list[dict[str, object]]:
    rows, n = select_rows(ENCODED, len(ROWS), Window(**window), atm)  # type: ignore[arg-type]
    values: list[dict[str, object]] = json.loads(bytes(rows))
    assert len(values) == n
    return values


def strikes(**window: object) -> list[float]:
    return sorted({row["strike"] for row in chosen(**window)})  # type: ignore[type-var]


def test_whole_chain_passes_as_the_same_bytes() -> None:
    assert select_rows(ENCODED, 10, Window(), None)[0] is ENCODED


def test_strike_bounds_are_included() -> None:
    assert strikes(strike_from=24_950, strike_to=25_050) == [24_950, 25_000, 25_050]


def test_kind_keeps_one_side() -> None:
    assert {row["kind"] for row in chosen(kind="put")} == {"put"}


@pytest.mark.parametrize(
    ("around", "expected"),
    [(0, [25_000]), (1, [24_950, 25_000, 25_050]), (9, list(STRIKES))],
)
def test_around_counts_strikes_on_each_side(around: int, expected: list[float]) -> None:
    assert strikes(around=around) == expected


def test_around_without_a_price_leaves_nothing_out() -> None:
    assert strikes(around=0, atm=None) == list(STRIKES)


def test_fields_cut_rows_to_their_names() -> None:
    assert chosen(around=0, kind="call", fields=("last", "iv")) == [{"last": 1.5, "iv": None}]


def test_pairs_have_one_element_a_strike() -> None:
    (pair,) = chosen(around=0, in_pairs=True)
    assert (pair["strike"], pair["call"]["kind"], pair["put"]["kind"]) == (25_000, "call", "put")  # type: ignore[index]


def test_missing_side_of_a_pair_is_null() -> None:
    (pair,) = chosen(around=0, in_pairs=True, kind="put")
    assert pair["call"] is None
