"""What is stored comes back: the same answers with TimescaleDB and without."""

import math
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
from psycopg import sql

from pipeline import history
from pipeline.clock import SECOND_NS
from pipeline.database import Database
from pipeline.errors import DecodeError, StoreUnavailable
from pipeline.frames import leg_rows
from pipeline.models import EnrichedChain, Smile, chain_symbol
from tests.support import chains
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

START = chains.TS_INGEST
DAY_NS = 86_400 * SECOND_NS
OTHER_EXPIRY = date(2026, 2, 3)
CALL = "NIFTY-20260127-25000-CE"
LAST_NS = 2**62


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


def series(
    count: int, *, start: int = START, step_ns: int = SECOND_NS, **changes: Any
) -> list[EnrichedChain]:
    return [chains.enriched(5, ts_ingest=start + n * step_ns, **changes) for n in range(count)]


def approximately(value: Any) -> Any:
    """As float4 keeps it: seven digits."""
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


async def test_chain_comes_back_as_clients_saw_it(database: Database) -> None:
    chain = chains.enriched(21)
    await write(database, chain)
    found = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, START)
    assert found is not None
    header, legs = found
    expected = leg_rows(chain)
    assert len(legs) == len(expected) == 42
    for leg, row in zip(legs, expected, strict=True):
        assert leg == {name: approximately(value) for name, value in row.items()}
    kept = msgspec.structs.asdict(chain.header) | msgspec.structs.asdict(chain.header.aggregates)
    kept["smile"] = msgspec.to_builtins(chain.header.smile)
    assert {name: header[name] for name in header.keys() & kept.keys()} == {
        name: kept[name] for name in header.keys() & kept.keys()
    }
    assert header.keys() - kept.keys() == {"epoch", "seq", "ts_enrich"}


@pytest.mark.parametrize("smile", [chains.SMILE, None], ids=["smile", "no smile"])
async def test_smile_comes_back_whole_or_not_at_all(
    database: Database, smile: Smile | None
) -> None:
    await write(database, chains.with_smile(chains.enriched(5), smile))
    expected = None if smile is None else msgspec.structs.asdict(smile)
    (row,) = await history.underlying_history(database, "NIFTY", chains.EXPIRY, 0, LAST_NS, 10)
    assert row["smile"] == expected
    found = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, START)
    assert found is not None
    assert found[0]["smile"] == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("smile_a", None),
        ("smile_b", -0.1),
        ("smile_rho", 1.5),
        ("smile_sigma", -0.1),
        ("smile_error", -0.1),
        ("smile_points", 0),
        ("smile_status", "fine"),
        ("expected_move", -1.0),
    ],
)
async def test_snapshot_that_contradicts_itself_is_refused_by_the_database(
    database_url: str, column: str, value: float | str | None
) -> None:
    async with open_database(database_url) as database:
        await write(database, chains.with_smile(chains.enriched(5)))
    change = sql.SQL("UPDATE market_snapshots SET {} = %s").format(sql.Identifier(column))
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(change, [value])


async def test_prices_come_back_as_the_decimals_that_went_in(database: Database) -> None:
    chain = chains.enriched(5)
    prices = np.array([173.05, 0.05, 2_345.65, 85_000.35, 100_000.05, 0.1, 7.7, 99.95, 1.0, 12.35])
    await write(database, EnrichedChain(chain.header, {**chain.legs, "last": prices}))
    found = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, START)
    assert found is not None
    assert [leg["last"] for leg in found[1]] == prices.tolist()


async def test_absent_comes_back_as_none_and_never_as_zero(database: Database) -> None:
    chain = chains.enriched(5)
    absent = {
        name: np.full(10, math.nan) if column.dtype.kind == "f" else column
        for name, column in chain.legs.items()
        if name not in ("strike", "kind")
    }
    absent["volume"] = np.full(10, -(2**63))
    absent["open_interest"] = np.zeros(10, np.int64)
    await write(database, EnrichedChain(chain.header, {**chain.legs, **absent}))
    found = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, START)
    assert found is not None
    for leg in found[1]:
        assert (leg["last"], leg["iv"], leg["vega_provider"], leg["volume"]) == (None,) * 4
        assert leg["open_interest"] == 0


async def test_chain_as_of_is_the_last_one_not_later(database: Database) -> None:
    await write(database, *series(3, step_ns=10 * SECOND_NS))

    async def ts_of(at_ns: int) -> int | None:
        found = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, at_ns)
        return None if found is None else found[0]["ts_ingest"]

    assert await ts_of(START - 1_000) is None
    assert await ts_of(START) == START
    assert await ts_of(START + 19 * SECOND_NS) == START + 10 * SECOND_NS
    assert await ts_of(START + 300 * DAY_NS) == START + 20 * SECOND_NS


async def test_contract_history_is_half_open_and_in_order(database: Database) -> None:
    await write(database, *series(6))
    rows = await history.contract_history(
        database, CALL, START + SECOND_NS, START + 4 * SECOND_NS, 100
    )
    assert [row["ts_ingest"] for row in rows] == [START + n * SECOND_NS for n in (1, 2, 3)]
    back = await history.contract_history(
        database, CALL, START + SECOND_NS, START + 4 * SECOND_NS, 100, newest_first=True
    )
    assert back == rows[::-1]
    assert not {"strike", "kind", "security_id"} & rows[0].keys()
    expected = {row["symbol"]: row for row in leg_rows(chains.enriched(5))}[CALL]
    assert rows[0]["last"] == expected["last"]
    assert rows[0]["spot"] == chains.SPOT


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
async def test_pages_of_a_contract_join_without_gap_or_double(
    database: Database, newest_first: bool
) -> None:
    await write(database, *series(7, step_ns=1_000))
    pages: list[int] = []
    after: int | None = None
    while page := await history.contract_history(
        database, CALL, 0, LAST_NS, 3, after, newest_first
    ):
        pages += [row["ts_ingest"] for row in page]
        after = pages[-1]
    expected = [START + n * 1_000 for n in range(7)]
    assert pages == (expected[::-1] if newest_first else expected)


