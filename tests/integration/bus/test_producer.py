"""What producers append: numbered entries, and one where the answer was lost."""

import os
import signal

import msgspec
import pytest

from pipeline.errors import BusUnavailable, EpochChanged, OutcomeUnknown
from pipeline.streams import Producer
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
