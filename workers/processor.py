"""Raw bodies to enriched frames; the only writer of the enriched stream.

A body that does not decode becomes a dead letter with its reason, and the group goes on.
"""

import asyncio
from collections.abc import AsyncIterator

from pipeline import bodies, dhan, dhan_chain, enrich, frames, polls, schemas
from pipeline.entries import Entry, NewEntry
from pipeline.errors import DecodeError
from pipeline.models import (
    CALCULATION_REVISION,
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    ENRICHED_POLLS_TYPE,
    RAW_CHAIN_TYPE,
    RAW_EXPIRIES_TYPE,
    RAW_POLLS_TYPE,
)
from pipeline.runtime import Context, run
from pipeline.streams import Consumer

BATCH = 16  # the flat part of the cost curve of the finishing call


async def process(context: Context) -> None:
    """Work every shard of the raw stream until stopping."""
    await schemas.announce(context, schemas.ENRICHED_TYPES)
    await asyncio.to_thread(warmup)  # signals and heartbeats go on meanwhile
    context.telemetry.set_state("ready")
    await asyncio.gather(*(_process_shard(context, n) for n in range(context.topics.shards)))


async def _process_shard(context: Context, number: int) -> None:
    """Work one shard: while a batch is derived, the next is read and the last is finished.

    Deriving keeps the processor busy and Redis idle, the other two do the reverse. Batches are
    finished one after another, so results stand in the order of their entries.
    """
    shard = _Shard(context, number)
    batches = shard.consumer.batches(count=BATCH)
    finishing: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        coming = group.create_task(_next(batches))
        while (batch := await coming) is not None:
            coming = group.create_task(_next(batches))
            results = await shard.derive(batch)
            if finishing is not None:
                await finishing
            finishing = group.create_task(shard.finish(results))
    await shard.consumer.close()


async def _next(batches: AsyncIterator[list[Entry]]) -> list[Entry] | None:
    return await anext(batches, None)


class _Shard:
    """One shard of the raw stream, and what is counted of it."""

    def __init__(self, context: Context, number: int) -> None:
        telemetry, topics = context.telemetry, context.topics
        self.consumer = Consumer(
            context,
            topics.raw(number),
            "processor",
            dead_stream=topics.dead(number),
            start="earliest",
        )
        self._context = context
        self._target = topics.enriched(number)
        self._read = telemetry.counter("entries_read", "entries read")
        self._written = telemetry.counter(
            "entries_written", "entries written to the enriched stream"
        )
        self._contracts = telemetry.counter("contracts", "contracts enriched")
        self._age = telemetry.histogram("age_enriched", "from receipt to the enriched entry")

    async def derive(self, batch: list[Entry]) -> list[tuple[Entry, NewEntry]]:
        """What comes of each entry; those of which nothing comes are dead letters."""
        telemetry, settings, clock = (
            self._context.telemetry,
            self._context.settings,
            self._context.clock,
        )
        self._read.add(len(batch))
        results: list[tuple[Entry, NewEntry]] = []
        with telemetry.span("process", (entry.traceparent for entry in batch)) as traceparent:
            for entry in batch:
                await asyncio.sleep(0)  # let what is read and finished meanwhile go on
                try:
                    result, legs = derive(
                        entry,
                        te=clock.now_ns(),
                        rate=settings.rate,
                        greeks=settings.greeks,
                        traceparent=traceparent,
                    )
                except DecodeError as error:
                    await self.consumer.dead_letter(entry, "undecodable", str(error))
                except Exception as error:
                    telemetry.log.exception("enrichment_failed", key=entry.key)
                    await self.consumer.dead_letter(entry, "internal", repr(error))
                else:
                    results.append((entry, result))
                    self._contracts.add(legs)
        return results

    async def finish(self, results: list[tuple[Entry, NewEntry]]) -> None:
        """Acknowledge entries and append what came of them."""
        if results:
            appended = await self.consumer.finish(self._target, results)
            self._written.add(sum(place is not None for place in appended))
            self._age((self._context.clock.now_ns() - results[-1][0].ts) / 1e9)


def derive(
    entry: Entry, *, te: int, rate: float, greeks: str, traceparent: str
) -> tuple[NewEntry, int]:
    """The enriched entry of a raw one and its number of legs. Raises DecodeError."""
    legs, revision = 0, CALCULATION_REVISION
    if entry.type == RAW_CHAIN_TYPE:
        body, asked = bodies.body_of(entry), bodies.context_of(entry)
        snapshot = dhan_chain.map_chain(body, asked, entry.ts)
        chain = enrich.enrich(snapshot, rate=rate, greeks=greeks)
        kind, data, legs = ENRICHED_CHAIN_TYPE, frames.encode_frame(chain), chain.header.n
    elif entry.type == RAW_EXPIRIES_TYPE:
        body, asked = bodies.body_of(entry), bodies.context_of(entry)
        kind = ENRICHED_EXPIRIES_TYPE
        data = frames.encode_expiries(dhan.map_expiries(body, asked, entry.ts))
    elif entry.type == RAW_POLLS_TYPE:
        kind, revision = ENRICHED_POLLS_TYPE, polls.REVISION
        polls.decode_report(entry.data)
        data = entry.data
    else:
        raise DecodeError(f"type {entry.type!r} is not known")
    return NewEntry(
        id=f"{entry.id}:r{revision}",
        type=kind,
        key=entry.key,
        ts=entry.ts,
        te=te,
        traceparent=traceparent,
        data=data,
        contracts=legs,
    ), legs


def warmup() -> None:
    """Compile, or load from the cache, every kernel that this worker calls."""
    dhan_chain.warmup()
    enrich.warmup()


def main() -> None:
    """Run the worker."""
    run("processor", process)


if __name__ == "__main__":
    main()
