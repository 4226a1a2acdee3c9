"""Candles are what a plain loop over the same rows makes, however and whenever the rows came."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline import buckets, candles
from pipeline.clock import SECOND_NS, to_datetime, to_ns
from pipeline.database import Database
from pipeline.models import EnrichedChain, contract_symbols
from pipeline.queries import queries
from tests.support.candles import contract_truth, snapshot, underlying_truth
from tests.support.documents import example
from tests.support.postgres import open_database
from tests.support.storing import write

DAY_NS = buckets.DAY_NS
MINUTE_NS = 60 * SECOND_NS
OPENING = to_ns(datetime(2026, 1, 21, 3, 45, tzinfo=UTC))  # a Wednesday, 09:15 IST
CLOSING = OPENING + 375 * MINUTE_NS
OTHER_EXPIRY = date(2026, 2, 3)
INTERVALS = (1, 60, 180, 300, 900, 3_600, 4_500, 7_200, 86_400, 2 * 86_400, 7 * 86_400)
LEVELS = (60, 300, 3_600, 86_400)
LEG = 1
LIMIT = 100_000
PAGE = Path(__file__).parents[2] / "docs" / "candles.md"
ALL = (0, 2**62, LIMIT)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


@pytest.fixture
def draw() -> random.Random:
    return random.Random(20_260_121)


def minutes(draw: random.Random, count: int, *, start: int = OPENING) -> list[EnrichedChain]:
    """Two snapshots a minute."""
    return [snapshot(draw, start + n * MINUTE_NS // 2) for n in range(2 * count)]


def symbol_of(chain: EnrichedChain, leg: int = LEG) -> str:
    return contract_symbols(chain.header.chain, chain.legs)[leg]


async def all_candles(
    database: Database, chain: EnrichedChain, interval_s: int
) -> list[dict[str, Any]]:
    return await candles.contract_candles(database, symbol_of(chain), interval_s, *ALL)


async def expect_truth(
    database: Database, written: Sequence[EnrichedChain], intervals: Sequence[int] = LEVELS
) -> None:
    """Both kinds of candles, at every length, are those of the rows."""
    symbol = symbol_of(written[0])
    of_chain = [chain for chain in written if symbol_of(chain) == symbol]
    for interval_s in intervals:
        found = await all_candles(database, written[0], interval_s)
        assert found == contract_truth(of_chain, LEG, interval_s), interval_s
        found = await candles.underlying_candles(database, "NIFTY", None, interval_s, *ALL)
        assert found == underlying_truth(written, interval_s), interval_s


def rows(url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode(), parameters or None).fetchall()


async def test_candles_are_those_of_the_rows_at_every_watermark(
    database: Database, draw: random.Random
) -> None:
    instants = sorted(
        OPENING + day * DAY_NS + draw.randrange(-600, 24_000) * SECOND_NS
        for day in (0, 1, 2, 6)
        for _ in range(20)
    )
    waiting = [snapshot(draw, ts) for ts in dict.fromkeys(instants)]
    waiting += [
        snapshot(draw, ts + 7_000, expiry=OTHER_EXPIRY) for ts in instants if draw.random() < 0.3
    ]
    waiting.sort(key=lambda chain: chain.header.ts_ingest + draw.choice((0, 0, 0, 20_000 * 10**9)))
    waiting.insert(0, snapshot(draw, OPENING - MINUTE_NS))
    written: list[EnrichedChain] = []
    while waiting:
        count = draw.randrange(25, 60)
        batch, waiting = waiting[:count], waiting[count:]
        await write(database, *batch)
        written += batch
        newest = max(chain.header.ts_ingest for chain in written)
        await candles.roll_candles(database, newest + draw.randrange(0, 120) * SECOND_NS)
        await expect_truth(database, written, INTERVALS)


async def test_chain_with_too_few_days_to_go_does_not_speak(
    database: Database, draw: random.Random
) -> None:
    near, later = (
        minutes(draw, 6),
        [snapshot(draw, OPENING + n * MINUTE_NS + 7_000, expiry=OTHER_EXPIRY) for n in range(6)],
    )
    await write(database, *near, *later)  # six days to go, and thirteen
    for rolled in (False, True):
        if rolled:
            assert await candles.roll_candles(database, CLOSING) == 6
        for interval_s in (30, 60, 300, 86_400):
            asked = (database, "NIFTY", None, interval_s, *ALL)
            assert await candles.underlying_candles(*asked, least_days=7) == underlying_truth(
                later, interval_s
            )
            assert await candles.underlying_candles(*asked, least_days=6) == underlying_truth(
                [*near, *later], interval_s
            )
            assert await candles.underlying_candles(*asked, least_days=14) == []


async def test_late_row_changes_every_level(database: Database, draw: random.Random) -> None:
    written = minutes(draw, 20)
    await write(database, *written)
    await candles.roll_candles(database, OPENING + 3 * DAY_NS)
    await expect_truth(database, written)
    late = snapshot(draw, OPENING + 7 * MINUTE_NS + SECOND_NS)
    await write(database, late)
    assert await candles.roll_candles(database, OPENING + 3 * DAY_NS) == 1
    await expect_truth(database, [*written, late])


async def test_highest_revision_speaks(database: Database, draw: random.Random) -> None:
    written = minutes(draw, 6)
    await write(database, *written)
    await candles.roll_candles(database, OPENING + DAY_NS)
    again = [snapshot(draw, chain.header.ts_ingest, rev=2) for chain in written[3:8]]
    await write(database, *again)
    await candles.roll_candles(database, OPENING + DAY_NS)
    await expect_truth(database, [*written, *again])
    assert (await all_candles(database, written[0], 86_400))[0]["n"] == 12


async def test_rolling_again_changes_nothing(database_url: str, draw: random.Random) -> None:
    kept = "SELECT * FROM contract_candles_5m ORDER BY starts, instrument_id"
    async with open_database(database_url) as database:
        written = minutes(draw, 12)
        await write(database, *written)
        assert await candles.roll_candles(database, CLOSING) == 12
        before = rows(database_url, kept)
        assert await candles.roll_candles(database, CLOSING) == 0
        await candles.refresh_candles(database, OPENING, CLOSING)
        assert rows(database_url, kept) == before != []
        await expect_truth(database, written)


async def test_backlog_is_rolled_bit_by_bit_and_read_all_along(
    database: Database, draw: random.Random
) -> None:
    written = [chain for day in (0, 1) for chain in minutes(draw, 8, start=OPENING + day * DAY_NS)]
    await write(database, *written)
    rolled: list[int] = []
    while not rolled or rolled[-1]:
        rolled.append(await candles.roll_candles(database, CLOSING + DAY_NS, budget_s=0.0))
        await expect_truth(database, written, (60, 300, 86_400))
    assert rolled == [5, 5, 5, 1, 0]


async def test_sessions_that_roll_at_once_share_the_work(
    database: Database, draw: random.Random
) -> None:
    written = minutes(draw, 20)
    await write(database, *written[:30])

    async def arrive() -> None:
        for chain in written[30:]:
            await write(database, chain)

    rollers = [candles.roll_candles(database, CLOSING) for _ in range(3)]
    await asyncio.gather(arrive(), *rollers)
    await asyncio.gather(*(candles.roll_candles(database, CLOSING) for _ in range(3)))
    await expect_truth(database, written)


async def test_roll_that_dies_before_its_commit_leaves_nothing(
    database_url: str, draw: random.Random
) -> None:
    async with open_database(database_url) as database:
        written = minutes(draw, 12)
        await write(database, *written)
        with psycopg.connect(database_url) as dying:
            dying.execute("SELECT roll_candles(%s, 100)", [to_datetime(CLOSING)])
            assert dying.execute("SELECT count(*) > 0 FROM contract_candles_1m").fetchone() == (
                True,
            )
            dying.cancel()
            dying.rollback()
        assert rows(database_url, "SELECT count(*) FROM contract_candles_1m") == [(0,)]
        await expect_truth(database, written)
        assert await candles.roll_candles(database, CLOSING) == 12
        await expect_truth(database, written)


async def test_refresh_that_is_killed_is_done_by_the_next(
    database_url: str, draw: random.Random
) -> None:
    async with open_database(database_url) as database:
        written = minutes(draw, 40)
        await write(database, *written)

        async def kill() -> None:
            find = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%'"
            while not rows(database_url, find):
                await asyncio.sleep(0.001)

        await asyncio.gather(
            candles.refresh_candles(database, OPENING, CLOSING), kill(), return_exceptions=True
        )
        await expect_truth(database, written, (60, 300))
        await candles.refresh_candles(database, OPENING, CLOSING)
        await expect_truth(database, written)
        assert rows(database_url, "SELECT count(*) FROM candle_minutes") == [(0,)]


async def test_commit_behind_the_watermark_is_rolled_later(
    database_url: str, draw: random.Random
) -> None:
    """A writer that began before the roll and commits after it."""
    async with open_database(database_url) as database:
        written = minutes(draw, 4)
        await write(database, *written)
        with psycopg.connect(database_url) as slow:
            slow.execute(
                "UPDATE option_contracts SET last = 77 WHERE ts = %s", [to_datetime(OPENING)]
            )
            slow.execute("UPDATE ledger SET n = n WHERE ts = %s", [to_datetime(OPENING)])
            await candles.roll_candles(database, CLOSING)
            (candle,) = await all_candles(database, written[0], 300)
            slow.commit()
        assert candle["high"] != 77
        assert await candles.roll_candles(database, CLOSING) == 1
        (candle,) = await all_candles(database, written[0], 300)
        assert candle["open"] == 77


async def test_range_written_past_the_ledger_is_refreshed(
    database_url: str, draw: random.Random
) -> None:
    async with open_database(database_url) as database:
        written = minutes(draw, 10)
        await write(database, *written)
        await candles.roll_candles(database, CLOSING)
        gone = [to_datetime(chain.header.ts_ingest) for chain in written[6:12]]
        with psycopg.connect(database_url) as connection:
            for table in ("option_contracts", "market_snapshots"):
                connection.execute(
                    f"DELETE FROM {table} WHERE ts = ANY(%s)".encode(),  # noqa: S608 - our names
                    [gone],
                )
        assert await candles.roll_candles(database, CLOSING) == 0
        await candles.refresh_candles(database, OPENING + MINUTE_NS, OPENING + 9 * MINUTE_NS)
        await expect_truth(database, written[:6] + written[12:])


async def test_report_of_polls_touches_no_candle(database_url: str) -> None:
    rows(
        database_url,
        "INSERT INTO ledger (id, stream_id, ts, n) VALUES ('a:b:1:polls:r1', '1-0', %s, 0)"
        " RETURNING id",
        to_datetime(OPENING),
    )
    assert rows(database_url, "SELECT count(*) FROM candle_minutes") == [(0,)]


async def test_pages_in_either_order_are_the_whole(database: Database, draw: random.Random) -> None:
    written = [
        chain
        for start in (0, 20 * MINUTE_NS, DAY_NS, 5 * DAY_NS)
        for chain in minutes(draw, 6, start=OPENING + start)
    ]
    await write(database, *written)
    await candles.roll_candles(database, OPENING + 23 * MINUTE_NS)
    symbol = symbol_of(written[0])
    fills: tuple[candles.Fill, ...] = ("none", "previous")
    for fill, interval_s in itertools.product(fills, (20, 60, 86_400)):
        whole = await candles.contract_candles(database, symbol, interval_s, *ALL, fill=fill)
        for newest_first in (False, True):
            found = await paged(
                database, symbol, interval_s, len(whole), newest_first=newest_first, fill=fill
            )
            assert found == (whole[::-1] if newest_first else whole), (interval_s, fill)


async def paged(
    database: Database, symbol: str, interval_s: int, count: int, **asked: Any
) -> list[dict[str, Any]]:
    """All candles, a third of them a page."""
    limit = max(2, count // 3)
    found: list[dict[str, Any]] = []
    page: list[dict[str, Any]] = []
    while not found or len(page) == limit:
        after_ns = found[-1]["starts"] if found else None
        page = await candles.contract_candles(
            database, symbol, interval_s, 0, 2**62, limit, after_ns, **asked
        )
        found += page
        assert len(found) <= count
    return found


async def test_example_of_the_page_runs(database: Database, draw: random.Random) -> None:
    written = minutes(draw, 40)
    await write(database, *written)
    names: dict[str, Any] = {}
    exec(example(PAGE, "candles"), names)  # noqa: S102 - our own page
    found = await names["quarters"](database, OPENING, CLOSING)
    leg = contract_symbols(written[0].header.chain, written[0].legs).index(
        "NIFTY-20260127-25000-CE"
    )
    assert found == [one["close"] for one in contract_truth(written, leg, 900)]
    assert len(found) == 3


async def test_gap_in_a_session_is_filled_at_the_close_before(
    database: Database, draw: random.Random
) -> None:
    written = [*minutes(draw, 3), *minutes(draw, 3, start=OPENING + 10 * MINUTE_NS)]
    written += minutes(draw, 2, start=OPENING + DAY_NS)
    await write(database, *written)
    symbol = symbol_of(written[0])
    bare = await candles.contract_candles(database, symbol, 60, *ALL)
    found = await candles.contract_candles(database, symbol, 60, *ALL, fill="previous")
    added = [candle for candle in found if candle["n"] == 0]
    assert [candle for candle in found if candle["n"]] == bare
    assert [candle["starts"] for candle in added] == [OPENING + n * MINUTE_NS for n in range(3, 10)]
    for candle in added:
        close = bare[2]["close"]
        assert {candle[name] for name in ("open", "high", "low", "close")} == {close}
        assert (candle["volume"], candle["iv"]) == (0, bare[2]["iv"])


async def test_database_and_python_agree_where_buckets_begin(
    plain_database_url: str, draw: random.Random
) -> None:
    instants = [OPENING + draw.randrange(-(10**17), 10**17) // 1_000 * 1_000 for _ in range(100)]
    for interval_s in (*INTERVALS, 7, 59, 86_399, 30 * 86_400):
        found = rows(
            plain_database_url,
            "SELECT candle_start(ts, %s::integer) FROM unnest(%s::timestamptz[]) AS ts",
            interval_s,
            [to_datetime(instant) for instant in instants],
        )
        expected = [buckets.bucket_start(instant, interval_s) for instant in instants]
        assert [to_ns(starts) for (starts,) in found] == expected


async def test_unknown_symbol_has_no_candles(database: Database) -> None:
    assert await candles.contract_candles(database, "NIFTY-20260127-1-CE", 60, *ALL) == []
    assert await candles.underlying_candles(database, "NIFTY", None, 60, *ALL) == []


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_day_of_minutes_is_read_by_index_from_its_own_days(
    database_url: str, draw: random.Random
) -> None:
    async with open_database(database_url) as database:
        for day in range(4):
            await write(database, *minutes(draw, 5, start=OPENING + day * DAY_NS))
        await candles.roll_candles(database, CLOSING + 4 * DAY_NS)
        begins = to_datetime(buckets.day_start(OPENING + DAY_NS))
        parameters = {
            "seconds": 60,
            "instrument_ids": [1],
            "start": begins,
            "end": begins + timedelta(hours=18),
        }
    statement = queries()["contract_candles_1m"].text
    with psycopg.connect(database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SET enable_seqscan = off")
        found = connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), parameters
        ).fetchone()
    assert found is not None
    scans = [one for one in nodes(found[0][0]["Plan"]) if one.get("Relation Name")]
    assert len(scans) <= 2
    assert {one["Node Type"] for one in scans} <= {"Index Scan", "Bitmap Heap Scan"}
    assert all("instrument_id" in str(one) for one in scans)
    assert sum(one["Actual Rows"] * one["Actual Loops"] for one in scans) == 5
