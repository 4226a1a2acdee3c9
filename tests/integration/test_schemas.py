"""The schema registry on a real server."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from redis.crc import key_slot

from pipeline import models, schemas, topics
from pipeline.errors import BusUnavailable, DecodeError, SchemaConflict
from pipeline.schemas import SCHEMAS, Level, Registry, Schema, schema_of
from pipeline.subjects import Subject, ids
from tests.support import bus, documents
from tests.support.rooms import CHECKOUT
from workers import processor
from workers.ingest import __main__ as ingest

CHAIN = SCHEMAS[models.ENRICHED_CHAIN_TYPE]
EXPIRIES = SCHEMAS[models.ENRICHED_EXPIRIES_TYPE]


class Signal(msgspec.Struct):
    chain: str
    side: int


class BetterSignal(msgspec.Struct):
    chain: str
    side: int
    strength: float = 0.0


class WrongSignal(msgspec.Struct):
    chain: str
    side: str


def with_field(name: str, kind: str) -> Schema:
    """The chain's schema with a further field in its header."""
    document: dict[str, Any] = msgspec.json.decode(CHAIN.text)
    document["$defs"]["ChainHeader"]["properties"][name] = {"type": kind}
    return Schema(CHAIN.type, document, CHAIN.level)


async def stored(context: Any, schema: Schema) -> bytes | None:
    found: bytes | None = await context.redis.hget(
        topics.schema(schema.subject), str(schema.version)
    )
    return found


async def subject_of(context: Any, name: str) -> Subject:
    found = await Registry(context.redis).subject(name)
    assert found is not None
    return found


def test_keys_of_a_subject_share_a_slot_of_a_cluster() -> None:
    for name in ("chain.enriched", "signals", "a-b_c.d"):
        keys = (topics.schema(name), topics.schema_log(name))
        assert len({key_slot(key.encode()) for key in keys}) == 1


async def test_registered_schemas_are_kept_by_subject_and_version(valkey: str) -> None:
    async with bus.context(valkey) as context:
        for _ in range(2):
            await schemas.register(context.redis, list(SCHEMAS.values()))
        registry = Registry(context.redis)
        assert await registry.subjects() == sorted(schema.subject for schema in SCHEMAS.values())
        for schema in SCHEMAS.values():
            texts = await context.redis.hgetall(topics.schema(schema.subject))
            assert {name: json.loads(text) for name, text in texts.items()} == {
                b"1": schema.document
            }
            subject = await subject_of(context, schema.subject)
            assert subject.level is schema.level
            assert [one.schema.encode() for one in subject.revisions] == [schema.text]
            revision = subject.newest(1)
            assert revision.id == next(ids(schema.subject, 1, schema.text.decode()))
            assert await registry.revision(revision.id) == (schema.subject, revision)


async def test_nothing_is_registered_at_first(valkey: str) -> None:
    async with bus.context(valkey) as context:
        registry = Registry(context.redis)
        assert await registry.subjects() == []
        assert await registry.subject("chain.raw") is None
        assert await registry.revision(1) is None


