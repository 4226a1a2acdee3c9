"""Reading by a connection that a successor knows of, and by no other."""

from pipeline.config import Settings
from pipeline.streams.links import Link
from pipeline.streams.reading import Reading
from tests.support import bus
from tests.support.conformance import Target


async def test_nothing_is_read_by_a_connection_that_the_lease_does_not_speak_of(
    server: Target, stream: str
) -> None:
    settings = Settings(redis_url=server.url, redis_cluster=server.is_cluster)
    link = Link(settings, stream, "reading")
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 1)
        await context.redis.xgroup_create(stream, "group", "0-0")
        reading = Reading(link, stream, "group")
        assert await reading.read("member", 8, 50, None, ahead=False) == []
        told = link.identity
        await link.drop()
        assert await reading.read("member", 8, 50, told, ahead=False) == []
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0
        entries = await reading.read("member", 8, 50, link.identity, ahead=False)
        assert [entry.id for entry in entries] == ["id-0"]
        await link.drop()
