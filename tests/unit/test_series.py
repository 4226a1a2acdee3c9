"""Series that are refused before anything is asked."""

import pytest

from pipeline.clock import SECOND_NS
from pipeline.database import Database
from pipeline.errors import DecodeError
from pipeline.series import MAXIMUM_INTERVALS, chain_series, iv_history
from tests.support import chains

NOWHERE = "postgresql://127.0.0.1:9/none"


async def test_series_of_too_many_intervals_is_refused() -> None:
    end_ns = (MAXIMUM_INTERVALS + 1) * SECOND_NS
    with pytest.raises(ValueError, match="intervals"):
        await chain_series(Database(NOWHERE), "NIFTY", chains.EXPIRY, 0, end_ns, 1)


async def test_interval_of_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        await chain_series(Database(NOWHERE), "NIFTY", chains.EXPIRY, 0, SECOND_NS, 0)


async def test_iv_history_of_what_is_no_contract_is_refused() -> None:
    with pytest.raises(DecodeError):
        await iv_history(Database(NOWHERE), "NIFTY-20260127", 0, SECOND_NS, 1)
