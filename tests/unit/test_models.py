from datetime import date

import numpy as np
import pytest

from pipeline import models
from pipeline.errors import DecodeError
from pipeline.models import ChainId, ContractId, Kind


@pytest.mark.parametrize(
    ("strike", "kind", "symbol"),
    [
        (25_000.0, Kind.CALL, "NIFTY-20260127-25000-CE"),
        (187.5, Kind.PUT, "NIFTY-20260127-187.5-PE"),
        (0.05, Kind.PUT, "NIFTY-20260127-0.05-PE"),
    ],
)
def test_contract_symbol_and_its_parts_turn_into_each_other(
    strike: float, kind: Kind, symbol: str
) -> None:
    assert models.contract_symbol("NIFTY-20260127", strike, kind) == symbol
    assert models.parse_symbol(symbol) == ContractId("NIFTY", date(2026, 1, 27), strike, kind)


def test_underlyings_with_a_dash_keep_it() -> None:
    assert models.parse_symbol("BAJAJ-AUTO-20260127") == ChainId("BAJAJ-AUTO", date(2026, 1, 27))
    assert models.parse_symbol("BAJAJ-AUTO") == "BAJAJ-AUTO"


@pytest.mark.parametrize(
    "symbol",
    ["", "NIFTY-20261327", "NIFTY-20260127-abc-CE", "NIFTY-20260127-inf-PE", "a b", "x" * 40],
)
def test_text_that_is_no_symbol_is_refused(symbol: str) -> None:
    with pytest.raises(DecodeError):
        models.parse_symbol(symbol)


def test_leg_layout_names_each_column_once_in_little_endian() -> None:
    names = [column.name for column in models.LEG_COLUMNS]
    assert len(names) == len(set(names))
    assert set(names) > models.COMPUTED_COLUMNS
    assert all(np.dtype(column.dtype).str == column.dtype for column in models.LEG_COLUMNS)