async def test_contract_listed_later_has_rows_from_then_on(database: Database) -> None:
    await write(database, *series(2), chains.enriched(9, ts_ingest=START + 9 * SECOND_NS))
    rows = await history.contract_history(database, "NIFTY-20260127-25200-PE", 0, LAST_NS, 10)
    assert [row["ts_ingest"] for row in rows] == [START + 9 * SECOND_NS]


async def test_history_crosses_days(database: Database) -> None:
    await write(database, *series(4, step_ns=DAY_NS, start=START - 400 * DAY_NS))
    rows = await history.contract_history(database, CALL, 0, LAST_NS, 10)
    assert [row["ts_ingest"] for row in rows] == [START + (n - 400) * DAY_NS for n in range(4)]


async def test_history_of_the_unknown_is_empty(database: Database) -> None:
    assert await history.contract_history(database, "NOBODY-20260127-1-CE", 0, LAST_NS, 10) == []
    assert await history.underlying_history(database, "NOBODY", None, 0, LAST_NS, 10) == []
    assert await history.chain_as_of(database, "NOBODY", chains.EXPIRY, LAST_NS) is None


async def test_history_of_what_is_no_contract_is_refused(database: Database) -> None:
    with pytest.raises(DecodeError):
        await history.contract_history(database, "NIFTY-20260127", 0, LAST_NS, 10)


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
async def test_pages_of_an_underlying_run_through_all_its_chains(
    database: Database, newest_first: bool
) -> None:
    near, far = series(3), series(3, expiry=OTHER_EXPIRY)
    await write(database, *near, *far, *series(2, underlying="BANKNIFTY"))
    pages: list[tuple[int, str]] = []
    after: tuple[int, str] | None = None
    while page := await history.underlying_history(
        database, "NIFTY", None, 0, LAST_NS, 2, after, newest_first
    ):
        pages += [(row["ts_ingest"], row["chain"]) for row in page]
        after = pages[-1]
    expected = sorted((c.header.ts_ingest, c.header.chain) for c in (*near, *far))
    assert pages == (expected[::-1] if newest_first else expected)


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
async def test_pages_of_one_chain_leave_the_others_out(
    database: Database, newest_first: bool
) -> None:
    await write(database, *series(5), *series(5, expiry=OTHER_EXPIRY))
    pages: list[int] = []
    after: tuple[int, str] | None = None
    while page := await history.underlying_history(
        database, "NIFTY", OTHER_EXPIRY, 0, LAST_NS, 2, after, newest_first
    ):
        assert {row["chain"] for row in page} == {chain_symbol("NIFTY", OTHER_EXPIRY)}
        pages += [row["ts_ingest"] for row in page]
        after = (pages[-1], page[-1]["chain"])
    expected = [START + n * SECOND_NS for n in range(5)]
    assert pages == (expected[::-1] if newest_first else expected)


async def test_underlyings_list_their_expiries(database: Database) -> None:
    await write(database, *series(1, expiry=OTHER_EXPIRY), *series(1))
    await write(database, *series(1, underlying="BANKNIFTY"))
    assert await history.underlyings(database) == [
        {"underlying": "BANKNIFTY", "expiries": [chains.EXPIRY]},
        {"underlying": "NIFTY", "expiries": [chains.EXPIRY, OTHER_EXPIRY]},
    ]


async def test_changed_lot_gives_a_contract_a_second_definition(database: Database) -> None:
    later = START + 60 * SECOND_NS
    await write(database, *series(1, lot=75), *series(1, lot=65, start=later))
    first, second = await history.instrument(database, CALL)
    assert (first["lot"], first["valid_from"], first["valid_to"]) == (75, START, later)
    assert (second["lot"], second["valid_from"], second["valid_to"]) == (65, later, None)
    rows = await history.contract_history(database, CALL, 0, LAST_NS, 10)
    assert [row["ts_ingest"] for row in rows] == [START, later]


async def test_earlier_day_extends_what_is_known(database: Database) -> None:
    await write(database, *series(1))
    await write(database, *series(1, start=START - 5 * DAY_NS))
    (only,) = await history.instrument(database, CALL)
    assert (only["valid_from"], only["valid_to"]) == (START - 5 * DAY_NS, None)


async def test_two_providers_keep_apart(database: Database) -> None:
    await write(database, *series(1), *series(1, provider="simulator", start=START + SECOND_NS))
    assert [row["provider"] for row in await history.instrument(database, CALL)] == [
        "dhan",
        "simulator",
    ]
    found = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, START)
    assert found is not None
    assert found[0]["provider"] == "dhan"
    assert len(found[1]) == 10


async def test_instruments_of_a_chain_run_by_strike(database: Database) -> None:
    await write(database, *series(1))
    rows = await history.instruments(database, "NIFTY", chains.EXPIRY)
    assert [row["symbol"] for row in rows] == [row["symbol"] for row in leg_rows(series(1)[0])]


async def test_server_that_goes_away_is_unavailable_and_comes_back(
    wheel_server: PostgresServer,
) -> None:
    with wheel_server.database() as url:
        async with open_database(url, wait_s=0.5) as database:
            await write(database, *series(2))
            wheel_server.kill()
            try:
                with pytest.raises(StoreUnavailable):
                    await database.ping()
            finally:
                wheel_server.start()
            rows = await history.contract_history(database, CALL, 0, LAST_NS, 10)
            assert len(rows) == 2
