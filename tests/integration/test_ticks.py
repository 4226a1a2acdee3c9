"""Ticks on real servers: written by COPY, read page by page, kept as long as everything else."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline.database import Database
from pipeline.queries import statement
from tests.support.postgres import open_database

OPEN = datetime(2026, 1, 20, 3, 45, tzinfo=UTC)
DAY = timedelta(days=1)
TYPES = (
    *("timestamptz", "timestamptz", "int8", "int4"),
    *("float4",) * 3,
    *("int4",) * 4,
    "int2",
)
Tick = tuple[Any, ...]


def tick(ts: datetime, contract: int, last: float, place: int = 0) -> Tick:
    return (ts, ts, 750, contract, last, last - 0.05, None, 75, 150, None, 900, place)


def store(url: str, *ticks: Tick) -> None:
    with psycopg.connect(url) as connection:
        for day in {one[0].date() for one in ticks}:
            connection.execute(statement("make_days"), {"days": [day]})
        with connection.cursor().copy(statement("copy_ticks")) as copy:
            copy.set_types(TYPES)
            for one in ticks:
                copy.write_row(one)


async def read(database: Database, after: Any = None, limit: int = 10) -> list[dict[str, Any]]:
    asked = {"instrument_ids": [1], "start": OPEN - DAY, "end": OPEN + DAY, "limit": limit}
    at, place = after or (None, None)
    return await database.fetch(
        "contract_ticks", **asked, after=at, after_place=place, after_instrument=1
    )


async def test_ticks_of_one_instant_stay_apart_and_pages_meet(database_url: str) -> None:
    later = OPEN + timedelta(microseconds=1)
    store(database_url, tick(OPEN, 1, 11, 1), tick(OPEN, 1, 10), tick(later, 1, 12))
    store(database_url, tick(OPEN, 2, 99))
    async with open_database(database_url) as database:
        page = await read(database, limit=2)
        rest = await read(database, (OPEN, page[-1]["place"]))
    assert [row["last"] for row in [*page, *rest]] == [10, 11, 12]
    assert rest[0]["ts_ingest"] - page[0]["ts_ingest"] == 1_000
    assert (page[0]["ask"], page[0]["bid_size"], page[0]["open_interest"]) == (None, 150, 900)


def test_tick_that_comes_twice_is_refused(database_url: str) -> None:
    store(database_url, tick(OPEN, 1, 10))
    with pytest.raises(psycopg.errors.UniqueViolation):
        store(database_url, tick(OPEN, 1, 10))


async def test_ticks_of_days_past_retention_go(database_url: str) -> None:
    store(database_url, tick(OPEN - DAY, 1, 10), tick(OPEN, 1, 11))
    async with open_database(database_url) as database:
        await database.fetch("drop_days", before=OPEN.date())
        assert [row["last"] for row in await read(database)] == [11]
        await database.fetch("drop_days", before=date(2026, 1, 21))
        assert await read(database) == []


async def test_read_of_a_contract_asks_its_key(database_url: str) -> None:
    store(database_url, *(tick(OPEN + n * timedelta(seconds=1), n % 50, 10) for n in range(2_000)))
    parameters = {"instrument_ids": [1], "start": OPEN, "end": OPEN + DAY, "limit": 10}
    with psycopg.connect(database_url) as connection:
        connection.execute("ANALYZE ticks")
        plan = connection.execute(
            b"EXPLAIN " + statement("contract_ticks"),
            {**parameters, "after": None, "after_place": None, "after_instrument": None},
        ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Index Cond" in text, text
    assert "Seq Scan" not in text, text
