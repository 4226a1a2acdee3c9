"""Newest rows, series and revisions: the same answers with TimescaleDB and without."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline import history
from pipeline.clock import SECOND_NS
from pipeline.database import Database, Row
from pipeline.models import EnrichedChain
from pipeline.newest import REACH_NS, newest_of_chain, newest_of_underlying
from pipeline.series import chain_series, iv_history
from tests.support import chains
from tests.support.postgres import open_database
from tests.support.storing import write

START = chains.TS_INGEST  # 15:30 IST
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 1_440 * MINUTE_NS
LAST_NS = 2**62
OTHER_EXPIRY = date(2026, 2, 3)
CALL = "NIFTY-20260127-25000-CE"
OUTER_CALL = "NIFTY-20260127-24800-CE"  # listed in chains of nine strikes and more


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


def series(count: int, *, step_ns: int, start: int = START, **changes: Any) -> list[EnrichedChain]:
    return [chains.enriched(5, ts_ingest=start + n * step_ns, **changes) for n in range(count)]


def revised(chain: EnrichedChain, rev: int, iv: float) -> EnrichedChain:
    """The chain as another revision of the calculation gives it."""
    header = msgspec.structs.replace(chain.header, rev=rev)
    return EnrichedChain(header, {**chain.legs, "iv": np.full(chain.header.n, iv)})


async def revisions_told(database: Database, rev: int | None) -> list[tuple[int, float | None]]:
    """What each read tells of the revision it took, and of the volatility of a call."""
    asked = "NIFTY", chains.EXPIRY
    (row,) = await history.contract_history(database, CALL, 0, LAST_NS, 10, rev=rev)
    (back,) = await history.contract_history(
        database, CALL, 0, LAST_NS, 10, newest_first=True, rev=rev
    )
    (point,) = await iv_history(database, CALL, START, START + MINUTE_NS, 60, rev)
    newest = await newest_of_chain(database, *asked, START, rev=rev)
    found = await history.chain_as_of(database, *asked, START, rev)
    assert found is not None
    snapshots = [
        *await history.underlying_history(database, *asked, 0, LAST_NS, 10, rev=rev),
        *await history.underlying_history(database, "NIFTY", None, 0, LAST_NS, 10, rev=rev),
        *await history.underlying_history(
            database, "NIFTY", None, 0, LAST_NS, 10, newest_first=True, rev=rev
        ),
        *await chain_series(database, *asked, START, START + MINUTE_NS, 60, rev),
    ]
    assert len(snapshots) == 4
    legs: list[Row] = [row, back, point, *(leg for leg in newest if leg["symbol"] == CALL)]
    return [
        *((leg["rev"], leg["iv"]) for leg in legs),
        *((found[0]["rev"], leg["iv"]) for leg in found[1] if leg["symbol"] == CALL),
        *((snapshot["rev"], None) for snapshot in snapshots),
    ]


@pytest.mark.parametrize(("asked", "speaks", "iv"), [(None, 12, 0.5), (11, 11, 0.25)])
async def test_highest_revision_speaks_unless_another_is_asked_for(
    database: Database, asked: int | None, speaks: int, iv: float
) -> None:
    (chain,) = series(1, step_ns=0)
    await write(database, revised(chain, 12, 0.5), revised(chain, 11, 0.25))
    told = await revisions_told(database, asked)
    assert told == [(speaks, iv)] * 5 + [(speaks, None)] * 4


async def test_revision_that_nobody_calculated_tells_nothing(database: Database) -> None:
    await write(database, *series(1, step_ns=0))
    assert await history.contract_history(database, CALL, 0, LAST_NS, 10, rev=99) == []
    assert await history.chain_as_of(database, "NIFTY", chains.EXPIRY, START, 99) is None


async def test_page_is_full_where_most_snapshots_did_not_list_the_contract(
    database: Database,
) -> None:
    wide = [chains.enriched(9, ts_ingest=START + n * 20 * SECOND_NS) for n in range(4)]
    await write(database, *series(60, step_ns=SECOND_NS, start=START + SECOND_NS // 2), *wide)
    rows = await history.contract_history(database, OUTER_CALL, 0, LAST_NS, 3)
    assert [row["ts_ingest"] for row in rows] == [chain.header.ts_ingest for chain in wide[:3]]


async def test_newest_of_a_chain_has_every_contract_at_its_last_row(database: Database) -> None:
    wide = chains.enriched(9, ts_ingest=START - 3 * DAY_NS)
    await write(database, wide, *series(70, step_ns=SECOND_NS))
    end = START + 69 * SECOND_NS
    rows = await newest_of_chain(database, "NIFTY", chains.EXPIRY, end)
    listed = await history.instruments(database, "NIFTY", chains.EXPIRY)
    assert [row["symbol"] for row in rows] == [row["symbol"] for row in listed]
    at = {row["symbol"]: row["ts_ingest"] for row in rows}
    assert (at[CALL], at[OUTER_CALL]) == (end, wide.header.ts_ingest)
    (last,) = await history.contract_history(database, CALL, 0, LAST_NS, 1, newest_first=True)
    (call,) = [row for row in rows if row["symbol"] == CALL]
    assert {name: call[name] for name in last.keys() & call.keys()} == {
        name: last[name] for name in last.keys() & call.keys()
    }


async def test_newest_leaves_out_what_is_later_or_too_old(database: Database) -> None:
    await write(database, *series(3, step_ns=SECOND_NS))
    asked = "NIFTY", chains.EXPIRY
    rows = await newest_of_chain(database, *asked, START + SECOND_NS)
    assert {row["ts_ingest"] for row in rows} == {START + SECOND_NS}
    assert await newest_of_chain(database, *asked, START - 1_000) == []
    long_after = START + REACH_NS + 3 * SECOND_NS
    assert await newest_of_chain(database, *asked, long_after) == []
    found = await newest_of_chain(database, *asked, long_after, since_ns=START)
    assert {row["ts_ingest"] for row in found} == {START + 2 * SECOND_NS}


async def test_newest_of_an_underlying_runs_through_its_chains(database: Database) -> None:
    await write(database, *series(2, step_ns=SECOND_NS, expiry=OTHER_EXPIRY))
    await write(database, *series(1, step_ns=0), *series(1, step_ns=0, underlying="BANKNIFTY"))
    rows = await newest_of_underlying(database, "NIFTY", START + SECOND_NS)
    at = [(row["symbol"][:14], row["ts_ingest"]) for row in rows]
    assert at == [("NIFTY-20260127", START)] * 10 + [("NIFTY-20260203", START + SECOND_NS)] * 10


async def test_series_has_the_last_snapshot_of_each_interval(database: Database) -> None:
    await write(database, *series(9, step_ns=25 * SECOND_NS))
    rows = await chain_series(database, "NIFTY", chains.EXPIRY, START, START + 200 * SECOND_NS, 60)
    assert [(row["starts"] - START, row["ts_ingest"] - START) for row in rows] == [
        (0, 50 * SECOND_NS),
        (MINUTE_NS, 100 * SECOND_NS),
        (2 * MINUTE_NS, 175 * SECOND_NS),
    ]
    whole = await history.underlying_history(database, "NIFTY", chains.EXPIRY, 0, LAST_NS, 20)
    by_instant = {row["ts_ingest"]: row for row in whole}
    for row in rows:
        del row["starts"]
        assert row == by_instant[row["ts_ingest"]]


async def test_interval_without_a_snapshot_has_no_row(database: Database) -> None:
    await write(database, *series(2, step_ns=10 * MINUTE_NS))
    rows = await chain_series(database, "NIFTY", chains.EXPIRY, START - DAY_NS, START + DAY_NS, 60)
    assert [row["starts"] for row in rows] == [START, START + 10 * MINUTE_NS]


@pytest.mark.parametrize(
    ("interval_s", "before_ns"),
    [
        (7_200, 15 * MINUTE_NS),
        (420, 4 * MINUTE_NS),
        (86_400, 930 * MINUTE_NS),
        (7 * 86_400, 6 * DAY_NS + 930 * MINUTE_NS),
    ],
    ids=["from the opening", "anew each day", "from midnight", "from Monday"],
)
async def test_intervals_begin_where_the_exchange_would_have_them(
    database: Database, interval_s: int, before_ns: int
) -> None:
    await write(database, *series(1, step_ns=0))  # 15:30 IST on a Sunday
    (row,) = await chain_series(
        database, "NIFTY", chains.EXPIRY, START - DAY_NS, START + DAY_NS, interval_s
    )
    assert START - row["starts"] == before_ns


async def test_iv_history_is_the_leg_at_the_points_of_the_series(database: Database) -> None:
    await write(database, *series(9, step_ns=25 * SECOND_NS), *series(2, step_ns=DAY_NS))
    end = START + 2 * DAY_NS
    points = await chain_series(database, "NIFTY", chains.EXPIRY, START, end, 60)
    rows = await iv_history(database, CALL, START, end, 60)
    for name in ("starts", "ts_ingest", "rev", "spot", "forward", "atm_iv"):
        assert [row[name] for row in rows] == [point[name] for point in points]
    legs = await history.contract_history(database, CALL, 0, LAST_NS, 20)
    iv_at = {leg["ts_ingest"]: (leg["iv"], leg["iv_fit"], leg["delta"]) for leg in legs}
    assert [(row["iv"], row["iv_fit"], row["delta"]) for row in rows] == [
        iv_at[point["ts_ingest"]] for point in points
    ]
    assert await iv_history(database, "NOBODY-20260127-1-CE", START, end, 60) == []
