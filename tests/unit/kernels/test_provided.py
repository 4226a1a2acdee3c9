import math

import numpy as np
import pytest

from pipeline.kernels import provided

NAN, NULL = math.nan, provided.NULL_INTEGER
LAST, AVERAGE, IDENTITY, SIZE, FORMER, IV, DELTA, IS_THERE = range(8)


def cleaned(*legs: dict[int, float]) -> tuple[dict[int, list[float]], tuple[int, int, int]]:
    """Columns of legs by line, with the strike as -2 and the kind as -1; and what is returned."""
    numbers = np.full((8, len(legs)), NAN)
    for place, leg in enumerate(legs):
        for line, value in leg.items():
            numbers[line, place] = value
    room = len(legs)
    strikes, kinds = np.empty(room), np.empty(room, np.uint8)
    prices, quantities = np.empty((2, room)), np.empty((3, room), np.int64)
    computed = np.empty((2, room), np.float32)
    ladder = 100.0 + 50.0 * np.arange(room // 2)
    found = provided.clean(numbers, ladder, strikes, kinds, prices, quantities, computed)
    lines = enumerate((*prices, *quantities, *computed, strikes, kinds))
    columns = {
        line if line < 7 else line - 9: column[: found[0]].tolist() for line, column in lines
    }
    return columns, found


def leg(**changes: float) -> dict[int, float]:
    names = {"last": LAST, "iv": IV, "delta": DELTA, "identity": IDENTITY, "size": SIZE}
    values = {LAST: 5.0, IV: 12.5, DELTA: 0.5, IDENTITY: 7.0, SIZE: 65.0, IS_THERE: 1.0}
    return values | {names[name]: value for name, value in changes.items()}


def test_leg_that_is_not_there_leaves_no_gap() -> None:
    columns, (legs, *_rest) = cleaned({}, leg(last=1.0), leg(last=2.0), {})
    assert legs == 2
    assert columns[LAST] == [1.0, 2.0]
    assert columns[-2] == [100.0, 150.0]
    assert columns[-1] == [0, 1]


@pytest.mark.parametrize("price", [0.0, -0.0, -1.0, math.inf, NAN])
def test_price_that_is_none_is_absent(price: float) -> None:
    columns, _found = cleaned(leg(last=price), leg())
    assert math.isnan(columns[LAST][0])
    assert columns[LAST][1] == 5.0


@pytest.mark.parametrize(
    ("number", "quantity", "identity"),
    [
        (0.0, 0, NULL),
        (65.0, 65, 65),
        (0.5, 0, NULL),
        (-1.0, NULL, NULL),
        (NAN, NULL, NULL),
        (2.0**63, NULL, NULL),
        (2.0**62, 2**62, 2**62),
        (math.inf, NULL, NULL),
    ],
)
def test_quantity_may_be_zero_and_an_identity_may_not(
    number: float, quantity: int, identity: int
) -> None:
    columns, _found = cleaned(leg(identity=number, size=number), leg())
    assert (columns[IDENTITY][0], columns[SIZE][0]) == (identity, quantity)


@pytest.mark.parametrize(
    "changes", [{"last": 0.0}, {"last": NAN}, {"iv": 0.0}, {"iv": NAN}], ids=str
)
def test_what_stands_beside_no_trade_or_no_volatility_is_a_placeholder(
    changes: dict[str, float],
) -> None:
    columns, _found = cleaned(leg(**changes), leg())
    assert np.isnan([columns[IV][0], columns[DELTA][0]]).all()
    assert (columns[IV][1], columns[DELTA][1]) == (0.125, 0.5)


def test_divisor_is_of_the_quantities_of_this_session_alone() -> None:
    sizes = (130.0, 0.0, NAN, 325.0)
    _columns, found = cleaned(*(leg(size=size, identity=7.0) | {FORMER: 64.0} for size in sizes))
    assert found == (4, 65, 2)
    assert cleaned({}, {})[1] == (0, 0, 0)
