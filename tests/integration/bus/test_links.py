"""A connection of the bus that is given up while several tasks use it."""

import asyncio

from pipeline.config import Settings
from pipeline.streams.links import AWAY, Link
from tests.support.conformance import Target


async def test_dropped_connection_fails_every_call_on_it_as_one_that_is_away(
    server: Target, stream: str
) -> None:
    settings = Settings(redis_url=server.url, redis_cluster=server.is_cluster)
    link = Link(settings, stream, "dropped")
    client = await link.client()
    waiting = asyncio.ensure_future(client.blpop([f"{stream}:nothing"], timeout=3))
    queued = asyncio.ensure_future(client.set(f"{stream}:late", "sent"))
    await asyncio.sleep(0.05)  # both are under way: one sent, one waiting for its turn
    await link.drop()
    for call in (waiting, queued):
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], AWAY)
    again = await link.client()
    assert again is not client
    assert await again.get(f"{stream}:late") is None
    await link.drop()
