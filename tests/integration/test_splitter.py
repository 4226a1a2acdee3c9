"""Frames to one entry a contract on a real server: plain text, each exactly once."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from pipeline import frames, models
from pipeline.config import Settings
from pipeline.entries import Entry, NewEntry
from pipeline.errors import ConfigError
from pipeline.models import EnrichedChain
from pipeline.runtime import Context, cancel
from pipeline.streams import Consumer, Producer
from tests.support import bus, chains, worker_process
from workers import splitter

Fields = dict[str, str]


def chain_entry(number: int = 0, strikes: int = 5) -> NewEntry:
    chain = chains.enriched(strikes, ts_ingest=chains.TS_INGEST + number)
    return NewEntry(
        id=f"id-{number}",
        type=models.ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=chain.header.ts_ingest,
        data=frames.encode_frame(chain),
    )


async def contracts(context: Context) -> list[Fields]:
    found = await context.redis.xrange(context.topics.contracts())
    return [
        {name.decode(): value.decode() for name, value in fields.items()} for _id, fields in found
    ]


async def pending(context: Context) -> int:
    stream = context.topics.enriched()
    held = await context.redis.xpending(stream, "splitter")
    groups = await context.redis.xinfo_groups(stream)
    return int(held["pending"]) + int(groups[0]["lag"])


async def split(context: Context) -> None:
    """Run the worker until nothing is left to read or pending."""
    read = context.telemetry.counter("entries_read", "")
    total = await context.redis.xlen(context.topics.enriched())
    async with asyncio.timeout(20):
        async with bus.working(context, splitter.split):
            while read.value < total or await pending(context):
                await asyncio.sleep(0.02)


def test_absent_fields_are_left_out_and_the_rest_is_the_rows_own_text() -> None:
    chain = chains.enriched(2)
    header = msgspec.structs.replace(chain.header, spot=None)
    legs = {name: column.copy() for name, column in chain.legs.items()}
    legs["last"][0] = float("nan")
    legs["volume"][0] = models.NULL_INTEGER
    first, second = splitter.plain_contracts(EnrichedChain(header, legs))[:2]
    row = dict(zip(first[::2], first[1::2], strict=True))
    assert not {"last", "volume", "spot"} & set(row)
    assert {"last", "volume"} < set(second[::2])
    assert row["symbol"] == "NIFTY-20260127-24950-CE"
    assert (row["strike"], row["kind"]) == ("24950.0", "call")
    assert float(row["forward"]) == header.forward
    assert set(row) <= {*frames.ROW_FIELDS, "ts_ingest", "spot", "forward"}


async def test_each_contract_of_a_chain_becomes_an_entry_with_its_number(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await bus.append(context, "stream:enriched", chain_entry(0), chain_entry(1))
        await split(context)
        found = await contracts(context)
        assert [int(fields.pop("seq")) for fields in found] == list(range(1, 21))
        assert len({fields.pop("epoch") for fields in found}) == 1
        rows = frames.leg_rows(chains.enriched(5))
        assert [fields["symbol"] for fields in found] == [row["symbol"] for row in rows] * 2
        assert {name: found[0][name] for name in ("iv", "bid", "open_interest")} == {
            name: str(rows[0][name]) for name in ("iv", "bid", "open_interest")
        }
        assert {fields["ts_ingest"] for fields in found[10:]} == {str(chains.TS_INGEST + 1)}


async def test_only_the_underlyings_it_is_told_are_split(valkey: str) -> None:
    async with bus.context(valkey, splitter_underlyings=("BANKNIFTY",)) as context:
        await bus.append(context, "stream:enriched", chain_entry())
        await split(context)
        assert await contracts(context) == []
        await context.redis.xgroup_setid(context.topics.enriched(), "splitter", "0")
    async with bus.context(valkey, splitter_underlyings=("BANKNIFTY", "NIFTY")) as context:
        await split(context)
        assert len(await contracts(context)) == 10


async def test_underlying_that_nobody_knows_is_refused(valkey: str) -> None:
    async with bus.context(valkey, splitter_underlyings=("NITFY",)) as context:
        with pytest.raises(ConfigError, match="NITFY"):
            await splitter.split(context)


async def test_other_entries_are_passed_by_and_unreadable_ones_set_aside(valkey: str) -> None:
    listed = models.Expiries(underlying="NIFTY", provider="dhan", ts_ingest=5, expiries=())
    fields = {"key": "NIFTY", "ts": 5}
    async with bus.context(valkey) as context:
        await bus.append(
            context,
            "stream:enriched",
            NewEntry(
                id="1",
                type=models.ENRICHED_EXPIRIES_TYPE,
                data=frames.encode_expiries(listed),
                **fields,
            ),
            NewEntry(id="2", type=models.ENRICHED_CHAIN_TYPE, data=b"no frame", **fields),
            NewEntry(id="3", type="chain.enriched.v9", **fields),
            NewEntry(id="4", type=models.ENRICHED_POLLS_TYPE, **fields),
            chain_entry(),
        )
        await split(context)
        assert len(await contracts(context)) == 10
        letters = await context.redis.xrange(context.topics.dead())
        assert [letter[b"id"] for _id, letter in letters] == [b"2", b"3"]


@pytest.mark.parametrize("after", [False, True], ids=["before the step", "after the step"])
async def test_crash_at_the_finishing_step_neither_loses_nor_doubles(
    valkey: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    reached = asyncio.Event()
    finish = Consumer.finish_many

    async def crash(
        consumer: Consumer, target: str, entry: Entry, results: list[list[str]]
    ) -> int | None:
        if after:
            await finish(consumer, target, entry, results)
        reached.set()
        await asyncio.Event().wait()
        return None

    async with bus.context(valkey) as context:
        await bus.append(context, "stream:enriched", *(chain_entry(number) for number in range(3)))
        monkeypatch.setattr(Consumer, "finish_many", crash)
        work = asyncio.create_task(splitter.split(context))
        await asyncio.wait_for(reached.wait(), 10)
        await cancel(work)
        monkeypatch.undo()
        assert len(await contracts(context)) == (10 if after else 0)
    async with bus.context(valkey) as context:
        async with bus.working(context, splitter.split):
            async with asyncio.timeout(10):
                while await pending(context):
                    await asyncio.sleep(0.02)
        found = await contracts(context)
        assert [int(fields["seq"]) for fields in found] == list(range(1, 31))
        assert len({(fields["symbol"], fields["ts_ingest"]) for fields in found}) == 30


async def test_claimed_away_chain_is_not_written_by_its_former_owner(valkey: str) -> None:
    async with bus.context(valkey, "former") as former, bus.context(valkey, "heir") as heir:
        await bus.append(former, "stream:enriched", chain_entry())
        slow = Consumer(
            former, former.topics.enriched(), "splitter", dead_stream="dead", start="earliest"
        )
        (entry,) = await bus.take(slow, 1)
        await bus.silence(slow)
        async with bus.working(heir, splitter.split):
            async with asyncio.timeout(10):
                while await pending(heir):
                    await asyncio.sleep(0.02)
        target = former.topics.contracts()
        late = splitter.contracts_of(entry, frozenset())
        assert await slow.finish_many(target, entry, late) is None
        await slow.close()
        assert len(await contracts(heir)) == 10


async def test_killed_process_neither_loses_nor_doubles_a_contract(valkey: str) -> None:
    count, strikes = 150, 40
    async with bus.context(valkey) as context:
        await bus.append(
            context, "stream:enriched", *(chain_entry(number, strikes) for number in range(count))
        )
        settings = Settings(redis_url=valkey, lease_ms=600)
        contracts_stream = context.topics.contracts()
        for _kill in range(2):
            before = await context.redis.xlen(contracts_stream)
            with worker_process.running("workers.splitter", settings) as process:
                async with asyncio.timeout(30):
                    while await context.redis.xlen(contracts_stream) <= before + 10 * strikes:
                        await asyncio.sleep(0.002)
                process.kill()
        assert await context.redis.xlen(contracts_stream) < count * 2 * strikes
        with worker_process.running("workers.splitter", settings) as process:
            async with asyncio.timeout(60):
                while await pending(context):
                    await asyncio.sleep(0.05)
            assert worker_process.stopped(process) == 0
        found = await contracts(context)
        assert [int(fields["seq"]) for fields in found] == list(range(1, 1 + count * 2 * strikes))
        assert len({(fields["symbol"], fields["ts_ingest"]) for fields in found}) == len(found)


async def test_command_starts_it_for_the_underlyings_named(valkey: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=valkey, state_dir=str(tmp_path), lease_ms=600)
    arguments = ("run", "splitter", "--underlying", "BANKNIFTY", "--underlying", "SENSEX")
    async with bus.context(valkey) as context:
        other = msgspec.structs.replace(chain_entry(), data=banknifty_frame())
        await bus.append(context, "stream:enriched", chain_entry(), other)
        with worker_process.running("stockify", settings, *arguments) as process:
            async with asyncio.timeout(30):
                while not await context.redis.xlen(context.topics.contracts()):
                    await asyncio.sleep(0.05)
            assert worker_process.stopped(process) == 0
        assert {fields["symbol"].split("-")[0] for fields in await contracts(context)} == {
            "BANKNIFTY"
        }


def banknifty_frame() -> bytes:
    return frames.encode_frame(chains.enriched(3, underlying="BANKNIFTY"))


async def test_shards_have_streams_of_their_own(valkey: str) -> None:
    async with bus.context(valkey, shards=2) as context:
        shard = context.topics.shard_of("NIFTY")
        producer = Producer(context.settings, "producer")
        await producer.append(context.topics.enriched(shard), chain_entry())
        await producer.close()
        written = context.telemetry.counter("contracts", "")
        async with bus.working(context, splitter.split):
            async with asyncio.timeout(10):
                while written.value < 10:
                    await asyncio.sleep(0.02)
        assert await context.redis.xlen(context.topics.contracts(shard)) == 10
        assert await context.redis.exists(context.topics.contracts(1 - shard)) == 0