async def test_conflict_stores_nothing_of_what_came_with_it(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await schemas.register(context.redis, [with_field("n", "string")])
        with pytest.raises(SchemaConflict, match=r"chain\.enriched\.v1.*data\.h\.n: type"):
            await schemas.register(context.redis, [EXPIRIES, CHAIN])
        assert not await context.redis.exists(topics.schema(EXPIRIES.subject))
        assert await stored(context, CHAIN) == with_field("n", "string").text
        assert await Registry(context.redis).subjects() == [CHAIN.subject]


async def test_grown_schema_replaces_and_an_older_writer_is_let_in(valkey: str) -> None:
    grown = with_field("new", "number")
    async with bus.context(valkey) as context:
        for schema in (CHAIN, grown, CHAIN):
            await schemas.register(context.redis, [schema])
        assert await stored(context, CHAIN) == grown.text


async def test_older_writer_that_was_never_seen_is_remembered(valkey: str) -> None:
    grown = with_field("new", "number")
    async with bus.context(valkey) as context:
        for schema in (grown, CHAIN):
            await schemas.register(context.redis, [schema])
        assert await stored(context, CHAIN) == grown.text
        subject = await subject_of(context, CHAIN.subject)
        assert [one.schema.encode() for one in subject.revisions] == [grown.text, CHAIN.text]


async def test_ids_stay_for_ever_while_a_version_grows(valkey: str) -> None:
    async with bus.context(valkey) as context:
        registry = Registry(context.redis)
        texts: dict[int, bytes] = {}
        for schema in (CHAIN, with_field("new", "number"), CHAIN):
            await schemas.register(context.redis, [schema])
            newest = (await subject_of(context, CHAIN.subject)).newest(1)
            texts.setdefault(newest.id, newest.schema.encode())
            for number, text in texts.items():
                found = await registry.revision(number)
                assert found is not None
                assert (found[0], found[1].schema.encode()) == (CHAIN.subject, text)
        assert len(texts) == 2
        await context.redis.flushall()
        await schemas.register(context.redis, [CHAIN])
        assert (await subject_of(context, CHAIN.subject)).newest(1).id in texts


async def test_id_that_is_taken_is_passed_over(valkey: str) -> None:
    wanted = ids(CHAIN.subject, 1, CHAIN.text.decode())
    first, second = next(wanted), next(wanted)
    async with bus.context(valkey) as context:
        await context.redis.hset(topics.SCHEMA_IDS, str(first), "somebody.else 1 0")
        await schemas.register(context.redis, [CHAIN])
        assert (await subject_of(context, CHAIN.subject)).newest(1).id == second
        assert await Registry(context.redis).revision(first) is None
        assert await Registry(context.redis).subjects() == [CHAIN.subject]


async def test_field_grown_apart_at_once_is_refused_to_one(valkey: str) -> None:
    apart = [with_field("new", "number"), with_field("new", "string")]
    async with bus.context(valkey) as context:
        await schemas.register(context.redis, [CHAIN])
        outcomes = await asyncio.gather(
            *(schemas.register(context.redis, [schema]) for schema in apart),
            return_exceptions=True,
        )
        assert sorted(map(type, outcomes), key=str) == [type(None), SchemaConflict]
        assert await stored(context, CHAIN) == apart[outcomes.index(None)].text


async def test_many_that_register_at_once_leave_one_log_without_repeats(valkey: str) -> None:
    grown = [with_field(f"new{n}", "number") for n in range(5)]
    async with bus.context(valkey) as context:
        await asyncio.gather(*(schemas.register(context.redis, [one]) for one in grown * 2))
        subject = await subject_of(context, CHAIN.subject)
        assert sorted(one.schema.encode() for one in subject.revisions) == sorted(
            one.text for one in grown
        )
        assert len({one.id for one in subject.revisions}) == 5


async def test_text_registered_without_a_log_is_checked_against_and_taken_up(valkey: str) -> None:
    grown = with_field("new", "number")
    async with bus.context(valkey) as context:
        await context.redis.hset(topics.schema(CHAIN.subject), "1", CHAIN.text)
        with pytest.raises(SchemaConflict, match=r"data\.h\.n: type"):
            await schemas.register(context.redis, [with_field("n", "string")])
        await schemas.register(context.redis, [grown])
        subject = await subject_of(context, CHAIN.subject)
        assert [one.schema.encode() for one in subject.revisions] == [CHAIN.text, grown.text]
        assert subject.unlogged == 0
        assert await Registry(context.redis).revision(subject.revisions[0].id) is not None


async def test_new_version_stands_beside_the_others(valkey: str) -> None:
    async with bus.context(valkey) as context:
        for version, kind in ((1, Signal), (2, BetterSignal)):
            await schemas.register(context.redis, [schema_of("signals", version, kind)])
        subject = await subject_of(context, "signals")
        assert subject.versions == [1, 2]
        assert len({subject.newest(version).id for version in (1, 2)}) == 2
        with pytest.raises(SchemaConflict, match=r"version 1 \(id \d+\): data\.side: type"):
            await schemas.register(context.redis, [schema_of("signals", 3, WrongSignal)])
        assert (await subject_of(context, "signals")).versions == [1, 2]


async def test_stream_of_a_users_own_is_announced_with_a_level(
    valkey: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bus.context(valkey) as context:
        kind = await schemas.announce_type(context, "signals", 1, Signal, level="FULL")
        assert kind == "signals.v1"
        assert (await subject_of(context, "signals")).level is Level.FULL
        with pytest.raises(SchemaConflict, match=r"data\.side: type"):
            await schemas.announce_type(context, "signals", 1, WrongSignal, level="FULL")
        with pytest.raises(SchemaConflict, match="asks for level NONE"):
            await schemas.announce_type(context, "signals", 1, WrongSignal, level="NONE")
    lines = [text for text in capsys.readouterr().out.splitlines() if "schema_refused" in text]
    assert len(lines) == 2


async def test_stream_of_a_users_own_is_written_as_the_page_shows(valkey: str) -> None:
    page = CHECKOUT / "docs/data-model.md"
    names: dict[str, Any] = {"__name__": "engine"}
    exec(documents.example(page, "announce"), names)  # noqa: S102 - our own page
    async with bus.context(valkey) as context:
        await names["engine"](context)
        ((_id, fields),) = await context.redis.xrange(context.topics.stream("signals"))
        assert fields[b"type"] == b"signals.v1"
        assert msgspec.msgpack.decode(fields[b"data"], type=names["Signal"]).side == 1
        subject = await subject_of(context, "signals")
        assert (subject.versions, subject.level) == ([1], Level.FULL_TRANSITIVE)


async def test_level_that_asks_nothing_lets_anything_in(valkey: str) -> None:
    async with bus.context(valkey) as context:
        for kind in (Signal, WrongSignal, Signal):
            await schemas.announce_type(context, "signals", 1, kind, level=Level.NONE)
        assert len((await subject_of(context, "signals")).revisions) == 2


async def test_damaged_subject_refuses_its_writers(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await context.redis.hset(topics.schema(CHAIN.subject), "one", "{}")
        with pytest.raises(SchemaConflict, match="cannot be read"):
            await schemas.register(context.redis, [CHAIN])
        with pytest.raises(DecodeError):
            await Registry(context.redis).subject(CHAIN.subject)


async def test_processor_ends_on_a_conflict_with_a_line_that_says_so(
    valkey: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bus.context(valkey) as context:
        await schemas.register(context.redis, [with_field("n", "string")])
        with pytest.raises(SchemaConflict):
            await processor.process(context)
        assert await context.redis.exists(context.topics.raw()) == 0
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "schema_refused" in text]
    assert "data.h.n: type" in json.loads(line)["error"]


async def test_ingest_ends_on_a_conflict(valkey: str) -> None:
    raw = SCHEMAS[models.RAW_CHAIN_TYPE]
    async with bus.context(valkey, "ingest") as context:
        await context.redis.hset(topics.schema(raw.subject), str(raw.version), b'{"type":"string"}')
        with pytest.raises(SchemaConflict, match="type"):
            await ingest.ingest(context)


async def test_full_redis_is_waited_for_unless_everything_is_registered(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await schemas.announce(context, schemas.RAW_TYPES)
        try:
            await context.redis.config_set("maxmemory", 1)
            await asyncio.wait_for(schemas.announce(context, schemas.RAW_TYPES), 15)
            waiting = asyncio.create_task(schemas.announce(context, schemas.ENRICHED_TYPES))
            async with asyncio.timeout(15):
                while "Redis is full" not in context.telemetry.reason:
                    await asyncio.sleep(0.02)
        finally:
            await context.redis.config_set("maxmemory", 0)
        await asyncio.wait_for(waiting, 15)
        registered = await Registry(context.redis).subjects()
        assert len(registered) == len({*schemas.RAW_TYPES, *schemas.ENRICHED_TYPES})


async def test_worker_waits_for_a_redis_that_is_away_until_it_is_stopped() -> None:
    async with bus.context("redis://127.0.0.1:1/0") as context:
        waiting = asyncio.create_task(schemas.announce(context, schemas.RAW_TYPES))
        async with asyncio.timeout(15):
            while "Redis is away" not in context.telemetry.reason:
                await asyncio.sleep(0.02)
        assert not waiting.done()
        context.stopping.set()
        await asyncio.wait_for(waiting, 15)
        with pytest.raises(BusUnavailable):
            await Registry(context.redis).subjects()
