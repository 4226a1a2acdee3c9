"""The counting of the faults' bench notices what is lost, double or out of its order."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.clock import SECOND_NS
from pipeline.database import Database
from pipeline.entries import NewEntry
from pipeline.topics import Topics, sequence
from stockify.bench.faults.books import Books
from stockify.bench.faults.journal import Journal, JournalReader, Kind, Promise
from stockify.bench.faults.progress import Progress, ledger_id
from tests.support import bus, chains
from tests.support.postgres import open_database
from tests.support.storing import arrived
from workers.storage.writer import Writer

START = chains.TS_INGEST
TOPICS = Topics()


class Desk:
    """Promises on one side, streams and rows on the other, and the books between."""

    def __init__(self, books: Books, journal: Journal, database: Database, url: str) -> None:
        self.books = books
        self._journal = journal
        self._database = database
        self._url = url

    def promise(self, number: int, kind: Kind = "chain") -> str:
        """An entry that must come out."""
        message_id = f"simulator:NIFTY:{START + number * SECOND_NS}:d"
        self._journal.note(Promise(message_id, kind))
        return message_id

    async def store(self, message_id: str) -> None:
        """Its rows, as storage commits them."""
        ts = int(message_id.split(":")[2])
        chain = chains.enriched(3, ts_ingest=ts)
        writer = Writer(self._database, lambda: ts)
        await writer.write([arrived(chain, id=ledger_id(message_id))])

    async def append(self, stream: str, *message_ids: str) -> None:
        """Entries of a stream, whatever stands there."""
        entries = [
            NewEntry(id=one, type="test.v1", key="NIFTY", ts=int(one.split(":")[2]))
            for one in message_ids
        ]
        async with bus.context(self._url) as context:
            await bus.append(context, stream, *entries)

    async def delete(self, stream: str) -> None:
        """Have a stream lost, and its numbering too."""
        async with bus.context(self._url) as context:
            await context.redis.delete(stream, sequence(stream))

    async def set_aside(self, message_id: str) -> None:
        """A dead letter."""
        async with bus.context(self._url) as context:
            await context.redis.xadd(TOPICS.dead(), {"id": message_id, "reason": "undecodable"})


@pytest.fixture
async def desk(valkey: str, plain_database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    reader, journal = JournalReader(tmp_path / "journal"), Journal(tmp_path / "journal")
    async with open_database(plain_database_url) as database, bus.context(valkey) as context:
        progress = Progress(reader, database, context.redis, TOPICS)
        yield Desk(Books(progress, database, context.redis, TOPICS), journal, database, valkey)
    journal.close()
    reader.close()


async def test_what_came_out_once_is_neither_lost_nor_double(desk: Desk) -> None:
    ids = [desk.promise(number) for number in range(3)]
    await desk.append(TOPICS.raw(), *ids)
    await desk.append(TOPICS.enriched(), *ids)
    for one in ids:
        await desk.store(one)
    counted = await desk.books.count()
    assert counted.entries == 3
    assert (counted.lost, counted.double, counted.disorder) == ([], [], [])
    assert (await desk.books.count()).entries == 0  # what is counted is not counted again


async def test_promise_without_rows_is_lost(desk: Desk) -> None:
    kept, lost = desk.promise(1), desk.promise(2)
    await desk.store(kept)
    assert (await desk.books.count()).lost == [f"nowhere: {lost}"]


async def test_poison_without_a_dead_letter_is_lost_and_with_one_is_not(desk: Desk) -> None:
    poison = desk.promise(1, "poison")
    counted = await desk.books.count()
    assert counted.lost == [f"nowhere: {poison}", f"poison without its reason: {poison}"]
    await desk.set_aside(desk.promise(2, "poison"))
    counted = await desk.books.count()
    assert (counted.lost, counted.dead_letters) == ([], 1)


async def test_good_entry_that_was_set_aside_is_told_with_its_reason(desk: Desk) -> None:
    good = desk.promise(1)
    await desk.set_aside(desk.promise(2, "poison"))
    await desk.set_aside(good)
    counted = await desk.books.count()
    assert counted.refused == [f"{good}: undecodable: "]
    assert (counted.lost, counted.dead_letters) == ([], 2)


async def test_entry_twice_in_a_stream_is_double(desk: Desk) -> None:
    one, two = desk.promise(1), desk.promise(2)
    for stored in (one, two):
        await desk.store(stored)
    await desk.append(TOPICS.enriched(), one, two, two)
    counted = await desk.books.count()
    assert [line.partition(" in ")[0] for line in counted.double] == ["2 times"]
    assert counted.disorder != []  # the second of them is no newer than the first


async def test_older_entry_behind_a_newer_is_out_of_order_but_not_in_a_new_epoch(
    desk: Desk,
) -> None:
    one, two = desk.promise(1), desk.promise(2)
    for stored in (one, two):
        await desk.store(stored)
    await desk.append(TOPICS.raw(), two)
    await desk.delete(TOPICS.raw())
    await desk.append(TOPICS.raw(), one)
    assert (await desk.books.count()).disorder == []
    await desk.append(TOPICS.enriched(), two, one)
    assert len((await desk.books.count()).disorder) == 1


async def test_legs_that_nobody_speaks_of_are_double_and_missing_legs_are_lost(
    desk: Desk, plain_database_url: str
) -> None:
    first, second = desk.promise(1), desk.promise(2)
    for one in (first, second):
        await desk.store(one)
    async with open_database(plain_database_url) as database, database.session() as session:
        await session.run_script(
            "DELETE FROM ledger WHERE ts = (SELECT min(ts) FROM ledger);"
            "DELETE FROM option_contracts WHERE instrument_id = 1"
            " AND ts > (SELECT min(ts) FROM option_contracts)"
        )
    counted = await desk.books.count()
    assert [line.partition(":")[0] for line in counted.double] == [first.split(":")[2]]
    assert counted.lost[0].startswith(second.split(":")[2])
