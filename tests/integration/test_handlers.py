"""One-file workers: what becomes of a function's results and of its errors."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.entries import Entry
from pipeline.errors import StoreUnavailable
from pipeline.runtime import Context
from pipeline.streams import Chain, consume, worker
from pipeline.streams.handler import HandlerWorker
from stockify import one_file
from tests.support import bus, chains, enriched

EARLIEST: dict[str, Any] = {"start": "earliest"}


class Signal(msgspec.Struct, frozen=True):
    """What the tests write."""

    number: int


def number(chain: Chain) -> int:
    return chain.header.ts_ingest - chains.TS_INGEST


async def work_off(context: Context, made: HandlerWorker, handled: int) -> None:
    """Run the worker until it has handled so many."""
    count = context.telemetry.counter("entries_handled", "")
    async with bus.working(context, made):
        await bus.until(lambda: count.value >= handled)


async def pending(context: Context, group: str) -> int:
    return int((await context.redis.xpending("stream:enriched", group))["pending"])


async def test_plain_function_handles_each_chain_once_and_its_results_are_written(
    valkey: str,
) -> None:
    writes = {"signal.v1": Signal}

    @worker(consume("engine", writes=writes, **EARLIEST), target="signals")
    def engine(chain: Chain) -> Iterator[Signal]:
        for _ in range(number(chain)):
            yield Signal(number(chain))

    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1, 2)
        await work_off(context, engine, 3)
        found = [fields for _id, fields in await context.redis.xrange("stream:signals")]
        assert [msgspec.json.decode(fields[b"data"])["number"] for fields in found] == [1, 2, 2]
        assert [fields[b"type"] for fields in found] == [b"signal.v1"] * 3
        assert [fields[b"seq"] for fields in found] == [b"1", b"2", b"3"]
        assert await pending(context, "engine") == 0
        assert context.telemetry.counter("results", "").value == 3
        assert context.telemetry.state == "ready"


async def test_coroutine_is_given_its_context_where_it_asks(valkey: str) -> None:
    seen: list[tuple[int, str]] = []

    @worker(consume("asks", **EARLIEST))
    async def asks(chain: Chain, context: Context) -> None:
        await asyncio.sleep(0)
        seen.append((number(chain), context.name))

    async with bus.context(valkey) as context:
        await enriched.append_chains(context, 0, 1)
        await work_off(context, asks, 2)
    assert seen == [(0, "tester"), (1, "tester")]


async def test_other_streams_are_handled_entry_by_entry(valkey: str) -> None:
    seen: list[bytes] = []

    @worker(consume("others", stream="signals", **EARLIEST))
    def others(entry: Entry) -> None:
        seen.append(entry.data)

    async with bus.context(valkey) as context:
        await bus.append_numbered(context, "stream:signals", 3)
        await work_off(context, others, 3)
    assert seen == [b"0", b"1", b"2"]


async def test_chain_that_always_fails_is_set_aside_with_the_error_and_the_rest_goes_on(
    valkey: str,
) -> None:
    tries: list[int] = []

    @worker(consume("fails", **EARLIEST))
    def fails(chain: Chain) -> None:
        tries.append(number(chain))
        if number(chain) == 1:
            raise ValueError("not this one")

    async with bus.context(valkey, max_attempts=3) as context:
        await enriched.append_chains(context, 0, 1, 2)
        await work_off(context, fails, 2)
        assert tries == [0, 1, 1, 1, 2]  # in place: nothing overtakes it
        ((_id, letter),) = await context.redis.xrange("stream:dead")
        assert (letter[b"id"], letter[b"reason"]) == (b"NIFTY-1", b"handler")
        assert letter[b"error"] == b"ValueError: not this one"
        assert await pending(context, "fails") == 0


async def test_error_that_may_pass_is_waited_out(valkey: str) -> None:
    tries: list[int] = []

    @worker(consume("waits", **EARLIEST))
    def waits(chain: Chain) -> None:
        tries.append(number(chain))
        if len(tries) < 4:
            raise StoreUnavailable("away")

    async with bus.context(valkey, max_attempts=2) as context:
        await enriched.append_chains(context, 0, 1)
        await work_off(context, waits, 2)
        assert tries == [0, 0, 0, 0, 1]
        assert await context.redis.exists("stream:dead") == 0


async def test_what_was_not_done_at_a_stop_stays_and_what_was_is_done(valkey: str) -> None:
    async with bus.context(valkey) as context:

        @worker(consume("stops", **EARLIEST))
        def stops(chain: Chain) -> None:
            if number(chain) == 1:
                context.stopping.set()
                raise StoreUnavailable("away")

        await enriched.append_chains(context, 0, 1, 2)
        await asyncio.wait_for(stops(context), 15)
        assert await pending(context, "stops") == 2
        assert context.telemetry.counter("entries_handled", "").value == 1


async def test_tries_count_beside_deliveries_of_dead_members(valkey: str) -> None:
    tries: list[int] = []

    @worker(consume("counted", **EARLIEST))
    def counted(chain: Chain) -> None:
        tries.append(number(chain))
        raise ValueError("no")

    async with bus.context(valkey, max_attempts=3) as context:
        await enriched.append_chains(context, 0)
        async for _batch in consume("counted", context=context, **EARLIEST):
            break  # delivered once, and left
        async with bus.working(context, counted):
            async with asyncio.timeout(15):
                while not await context.redis.exists("stream:dead"):
                    await asyncio.sleep(0.02)
    assert tries == [0, 0]


def test_command_finds_a_worker_made_of_a_function() -> None:
    made = one_file.find(f"{__name__}:named")
    assert made is named
    assert isinstance(made, HandlerWorker)


@worker(consume("named"))
def named(chain: Chain) -> None:
    """For the test above."""
