"""Archived days calculated anew: beside the old rows, once, and stopped at any time."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psycopg
import pytest

from pipeline import bodies, history, models
from pipeline.archive import Archive, place
from pipeline.clock import SECOND_NS, Clock
from pipeline.database import Database
from pipeline.entries import Entry
from pipeline.errors import ConfigError
from pipeline.frames import open_frame
from pipeline.models import CALCULATION_REVISION
from stockify.commands.reenriching import told
from stockify.recalculation import Outcome, Recalculation
from tests.support import chains, cold
from tests.support.postgres import open_database
from workers import processor
from workers.storage.writer import Arrived, Writer

DEADLINE_S = 60.0
COUNT = b"SELECT count(*), count(DISTINCT rev) FROM market_snapshots"


def raw(
    number: int, body: bytes = b"", strikes: int = 4, kind: str = models.RAW_CHAIN_TYPE
) -> Entry:
    """An entry of the raw stream as the archiver read it."""
    ts_ingest = chains.TS_INGEST + number * SECOND_NS
    body = body or chains.encoded(chains.body(strikes))
    made = bodies.raw_entry(kind, chains.request_context(), body, ts_ingest)
    return Entry(
        stream_id=f"{number + 1}-0",
        id=made.id,
        type=made.type,
        key=made.key,
        ts=made.ts,
        te=None,
        seq=number + 1,
        epoch="raw-epoch",
        traceparent="",
        enc=made.enc,
        meta=made.meta,
        data=made.data,
        attempts=1,
    )


def archive(state: Path, entries: Iterable[Entry]) -> None:
    files = Archive(state / "archive")
    chosen = list(entries)
    files.write(place(chosen[0]), chosen)
    files.close()


async def store_as(database: Database, rev: int, entries: Iterable[Entry]) -> None:
    """What the processor and the storage worker of another revision made of these entries."""
    batch = []
    for entry in entries:
        made, _ = processor.derive(entry, te=entry.ts, rate=0.05, greeks="all", traceparent="")
        header, columns = open_frame(made.data)
        header = msgspec.structs.replace(header, rev=rev)
        id = f"{entry.id}:r{rev}"
        batch.append(Arrived(id, entry.stream_id, "epoch", entry.seq, entry.ts, header, columns))
    await Writer(database, lambda: cold.START).write(batch)


def recalculation(database: Database, state: Path) -> Recalculation:
    return Recalculation(database, state / "archive", Clock(), rate=0.065, greeks="all")


async def reenriched(url: str, state: Path) -> Outcome:
    async with open_database(url) as database:
        again = recalculation(database, state)
        (path,) = again.files(cold.DAY)
        return await again.run(path, lambda outcome: None)


def of_revision(url: str, rev: int) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        statement = (
            b"SELECT to_jsonb(leg)::text FROM option_contracts AS leg WHERE rev = %s ORDER BY 1"
        )
        return connection.execute(statement, [rev]).fetchall()


async def test_new_revision_stands_beside_the_old_which_stays(
    database_url: str, tmp_path: Path
) -> None:
    entries = [raw(number) for number in range(12)]
    archive(tmp_path, entries)
    async with open_database(database_url) as database:
        await store_as(database, 1, entries)
    old, before = of_revision(database_url, 1), cold.contents(database_url)
    outcome = await reenriched(database_url, tmp_path)
    assert (outcome.new, outcome.rows, outcome.known, outcome.undecodable) == (12, 96, 0, 0)
    assert of_revision(database_url, 1) == old
    assert len(of_revision(database_url, CALCULATION_REVISION)) == 96
    after = cold.contents(database_url)
    assert after["coverage"] == before["coverage"]
    assert set(after["ledger"]) > set(before["ledger"])
    assert {row[0] for row in after["ledger"]} == {
        f"{entry.id}:r{rev}" for entry in entries for rev in (1, CALCULATION_REVISION)
    }
    again = await reenriched(database_url, tmp_path)
    assert (again.new, again.known) == (0, 12)
    assert cold.contents(database_url) == after


async def test_reads_as_of_a_time_take_the_newest_revision(
    plain_database_url: str, tmp_path: Path
) -> None:
    entries = [raw(0)]
    archive(tmp_path, entries)
    async with open_database(plain_database_url) as database:
        await store_as(database, 1, entries)
        await reenriched(plain_database_url, tmp_path)
        chain = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, chains.TS_INGEST)
    assert chain is not None
    header, legs = chain
    assert len(legs) == 8
    assert header["rev"] == CALCULATION_REVISION


async def test_archived_body_that_is_stored_already_is_known(
    plain_database_url: str, tmp_path: Path
) -> None:
    entries = [raw(number) for number in range(4)]
    archive(tmp_path, entries)
    async with open_database(plain_database_url) as database:
        await store_as(database, CALCULATION_REVISION, entries[:3])
    outcome = await reenriched(plain_database_url, tmp_path)
    assert (outcome.new, outcome.known) == (1, 3)


async def test_undecodable_bodies_are_told_with_their_reasons(
    plain_database_url: str, tmp_path: Path
) -> None:
    broken = [raw(1, b"<html>busy</html>"), raw(2, b"<html>busy</html>"), raw(3, b"{}")]
    archive(tmp_path, [raw(0), *broken, raw(4, kind=models.RAW_EXPIRIES_TYPE)])
    outcome = await reenriched(plain_database_url, tmp_path)
    assert (outcome.new, outcome.undecodable) == (1, 3)
    lines = told(outcome)
    assert lines[0] == "NIFTY: 1 snapshot new (8 contracts), 0 known, 3 undecodable"
    assert lines[1].startswith("  2 × ")
    assert len(lines) == 3


async def test_damaged_archive_is_told_and_what_stands_before_is_stored(
    plain_database_url: str, tmp_path: Path
) -> None:
    archive(tmp_path, [raw(number) for number in range(3)])
    path = tmp_path / "archive" / cold.DAY.isoformat() / "NIFTY.raw"
    _flip_last_byte(path)
    outcome = await reenriched(plain_database_url, tmp_path)
    assert outcome.new == 2
    assert "damaged" in told(outcome)[-1]


def _flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


async def test_day_without_an_archive_says_who_keeps_one(tmp_path: Path) -> None:
    database = Database("postgresql://127.0.0.1/none")
    with pytest.raises(ConfigError, match="stockify run archiver"):
        recalculation(database, tmp_path).files(cold.DAY)


async def test_interrupted_run_ends_cleanly_and_the_next_goes_on(
    plain_database_url: str, tmp_path: Path
) -> None:
    total = 600
    archive(tmp_path, (raw(number, strikes=20) for number in range(total)))
    environment = os.environ | {
        "STOCKIFY_STATE_DIR": str(tmp_path),
        "STOCKIFY_DATABASE_URL": plain_database_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stockify", "reenrich", "--day", cold.DAY.isoformat()),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not stored(plain_database_url):
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert (process.returncode, b"stopped;" in errors, b"Traceback" in errors) == (130, True, False)
    half = stored(plain_database_url)
    assert 0 < half < total
    outcome = await reenriched(plain_database_url, tmp_path)
    assert (outcome.new, outcome.known) == (total - half, half)
    assert stored(plain_database_url) == total


def stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(COUNT).fetchone()
    assert row is not None
    return int(row[0])
