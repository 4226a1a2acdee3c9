"""The schema registry on a real server."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from pipeline import models, schemas, topics
from pipeline.errors import SchemaConflict
from pipeline.schemas import SCHEMAS, Schema
from tests.support import bus
from workers import processor
from workers.ingest import __main__ as ingest

CHAIN = SCHEMAS[models.ENRICHED_CHAIN_TYPE]
EXPIRIES = SCHEMAS[models.ENRICHED_EXPIRIES_TYPE]


def with_field(name: str, kind: str) -> Schema:
    """The chain's schema with a further field in its header."""
    document: dict[str, Any] = msgspec.json.decode(CHAIN.text)
    document["$defs"]["ChainHeader"]["properties"][name] = {"type": kind}
    return Schema(CHAIN.type, document)


async def test_registered_schemas_are_kept_by_subject_and_version(valkey: str) -> None:
    async with bus.context(valkey) as context:
        for _ in range(2):
            await schemas.register(context.redis, list(SCHEMAS.values()))
        for schema in SCHEMAS.values():
            stored = await context.redis.hgetall(topics.schema(schema.subject))
            assert {name: json.loads(text) for name, text in stored.items()} == {
                b"1": schema.document
            }


async def test_conflict_stores_nothing_of_what_came_with_it(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await schemas.register(context.redis, [with_field("n", "string")])
        with pytest.raises(SchemaConflict, match=r"chain\.enriched\.v1.*properties/n"):
            await schemas.register(context.redis, [EXPIRIES, CHAIN])
        assert not await context.redis.exists(topics.schema(EXPIRIES.subject))
        stored = await context.redis.hget(topics.schema(CHAIN.subject), CHAIN.version)
        assert stored == with_field("n", "string").text


async def test_grown_schema_replaces_and_an_older_writer_is_let_in(valkey: str) -> None:
    grown = with_field("new", "number")
    async with bus.context(valkey) as context:
        for schema in (CHAIN, grown, CHAIN):
            await schemas.register(context.redis, [schema])
        stored = await context.redis.hget(topics.schema(CHAIN.subject), CHAIN.version)
        assert stored == grown.text


async def test_of_two_that_grow_apart_at_once_one_is_refused(valkey: str) -> None:
    apart = [with_field("left", "number"), with_field("right", "number")]
    async with bus.context(valkey) as context:
        await schemas.register(context.redis, [CHAIN])
        outcomes = await asyncio.gather(
            *(schemas.register(context.redis, [schema]) for schema in apart),
            return_exceptions=True,
        )
        assert sorted(map(type, outcomes), key=str) == [type(None), SchemaConflict]
        stored = await context.redis.hget(topics.schema(CHAIN.subject), CHAIN.version)
        assert stored == apart[outcomes.index(None)].text


async def test_processor_ends_on_a_conflict_with_a_line_that_says_so(
    valkey: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bus.context(valkey) as context:
        await schemas.register(context.redis, [with_field("n", "string")])
        with pytest.raises(SchemaConflict):
            await processor.process(context)
        assert await context.redis.exists(context.topics.raw()) == 0
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "schema_refused" in text]
    assert "properties/n" in json.loads(line)["error"]


async def test_ingest_ends_on_a_conflict(valkey: str) -> None:
    raw = SCHEMAS[models.RAW_CHAIN_TYPE]
    async with bus.context(valkey, "ingest") as context:
        await context.redis.hset(topics.schema(raw.subject), raw.version, b'{"type":"string"}')
        with pytest.raises(SchemaConflict, match="type"):
            await ingest.ingest(context)


async def test_worker_waits_for_a_redis_that_is_away_until_it_is_stopped() -> None:
    async with bus.context("redis://127.0.0.1:1/0") as context:
        waiting = asyncio.create_task(schemas.announce(context, schemas.RAW_TYPES))
        async with asyncio.timeout(15):
            while "Redis is away" not in context.telemetry.reason:
                await asyncio.sleep(0.02)
        assert not waiting.done()
        context.stopping.set()
        await asyncio.wait_for(waiting, 15)
