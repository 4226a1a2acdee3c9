"""Days in a database as ingest, processor and storage leave them, and all that is stored of one."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from pipeline.clock import SECOND_NS, exchange_date
from pipeline.cold.reading import Imported, Importer
from pipeline.cold.slices import Exported
from pipeline.cold.writing import Exporter
from pipeline.database import Database
from pipeline.models import CALCULATION_REVISION, EnrichedChain
from tests.support import chains
from tests.support.postgres import open_database
from tests.support.storing import arrived
from workers.storage.writer import Arrived, Writer

START = chains.TS_INGEST
DAY = exchange_date(START)
FAR_DAY = date(2026, 6, 1)
LATER = START + 40 * 86_400 * SECOND_NS  # every day of these tests is over
PER_MINUTE = 20

# What is stored of a day, without what each database numbers or dates its own way.
TABLES = {
    "snapshots": "SELECT * FROM market_snapshots ORDER BY ts, underlying, expiry, provider, rev",
    "contracts": """
        SELECT symbol, provider, (to_jsonb(leg) - 'instrument_id')::text
        FROM option_contracts AS leg JOIN instruments USING (instrument_id)
        ORDER BY ts, symbol, provider, rev""",
    "instruments": """
        SELECT symbol, underlying, expiry, strike, kind, provider, security_id, lot, valid_from,
            valid_to::text
        FROM instruments ORDER BY symbol, provider, valid_from""",
    "ledger": "SELECT id, stream_id, ts, n, rejected FROM ledger ORDER BY id",
    "coverage": "SELECT * FROM coverage ORDER BY symbol, minute, provider",
    "gaps": "SELECT * FROM gaps ORDER BY symbol, starts, provider",
}


def chain_at(number: int, strikes: int = 4, *, rev: int | None = None, **asked: Any) -> Arrived:
    """The `number`th snapshot of a chain, a few seconds after the one before."""
    ts_ingest = START + number * 60 * SECOND_NS // PER_MINUTE
    made = chains.enriched(strikes, ts_ingest=ts_ingest, **asked)
    rev = rev or CALCULATION_REVISION
    chain = EnrichedChain(msgspec.structs.replace(made.header, rev=rev), made.legs)
    header = chain.header
    id = f"{header.provider}:{header.chain}:{ts_ingest}:0123456789abcdef:r{rev}"
    return arrived(chain, number + 1, id=id)


def a_day(snapshots: int = 30) -> list[Arrived]:
    """Snapshots of two underlyings, and some of them by an older revision too."""
    batch = [chain_at(number) for number in range(snapshots)]
    batch += [chain_at(number, underlying="BANKNIFTY") for number in range(0, snapshots, 3)]
    return batch + [chain_at(number, rev=1) for number in range(0, snapshots, 5)]


async def store(url: str, batch: Sequence[Arrived]) -> None:
    """Write chains as the storage worker does."""
    async with open_database(url) as database:
        await Writer(database, lambda: START).write(batch)


def add_coverage(url: str) -> None:
    """What reports of polls say of the day: a minute that was not complete, and why."""
    with psycopg.connect(url) as connection:
        connection.execute(b"UPDATE coverage SET expected = present + 1 WHERE symbol LIKE 'NIFTY%'")
        connection.execute(
            b"INSERT INTO gaps SELECT minute, minute + '3 s', 1, symbol, provider, 'us', 'busy' "
            b"FROM coverage WHERE symbol LIKE 'NIFTY%'"
        )
        connection.execute(
            b"INSERT INTO ledger SELECT 'dhan:' || symbol || ':' || extract(epoch FROM minute) "
            b"|| ':polls:r1', '1-0', minute, 0 FROM coverage"
        )


def execute(url: str, statement: str) -> None:
    """Change what is stored behind everybody's back."""
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


async def export(url: str, root: Path, day: date = DAY, *only: str) -> list[Exported]:
    """Export a day."""
    async with open_database(url) as database:
        return [one async for one in Exporter(database, root, LATER).export(day, only)]


async def load(url: str, directory: Path, *only: str) -> list[Imported]:
    """Check and import a day's directory."""
    async with open_database(url) as database:
        importer = Importer(database, directory)
        return [one async for one in importer.load(importer.check(only))]


def check(directory: Path) -> None:
    """Raise ColdStoreError unless every file that the day's manifest names is as it was written."""
    Importer(Database("postgresql://127.0.0.1/none"), directory).check()


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that are stored."""
    with psycopg.connect(url) as connection:
        return {name: connection.execute(sql.encode()).fetchall() for name, sql in TABLES.items()}
