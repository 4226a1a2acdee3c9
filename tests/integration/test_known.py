"""Newest chains kept while they are the newest: on a real Valkey, always true, read once."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from pipeline import latest
from pipeline.config import Settings
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.frames import LatestChain
from pipeline.known import KnownChains
from pipeline.latest import Latest
from pipeline.models import EnrichedChain
from pipeline.runtime import Redis, connect
from pipeline.topics import Topics
from tests.support.gateway import CHAIN, moved, publish
from tests.support.servers import free_port

TOPICS = Topics()
SYMBOL = CHAIN.header.chain
OTHER = "NIFTY-20260203"


class Reading(Latest):
    """Remembers which texts and how often positions were asked for."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, TOPICS)
        self.fetched: list[str] = []
        self.questions = 0

    async def texts(self, symbols: Sequence[str]) -> list[bytes | None]:
        self.fetched += symbols
        return await super().texts(symbols)

    async def positions(self, symbols: Sequence[str]) -> list[bytes | None]:
        self.questions += 1
        return await super().positions(symbols)


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    client = connect(Settings(redis_url=valkey))
    yield client
    await client.aclose()


def other() -> EnrichedChain:
    return EnrichedChain(msgspec.structs.replace(CHAIN.header, chain=OTHER), CHAIN.legs)


async def test_text_is_fetched_once_while_its_position_stands(redis: Redis) -> None:
    await publish(redis, TOPICS, CHAIN, 5)
    reading = Reading(redis)
    known = KnownChains(reading)
    first = await known.chain(SYMBOL)
    assert first is not None
    assert first.position.seq == 5
    assert await known.chain(SYMBOL) is first
    assert reading.fetched == [SYMBOL]


async def test_newer_chain_is_given_as_soon_as_it_is_written(redis: Redis) -> None:
    known = KnownChains(Reading(redis))
    for seq in range(1, 20):
        await publish(redis, TOPICS, moved(CHAIN, seconds=seq), seq)
        found = await known.chain(SYMBOL)
        assert found is not None
        assert found.position.seq == seq


async def test_chain_that_is_gone_is_not_known_any_more(redis: Redis) -> None:
    known = KnownChains(Reading(redis))
    assert await known.chain(SYMBOL) is None
    await publish(redis, TOPICS, CHAIN, 5)
    assert await known.chain(SYMBOL) is not None
    await redis.flushall()
    assert await known.chain(SYMBOL) is None


async def test_askers_of_an_instant_share_a_question_and_are_never_told_what_was(
    redis: Redis,
) -> None:
    await publish(redis, TOPICS, CHAIN, 1)
    reading = Reading(redis)
    known = KnownChains(reading)
    early = [asyncio.create_task(known.chain(SYMBOL)) for _ in range(50)]
    await asyncio.sleep(0)  # they are asking
    await publish(redis, TOPICS, moved(CHAIN, seconds=1), 2)
    late = await known.chain(SYMBOL)
    assert late is not None
    assert late.position.seq == 2
    assert all(await asyncio.gather(*early))
    assert reading.questions == 2


async def test_no_more_is_kept_than_allowed(redis: Redis) -> None:
    await publish(redis, TOPICS, CHAIN, 1)
    await publish(redis, TOPICS, other(), 2)
    reading = Reading(redis)
    known = KnownChains(reading, kept_bytes=1)
    for symbol in (SYMBOL, OTHER, OTHER, SYMBOL):
        assert await known.chain(symbol) is not None
    assert reading.fetched == [SYMBOL, OTHER, SYMBOL]


async def test_broken_text_is_told_to_its_askers_alone(redis: Redis) -> None:
    await publish(redis, TOPICS, other(), 1)
    await redis.set(TOPICS.latest(SYMBOL), b'{"type":"chain","rows":[')
    known = KnownChains(Reading(redis))
    broken, whole = await asyncio.gather(
        known.chain(SYMBOL), known.chain(OTHER), return_exceptions=True
    )
    assert isinstance(broken, DecodeError)
    assert isinstance(whole, LatestChain)


async def test_absent_redis_is_told_to_every_asker() -> None:
    client = connect(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"), retries=0)
    known = KnownChains(Reading(client))
    found = await asyncio.gather(known.chain(SYMBOL), known.chain(OTHER), return_exceptions=True)
    assert [type(one) for one in found] == [BusUnavailable, BusUnavailable]
    await client.aclose()


async def test_rows_that_are_not_scanned_are_the_rows(redis: Redis) -> None:
    await publish(redis, TOPICS, CHAIN, 5)
    (text,) = await Latest(redis, TOPICS).texts([SYMBOL])
    assert text is not None
    found = latest.decode_latest(SYMBOL, text)
    scanned = msgspec.json.decode(text, type=LatestChain)
    assert isinstance(found, LatestChain)
    assert bytes(memoryview(found.rows)) == bytes(memoryview(scanned.rows))
    empty = msgspec.Raw(b"[]")
    assert msgspec.structs.replace(found, rows=empty) == msgspec.structs.replace(
        scanned, rows=empty
    )
    with pytest.raises(DecodeError):
        latest.decode_latest(SYMBOL, text[:-1])
