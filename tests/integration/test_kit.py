"""What consume() hands out of real streams, and what it says is done."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline import topics
from pipeline.entries import NewEntry, PlainEntry
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.frames import Leg, encode_expiries
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    ENRICHED_POLLS_TYPE,
    Expiries,
)
from pipeline.runtime import Context
from pipeline.streams import Batch, Chain, Consumption, consume
from tests.support import bus, chains, enriched

DEADLINE_S = 15.0
UNDERLYINGS = ("NIFTY", "BANKNIFTY", "SENSEX")


class Signal(msgspec.Struct, frozen=True):
    """What the tests write."""

    side: str
    contract: str


def number(chain: Chain) -> int:
    """Which snapshot of its underlying a chain is."""
    return chain.header.ts_ingest - chains.TS_INGEST


async def take(batches: Consumption, wanted: int) -> list[Chain]:
    """Chains until there are so many, all of their batches acknowledged; then it is left."""
    taken: list[Chain] = []
    async with asyncio.timeout(DEADLINE_S):
        async for batch in batches:
            taken += batch
            if len(taken) >= wanted:
                await batch.ack()
                return taken
    return taken


async def take_numbers(context: Context, group: str, wanted: int, **how: Any) -> list[int]:
    async with consume(group, context=context, start="earliest", **how) as batches:
        return [number(chain) for chain in await take(batches, wanted)]


async def pending(context: Context, group: str, stream: str = "stream:enriched") -> int:
    return int((await context.redis.xpending(stream, group))["pending"])


async def stands(context: Context, group: str) -> None:
    """Until the group is there."""
    async with asyncio.timeout(DEADLINE_S):
        while not (
            await context.redis.exists("stream:enriched")
            and await context.redis.xinfo_groups("stream:enriched")
        ):
            await asyncio.sleep(0.01)


async def stopped_when(
    batches: Consumption, context: Context, is_enough: Callable[[Batch], bool]
) -> None:
    """Read until a batch is enough, then ask it to stop and let the loop end by itself."""
    async with asyncio.timeout(DEADLINE_S):
        async for batch in batches:
            if is_enough(batch):
                context.stopping.set()


async def test_chains_of_all_shards_come_in_the_order_of_each_underlying(valkey: str) -> None:
    async with bus.context(valkey, shards=3) as context:
        entries = [enriched.entry(n, name) for n in range(40) for name in UNDERLYINGS]
        await enriched.append(context, *entries)
        async with consume("all", context=context, start="earliest", count=7) as batches:
            taken = await take(batches, 120)
    for name in UNDERLYINGS:
        of_one = [number(chain) for chain in taken if chain.header.underlying == name]
        assert of_one == list(range(40)), name
    # Fairly: none is read to its end before another is begun.
    firsts = [chain.header.underlying for chain in taken[:60]]
    assert len({context.topics.shard_of(name) for name in firsts}) > 1


async def test_only_wanted_chains_and_legs_come_and_the_others_are_done_with(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1)
        await enriched.append_chains(context, 2, underlying="BANKNIFTY")
        await enriched.append_chains(context, 3)
        how = {"underlying": "NIFTY", "band_strikes": 1, "kind": "put"}
        async with consume("cut", context=context, start="earliest", **how) as batches:
            taken = await take(batches, 3)
        assert [number(chain) for chain in taken] == [0, 1, 3]
        assert [leg.symbol for leg in taken[0].legs()] == [
            f"NIFTY-20260127-{strike}-PE" for strike in (24950, 25000, 25050)
        ]
        np.testing.assert_array_equal(taken[0].columns["strike"], [24950.0, 25000.0, 25050.0])
        assert await pending(context, "cut") == 0


async def test_shards_without_a_wanted_underlying_are_left_alone(valkey: str) -> None:
    async with bus.context(valkey, shards=8) as context:
        await enriched.append_chains(context, 0)
        assert await take_numbers(context, "some", 1, underlying="NIFTY") == [0]
        joined = [key async for key in context.redis.scan_iter("lease:*")]
    assert joined == [f"lease:{{{context.topics.shard_of('NIFTY')}}}:some".encode()]


async def test_batch_is_acknowledged_when_the_next_is_asked_for_and_at_a_stop(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1, 2)
        held: list[int] = []
        async with consume("auto", context=context, start="earliest", count=1) as batches:
            async with asyncio.timeout(DEADLINE_S):
                async for batch in batches:
                    left = await context.redis.xpending_range(
                        "stream:enriched", "auto", min="-", max="+", count=9
                    )
                    assert left[0]["message_id"].decode() == batch.entries[0].stream_id
                    held += [number(chain) for chain in batch]
                    if len(held) == 3:
                        context.stopping.set()
        assert held == [0, 1, 2]
        assert await pending(context, "auto") == 0


async def test_batch_left_by_break_comes_again(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1)
        async with asyncio.timeout(DEADLINE_S):
            async for batch in consume("torn", context=context, start="earliest", count=1):
                assert number(batch.chains[0]) == 0
                break
        async with consume("torn", context=context) as batches:
            again = await take(batches, 2)
    assert [number(chain) for chain in again] == [0, 1]
    assert again[0].entry.attempts == 2


async def test_manual_acknowledgement_is_of_what_is_named_alone(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1, 2)
        await enriched.append_chains(context, 9, underlying="BANKNIFTY")
        how = {"manual_ack": True, "underlying": "NIFTY", "start": "earliest"}
        async with consume("own", context=context, **how) as batches:
            async with asyncio.timeout(DEADLINE_S):
                async for batch in batches:
                    assert await batch.ack(only=[batch.chains[1]]) == 2  # with BANKNIFTY's
                    with pytest.raises(ConfigError, match="finished"):
                        await batch.ack(only=[batch.chains[1]])
                    assert not batch.is_finished
                    context.stopping.set()
        assert await pending(context, "own") == 2
        context.stopping.clear()
        async with consume("own", context=context, **how) as batches:
            assert [number(chain) for chain in await take(batches, 2)] == [0, 2]


async def test_what_cannot_be_decoded_is_set_aside_and_the_rest_goes_on(valkey: str) -> None:
    listed = Expiries(underlying="NIFTY", provider="dhan", ts_ingest=1, expiries=())
    plain = {"key": "NIFTY", "ts": 1}
    async with bus.context(valkey) as context:
        await enriched.append(
            context,
            NewEntry(id="a", type=ENRICHED_CHAIN_TYPE, data=b"no frame", **plain),
            NewEntry(id="b", type=ENRICHED_EXPIRIES_TYPE, data=encode_expiries(listed), **plain),
            NewEntry(id="c", type="chain.enriched.v9", **plain),
            NewEntry(id="d", type=ENRICHED_POLLS_TYPE, **plain),
            enriched.entry(4),
        )
        assert await take_numbers(context, "robust", 1) == [4]
        letters = await context.redis.xrange("stream:dead")
        assert [(letter[b"id"], letter[b"reason"]) for _id, letter in letters] == [
            (b"a", b"undecodable"),
            (b"c", b"undecodable"),
        ]
        assert await pending(context, "robust") == 0


async def test_results_go_beside_their_shard_with_the_acknowledgement(valkey: str) -> None:
    async with bus.context(valkey, shards=3) as context:
        for name in UNDERLYINGS:
            await enriched.append_chains(context, 0, 1, underlying=name)
        how: dict[str, Any] = {"start": "earliest", "writes": {"signal.v1": Signal}}
        seen = 0
        async with consume("engine", context=context, **how) as batches:
            async with asyncio.timeout(DEADLINE_S):
                async for batch in batches:
                    results = [
                        (chain, Signal(side, chain.symbols()[0]))
                        for chain in batch
                        if number(chain) == 1
                        for side in ("buy", "sell")
                    ]
                    assert await batch.finish("signals", results) == len(results)
                    assert batch.is_finished
                    assert await batch.finish("signals", []) == 0
                    seen += len(batch)
                    if seen == 6:
                        context.stopping.set()
        found = []
        for shard in range(3):
            stream = context.topics.stream("signals", shard)
            for _id, fields in await context.redis.xrange(stream):
                underlying = fields[b"key"].decode().rpartition("-")[0]
                assert context.topics.shard_of(underlying) == shard
                found.append((fields[b"id"].decode(), msgspec.json.decode(fields[b"data"])["side"]))
        assert sorted(found) == sorted(
            (f"{name}-1:engine:{n}", side)
            for name in UNDERLYINGS
            for n, side in enumerate(("buy", "sell"))
        )
        assert await context.redis.hexists("schema:signal", "1")
        for shard in {context.topics.shard_of(name) for name in UNDERLYINGS}:
            assert await pending(context, "engine", context.topics.enriched(shard)) == 0


async def test_owner_that_was_taken_for_dead_writes_nothing(valkey: str) -> None:
    how: dict[str, Any] = {"start": "earliest", "writes": {"signal.v1": Signal}}
    async with bus.context(valkey, "former") as former, bus.context(valkey, "heir") as heir:
        await enriched.append_chains(former, 0)
        async with consume("engine", context=former, **how) as slow:
            held = await anext(aiter(slow))
            await bus.silence(slow._shards[0].consumer)
            async with consume("engine", context=heir, **how) as batches:
                (chain,) = await take(batches, 1)
                assert chain.entry.attempts == 2
            assert await held.finish("signals", [(held.chains[0], Signal("buy", "x"))]) == 0
        assert await heir.redis.exists("stream:signals") == 0


async def test_result_of_a_class_nobody_spoke_of_is_refused(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0)
        async with consume("mute", context=context, start="earliest") as batches:
            batch = await anext(aiter(batches))
            with pytest.raises(ConfigError, match="Signal is not among"):
                await batch.finish("signals", [(batch.chains[0], Signal("buy", "x"))])
            made = NewEntry(id="own", type="own.v1", key="NIFTY", ts=1, data=b"{}")
            assert await batch.finish("signals", [(batch.chains[0], made)]) == 1


@pytest.mark.parametrize("start", ["id", "time", "latest", "unsaid"])
async def test_new_group_begins_where_it_is_told(valkey: str, start: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1)
        ids = [stream_id.decode() for stream_id, _ in await context.redis.xrange("stream:enriched")]
        seconds, micros = await context.redis.time()
        later = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros, seconds=3_600)
        how: dict[str, Any] = {
            "id": {"start": ids[0]},
            "time": {"start": datetime(2020, 1, 1, tzinfo=UTC)},
            "latest": {"start": "latest"},
            "unsaid": {},
        }[start]
        expected = {"id": [1, 2], "time": [0, 1, 2]}.get(start, [2])
        async with consume("begins", context=context, **how) as batches:
            await stands(context, "begins")
            await enriched.append_chains(context, 2)
            taken = await take(batches, len(expected))
        assert [number(chain) for chain in taken] == expected
        async with consume("future", context=context, start=later) as batches:
            await bus.nothing(aiter(batches), 0.6)


async def test_seek_goes_back_and_on_and_drops_what_was_read_ahead(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, *range(6))
        ids = [stream_id.decode() for stream_id, _ in await context.redis.xrange("stream:enriched")]
        order: list[int] = []
        async with consume("seeker", context=context, start="earliest", count=1) as batches:
            async with asyncio.timeout(DEADLINE_S):
                async for batch in batches:
                    order += [number(chain) for chain in batch]
                    if len(order) == 3:
                        await batches.seek(ids[4])
                    elif order[-1] == 5 and len(order) < 6:
                        await batches.seek("earliest")
                    elif len(order) >= 6:
                        context.stopping.set()
                        break
        assert order[:6] == [0, 1, 2, 5, 0, 1]
        with pytest.raises(ConfigError, match="yesterday"):
            await batches.seek("yesterday")


async def test_member_that_stands_by_cannot_seek(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.streams.shards.JOIN_S", 0.5)
    async with bus.context(valkey) as active, bus.context(valkey, "other") as other:
        await enriched.append_chains(active, 0)
        async with consume("two", context=active, start="earliest") as first:
            await take(first, 1)
            async with consume("two", context=other) as second:
                with pytest.raises(BusUnavailable, match="another member"):
                    await second.seek("earliest")


async def test_paused_reading_hands_out_nothing_until_it_is_resumed(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0)
        async with consume("pauser", context=context, start="earliest") as batches:
            reading = aiter(batches)
            assert number((await anext(reading)).chains[0]) == 0
            batches.pause()
            await enriched.append_chains(context, 1)
            following = asyncio.ensure_future(anext(reading))
            done, _ = await asyncio.wait([following], timeout=0.6)
            assert not done
            batches.resume()
            assert number((await asyncio.wait_for(following, DEADLINE_S)).chains[0]) == 1


async def append_and_trim(context: Context, *numbers: int, keep: int) -> None:
    """Append snapshots and trim the stream in one step, so that nobody reads in between."""
    stream, numbering = "stream:enriched", topics.sequence("stream:enriched")
    epoch, seq = await context.redis.hmget(numbering, "epoch", "seq")
    async with context.redis.pipeline(transaction=True) as step:
        for number, n in enumerate(numbers, int(seq) + 1):
            flat = enriched.entry(n).fields()
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            step.xadd(stream, {"seq": number, "epoch": epoch, **fields})
        step.hincrby(numbering, "seq", len(numbers))
        step.xtrim(stream, maxlen=keep)
        await step.execute()


async def test_entries_trimmed_unread_are_told_while_reading_and_after_a_restart(
    valkey: str,
) -> None:
    told: list[tuple[list[int], int]] = []

    async def read(context: Context, reads: int) -> None:
        async with consume("gaps", context=context, start="earliest", count=2) as batches:
            async with asyncio.timeout(DEADLINE_S):
                async for batch in batches:
                    told.append(([number(chain) for chain in batch], batch.skipped))
                    await batch.ack()
                    if len(told) == 1:
                        await append_and_trim(context, *range(2, 7), keep=2)
                    if len(told) == reads:
                        return

    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1)
        await read(context, 2)
        assert told == [([0, 1], 0), ([5, 6], 3)]
        await append_and_trim(context, 7, 8, 9, keep=1)
        await read(context, 3)
        assert told[2:] == [([9], 2)]


async def test_loss_of_the_stream_is_told_as_another_epoch(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1)
        async with consume("epochs", context=context, start="earliest") as batches:
            reading = aiter(batches)
            first = await anext(reading)
            await context.redis.delete("stream:enriched")
            await enriched.append_chains(context, 2)
            async with asyncio.timeout(DEADLINE_S):
                second = await anext(reading)
        assert (first.is_new_epoch, second.is_new_epoch) == (False, True)
        assert first.epoch != second.epoch
        assert [number(chain) for chain in second] == [2]


async def test_lag_counts_what_is_not_read_yet(valkey: str) -> None:
    async with bus.context(valkey, shards=3) as context:
        for name in UNDERLYINGS:
            await enriched.append_chains(context, *range(4), underlying=name)
        async with consume("lags", context=context, start="earliest", count=2) as batches:
            await take(batches, 2)
            batches.pause()
            for name in UNDERLYINGS:
                await enriched.append_chains(context, *range(4, 24), underlying=name)
            await bus.until(lambda: batches.lag > 40)  # of 72, some of them read ahead


async def test_two_streams_in_one_worker_leave_the_metrics_readable(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0)
        for stream in ("enriched", "signals"):
            async with consume("both", context=context, stream=stream):
                pass
        lines = context.telemetry.metrics_text().decode().splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert "stockify_lag" in types
    assert len(types) == len(set(types))


async def test_plain_entries_of_contracts_come_with_their_fields(valkey: str) -> None:
    symbols = ["NIFTY-20260127-25000-CE", "BANKNIFTY-20260127-55000-PE", "NIFTY-20260203-1-PE"]
    async with bus.context(valkey) as context:
        for symbol in symbols:
            fields = {"symbol": symbol, "strike": "25000.0", "kind": "call", "iv": "0.125"}
            await context.redis.xadd("stream:contracts", fields)
        how = {"stream": "contracts", "start": "earliest", "expiry": "2026-01-27"}
        async with consume("rows", context=context, underlying="NIFTY", **how) as batches:
            batch = await anext(aiter(batches))
            (entry,) = batch.entries
            with pytest.raises(ConfigError, match="no frames"):
                list(batch)
            assert isinstance(entry, PlainEntry)
            leg = msgspec.convert(entry.fields, Leg, strict=False)
            assert (leg.symbol, leg.strike, leg.iv, leg.last) == (symbols[0], 25_000.0, 0.125, None)
            assert await batch.ack() == 3


async def test_competing_members_share_the_entries(valkey: str) -> None:
    async with bus.context(valkey, "one") as one, bus.context(valkey, "two") as two:
        await enriched.append_chains(one, *range(30))
        how: dict[str, Any] = {"start": "earliest", "exclusive": False, "count": 1}
        taken: dict[str, list[int]] = {"one": [], "two": []}

        async def work(context: Context) -> None:
            async with consume("shared", context=context, **how) as batches:
                async for batch in batches:
                    taken[context.name] += [number(chain) for chain in batch]
                    assert batch.skipped == 0

        works = [asyncio.ensure_future(work(context)) for context in (one, two)]
        await bus.until(lambda: sum(map(len, taken.values())) >= 30)
        for context in (one, two):
            context.stopping.set()
        await asyncio.wait_for(asyncio.gather(*works), DEADLINE_S)
        assert all(taken.values())
        assert sorted(taken["one"] + taken["two"]) == list(range(30))
        assert await pending(one, "shared") == 0


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"critical": True}, "where it starts"),
        ({"start": "yesterday"}, "yesterday"),
        ({"start": datetime(2026, 1, 1)}, "zone"),
        ({"underlying": "NITFY"}, "NITFY"),
        ({"stream": "raw", "kind": "call"}, "has none"),
        ({"writes": {"signal": Signal}}, "signal"),
        ({"writes": {"signal.v1": lambda: None}}, "signal.v1"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_cannot_be_meant_is_refused_at_once(how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        consume("wrong", **how)
