"""The bench of reads asks the shipped tables and a heap the same, and both answer the same."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from stockify.bench.storage import reads
from stockify.bench.storage.past import Past, fill
from tests.support.postgres import PostgresServer, open_database

PAST = Past(days=2, snapshots=60, strikes=6)


@pytest.fixture(scope="module")
def past_url(wheel_server: PostgresServer) -> Iterator[str]:
    with wheel_server.database() as url:
        fill(url, PAST, lambda said: None)
        asyncio.run(reads.roll(url, PAST))
        yield url


async def test_heap_answers_what_the_shipped_tables_answer(past_url: str) -> None:
    chosen = random.Random(1)
    async with (
        open_database(past_url) as shipped,
        open_database(reads.heap_url(past_url)) as heap,
    ):
        for _, ask in reads.READS.values():
            choice = reads.choose(PAST, chosen)
            answer = await ask(shipped, choice)
            assert answer
            assert answer == await ask(heap, choice)


async def test_heap_is_read_from_its_own_schema(past_url: str) -> None:
    choice = reads.choose(PAST, random.Random(1))
    _, ask = reads.READS["contract_page"]
    async with open_database(reads.heap_url(past_url)) as heap:
        async with heap.session() as session:
            await session.run_script("TRUNCATE unpartitioned.option_contracts")
        assert await ask(heap, choice) == []
    async with open_database(past_url) as shipped:
        assert await ask(shipped, choice) != []
