"""Big results in pieces: cursors on the server and COPY out, on real servers."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.clock import SECOND_NS, to_datetime
from pipeline.database import Database
from pipeline.errors import StoreError, StoreUnavailable
from tests.support import chains
from tests.support.postgres import open_database
from tests.support.storing import write

START = chains.TS_INGEST
SNAPSHOTS, LEGS = 6, 10


@pytest.fixture
async def database(plain_database_url: str) -> AsyncIterator[Database]:
    async with open_database(plain_database_url) as opened:
        await write(
            opened,
            *(chains.enriched(5, ts_ingest=START + n * SECOND_NS) for n in range(SNAPSHOTS)),
        )
        yield opened


def whole_range(**changes: Any) -> dict[str, Any]:
    asked = {
        "underlying": "NIFTY",
        "expiry": chains.EXPIRY,
        "start": to_datetime(START),
        "end": to_datetime(START + SNAPSHOTS * SECOND_NS),
        "rev": None,
    }
    return asked | changes


async def test_stream_gives_every_row_once_in_pages(database: Database) -> None:
    async with (
        database.session() as session,
        session.stream("legs_between", page_rows=16, **whole_range()) as pages,
    ):
        found = [page async for page in pages]
    assert [len(page) for page in found] == [16, 16, 16, 12]
    rows = [row for page in found for row in page]
    assert rows == await database.fetch("legs_between", **whole_range())
    assert len({(row["ts_ingest"], row["symbol"]) for row in rows}) == SNAPSHOTS * LEGS


async def test_stream_shows_the_state_of_its_start(database: Database) -> None:
    later = whole_range(end=to_datetime(START + 100 * SECOND_NS))
    async with (
        database.session() as session,
        session.stream("legs_between", page_rows=LEGS, **later) as pages,
    ):
        first = await anext(pages)
        await write(database, chains.enriched(5, ts_ingest=START + 50 * SECOND_NS))
        rest = [row async for page in pages for row in page]
    assert len(first) + len(rest) == SNAPSHOTS * LEGS
    assert len(await database.fetch("legs_between", **later)) == (SNAPSHOTS + 1) * LEGS


async def test_stream_left_early_leaves_the_session_of_use(database: Database) -> None:
    async with database.session() as session:
        async with session.stream("legs_between", page_rows=1, **whole_range()) as pages:
            assert len(await anext(pages)) == 1
        assert await session.fetch("ping") == [{"alive": 1}]


async def test_copy_out_gives_what_the_query_gives(database: Database) -> None:
    async with (
        database.session() as session,
        session.copy_out("copy_legs_between", **whole_range()) as buffers,
    ):
        text = b"".join([bytes(data) async for data in buffers]).decode()
    copied = list(csv.DictReader(io.StringIO(text)))
    rows = await database.fetch("legs_between", **whole_range())
    assert len(copied) == len(rows) == SNAPSHOTS * LEGS
    for line, row in zip(copied, rows, strict=True):
        assert line.keys() == row.keys()
        assert line["symbol"] == row["symbol"]
        assert int(line["ts_ingest"]) == row["ts_ingest"]
        assert float(line["bid"]) == row["bid"]
        assert line["ask"] == "" if row["ask"] is None else float(line["ask"]) == row["ask"]


async def test_parameter_of_copy_out_stays_a_value(database: Database) -> None:
    hostile = whole_range(underlying="NIFTY'; DROP TABLE ledger; --")
    async with (
        database.session() as session,
        session.copy_out("copy_legs_between", **hostile) as buffers,
    ):
        text = b"".join([bytes(data) async for data in buffers])
    assert text.count(b"\n") == 1
    assert len(await database.fetch("ledger_known", ids=["none"])) == 0


async def test_copy_out_left_early_leaves_the_session_of_use(database: Database) -> None:
    async with database.session() as session:
        async with session.copy_out("copy_legs_between", **whole_range()) as buffers:
            assert bytes(await anext(buffers)).startswith(b"ts_ingest,symbol")
        assert await session.fetch("ping") == [{"alive": 1}]


async def test_error_of_a_copy_out_is_a_store_error(database: Database) -> None:
    with pytest.raises(StoreError) as raised:
        async with (
            database.session() as session,
            session.copy_out("copy_legs_between", **whole_range(rev="no number")) as buffers,
        ):
            await anext(buffers)
    assert not isinstance(raised.value, StoreUnavailable)


async def test_connection_that_has_become_read_only_is_not_used_again(
    plain_database_url: str,
) -> None:
    async with open_database(plain_database_url) as opened:
        async with opened.session() as session:
            await session.run_script("SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailable, match="25006"):
            await write(opened, chains.enriched(5, ts_ingest=START))
        written = await write(opened, chains.enriched(5, ts_ingest=START))
    assert written.snapshots == 1
