"""Newest chains kept while they are the newest: on a real Valkey, always true, read once."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from pipeline import latest
from pipeline.config import Settings
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.frames import LatestChain
from pipeline.known import KEPT_BYTES, KnownChains
from pipeline.latest import Latest
from pipeline.models import EnrichedChain
from pipeline.runtime import Redis, connect
from pipeline.streams.links import Link
from pipeline.topics import Topics
from tests.support.gateway import CHAIN, moved, publish
from tests.support.servers import free_port

TOPICS = Topics()
SYMBOL = CHAIN.header.chain
OTHER = "NIFTY-20260203"


class Reading(Latest):
    """Remembers which texts were asked for."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, TOPICS)
        self.fetched: list[str] = []

    async def texts(self, symbols: Sequence[str]) -> list[bytes | None]:
        self.fetched += symbols
        return await super().texts(symbols)


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    client = connect(Settings(redis_url=valkey))
    yield client
    await client.aclose()


class Known(KnownChains):
    """With what it reads from."""

    def __init__(self, reading: Reading, url: str, kept_bytes: int = KEPT_BYTES) -> None:
        self.reading = reading
        self.link = Link(Settings(redis_url=url), TOPICS.catalog(), "known")
        super().__init__(reading, TOPICS, [self.link], kept_bytes)


@pytest.fixture
async def known(redis: Redis, valkey: str) -> AsyncIterator[Known]:
    found = Known(Reading(redis), valkey)
    yield found
    await found.close()


def other() -> EnrichedChain:
    return EnrichedChain(msgspec.structs.replace(CHAIN.header, chain=OTHER), CHAIN.legs)


async def test_text_is_fetched_once_while_its_position_stands(redis: Redis, known: Known) -> None:
    await publish(redis, TOPICS, CHAIN, 5)
    first = await known.chain(SYMBOL)
    assert first is not None
    assert first.position.seq == 5
    assert await known.chain(SYMBOL) is first
    assert known.reading.fetched == [SYMBOL]


async def test_newer_chain_is_given_as_soon_as_it_is_written(redis: Redis, known: Known) -> None:
    for seq in range(1, 20):
        await publish(redis, TOPICS, moved(CHAIN, seconds=seq), seq)
        found = await known.chain(SYMBOL)
        assert found is not None
        assert found.position.seq == seq


async def test_chain_that_is_gone_is_not_known_any_more(redis: Redis, known: Known) -> None:
    assert await known.chain(SYMBOL) is None
    await publish(redis, TOPICS, CHAIN, 5)
    assert await known.chain(SYMBOL) is not None
    await redis.flushall()
    assert await known.chain(SYMBOL) is None


async def test_askers_of_an_instant_share_what_one_of_them_fetched(
    redis: Redis, known: Known
) -> None:
    await publish(redis, TOPICS, CHAIN, 1)
    askers = [known.chain(SYMBOL) for _ in range(50)]
    found = await asyncio.gather(*askers)
    assert all(one is found[0] for one in found)
    assert known.reading.fetched == [SYMBOL]


async def test_askers_of_a_round_share_one_question(redis: Redis, known: Known) -> None:
    async def asked() -> int:
        return int((await redis.info("commandstats"))["cmdstat_get"]["calls"])

    await publish(redis, TOPICS, CHAIN, 1)
    first = await known.chain(SYMBOL)
    before = await asked()
    askers = [asyncio.ensure_future(known.chain(SYMBOL)) for _ in range(20)]
    await asyncio.sleep(0)
    askers[0].cancel()  # the one that others rely on
    found = await asyncio.gather(*askers, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(one is first for one in found[1:])
    assert await asked() == before + 1


async def test_no_more_is_kept_than_allowed(redis: Redis, valkey: str) -> None:
    await publish(redis, TOPICS, CHAIN, 1)
    await publish(redis, TOPICS, other(), 2)
    known = Known(Reading(redis), valkey, kept_bytes=1)
    for symbol in (SYMBOL, OTHER, OTHER, SYMBOL):
        assert await known.chain(symbol) is not None
    assert known.reading.fetched == [SYMBOL, OTHER, SYMBOL]
    await known.close()


async def test_lost_connection_costs_no_answer(redis: Redis, known: Known) -> None:
    await publish(redis, TOPICS, CHAIN, 1)
    for seq in range(2, 6):
        (client,) = [
            one["id"] for one in await redis.client_list() if one["name"] == "stockify-known"
        ] or [None]
        if client is not None:
            await redis.client_kill_filter(_id=client)
        await publish(redis, TOPICS, moved(CHAIN, seconds=seq), seq)
        found = await known.chain(SYMBOL)
        assert found is not None
        assert found.position.seq == seq
    assert known.link.generation >= 2


async def test_broken_text_is_told(redis: Redis, known: Known) -> None:
    await publish(redis, TOPICS, CHAIN, 1)
    await redis.set(TOPICS.latest(SYMBOL), b'{"type":"chain","rows":[')
    with pytest.raises(DecodeError):
        await known.chain(SYMBOL)


async def test_absent_redis_is_told() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    client = connect(Settings(redis_url=url), retries=0)
    known = Known(Reading(client), url)
    told = await asyncio.gather(*(known.chain(SYMBOL) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in told] == [BusUnavailable] * 3
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
