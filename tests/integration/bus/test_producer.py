"""What producers append: numbered entries, and one where the answer was lost."""

import asyncio
import os
import signal

import msgspec
import pytest

from pipeline import topics
from pipeline.entries import Appended
from pipeline.errors import BusUnavailable, EpochChanged, OutcomeUnknown
from pipeline.streams import Producer, transaction
from tests.support import bus, servers
from tests.support.conformance import Target


async def test_settling_an_append_that_happened_writes_no_second_entry(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        first = await producer.append(stream, bus.entry(1))
        again, other = await producer.settle(stream, [bus.entry(1), bus.entry(2)])
        await producer.close()
        assert again == msgspec.structs.replace(first, found=True)
        assert not other.found
        assert other.seq == 2
        assert await context.redis.xlen(stream) == 2


async def test_append_to_a_stalled_server_is_settled_to_one_entry(
    own_server: servers.RedisServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 0.3)
    assert own_server.process is not None
    async with bus.context(own_server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append(stream, bus.entry(0))
        os.kill(own_server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(OutcomeUnknown):
                await producer.append(stream, bus.entry(1))
            with pytest.raises(BusUnavailable):
                await producer.settle(stream, [bus.entry(1)])
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)
        await producer.settle(stream, [bus.entry(1)])
        await producer.close()
        assert await context.redis.xlen(stream) == 2


async def test_loss_of_a_stream_is_said_once_and_then_it_is_written_to(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        before = await producer.append(stream, bus.entry(1))
        await context.redis.delete(stream)
        with pytest.raises(EpochChanged):
            await producer.append(stream, bus.entry(2))
        after = [await producer.append(stream, bus.entry(number)) for number in (2, 3)]
        await producer.close()
        assert [place.seq for place in after] == [2, 3]
        assert {place.epoch for place in after} != {before.epoch}
        assert await context.redis.xlen(stream) == 2


async def test_calls_made_without_waiting_stand_in_their_order(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append(stream, bus.entry(0))
        batches = [[bus.entry(3 * n + k) for k in (1, 2, 3)] for n in range(8)]
        places = await asyncio.gather(*(producer.append_many(stream, batch) for batch in batches))
        await producer.close()
        assert [place.seq for batch in places for place in batch] == list(range(2, 26))
        written = [fields[b"id"] for _, fields in await context.redis.xrange(stream)]
        assert written == [b"id-%d" % number for number in range(25)]


async def test_call_behind_a_refused_one_writes_nothing(
    own_server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(own_server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append(stream, bus.entry(0))
        wire = await producer._line(stream).link.wire()
        await context.redis.config_set("maxmemory", 1)
        refused = asyncio.ensure_future(producer.append(stream, bus.entry(1)))
        await asyncio.sleep(0)
        room = wire.call("CONFIG", "SET", "maxmemory", 0)
        behind = asyncio.ensure_future(producer.append(stream, bus.entry(2)))
        for call, reason in ((refused, "memory"), (behind, "the call before")):
            with pytest.raises(BusUnavailable, match=reason):
                await call
        assert await room == b"OK"
        after = [await producer.append(stream, bus.entry(number)) for number in (1, 2)]
        await producer.close()
        assert [place.seq for place in after] == [2, 3]
        assert await context.redis.xlen(stream) == 3


async def test_calls_under_way_on_a_lost_connection_are_settled_in_order(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append(stream, bus.entry(0))
        calls = [
            asyncio.ensure_future(producer.append_many(stream, [bus.entry(n), bus.entry(n + 1)]))
            for n in (1, 3, 5)
        ]
        await asyncio.sleep(0)
        await producer._line(stream).link.drop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
        places = [
            await producer.settle(stream, [bus.entry(n), bus.entry(n + 1)]) for n in (1, 3, 5)
        ]
        await producer.close()
        assert [place.seq for batch in places for place in batch] == list(range(2, 8))
        assert await context.redis.xlen(stream) == 7


async def test_lost_script_is_sent_again(own_server: servers.RedisServer, stream: str) -> None:
    async with bus.context(own_server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append(stream, bus.entry(0))
        await context.redis.script_flush()
        calls = (producer.append(stream, bus.entry(n)) for n in (1, 2, 3))
        places = await asyncio.gather(*calls)
        await producer.close()
        assert [place.seq for place in places] == [2, 3, 4]


async def test_two_producers_number_one_stream_without_gap_or_double(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        pair = [Producer(context.settings, name) for name in ("a", "b")]

        async def work(producer: Producer, first: int) -> list[Appended]:
            places = []
            for number in range(first, first + 30, 3):
                batch = [bus.entry(number + k) for k in range(3)]
                places += await producer.append_many(stream, batch)
            return places

        made = await asyncio.gather(work(pair[0], 0), work(pair[1], 100))
        for producer in pair:
            await producer.close()
        entries = await context.redis.xrange(stream)
        assert [int(fields[b"seq"]) for _, fields in entries] == list(range(1, 61))
        stands = {(place.stream_id, place.seq) for places in made for place in places}
        assert stands == {(at.decode(), int(fields[b"seq"])) for at, fields in entries}


async def test_entries_are_counted_alike_whatever_way_they_go_in(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        entries = [
            msgspec.structs.replace(bus.entry(number), ts=number * 25_000_000_000, contracts=number)
            for number in range(8)
        ]
        tallies = []
        for at_once in (1, 8):
            producer = Producer(context.settings, "producer")
            for first in range(0, 8, at_once):  # the first call by the script, others foretold
                await producer.append_many(stream, entries[first : first + at_once])
            await producer.close()
            tallies.append(await context.redis.hgetall(topics.tally(stream)))
            await context.redis.delete(stream, topics.sequence(stream), topics.tally(stream))
        assert tallies[0] == tallies[1] != {}


async def test_transaction_that_was_foretold_wrongly_writes_nothing(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append(stream, bus.entry(0))
        line = producer._line(stream)
        wire = await line.wire(None)
        right = transaction.Call(line.epoch, 1, "tester:1", "")
        wrong = [
            msgspec.structs.replace(right, foretold=7),
            msgspec.structs.replace(right, epoch="1"),
            msgspec.structs.replace(right, before="tester:0"),
        ]
        for call in wrong:
            sent = transaction.send(wire, line.keys, call, [bus.entry(1)])
            assert await transaction.written(sent, 1) is None
        moved = await context.redis.hgetall(topics.sequence(stream))
        assert moved[b"seq"] == b"1"
        assert await context.redis.ttl(topics.sequence(stream)) == -1
        sent = transaction.send(wire, line.keys, right, [bus.entry(1)])
        assert await transaction.written(sent, 1) is not None
        await context.redis.delete(stream, topics.sequence(stream))
        sent = transaction.send(
            wire, line.keys, msgspec.structs.replace(right, foretold=2), [bus.entry(2)]
        )
        assert await transaction.written(sent, 1) is None
        assert await context.redis.exists(stream, topics.sequence(stream)) == 0
        await producer.close()
