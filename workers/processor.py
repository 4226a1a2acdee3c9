"""Raw bodies to enriched frames; the only writer of the enriched stream.

A body that does not decode becomes a dead letter with its reason, and the group goes on.
"""

import asyncio

from pipeline import bodies, dhan, dhan_chain, enrich, frames, schemas
from pipeline.entries import Entry, NewEntry
from pipeline.errors import DecodeError
from pipeline.models import (
    CALCULATION_REVISION,
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    RAW_CHAIN_TYPE,
    RAW_EXPIRIES_TYPE,
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


async def _process_shard(context: Context, shard: int) -> None:
    telemetry, settings = context.telemetry, context.settings
    read = telemetry.counter("entries_read", "entries read")
    written = telemetry.counter("entries_written", "entries written to the enriched stream")
    contracts = telemetry.counter("contracts", "contracts enriched")
    record_age = telemetry.histogram("age_enriched", "from receipt to the enriched entry")
    target = context.topics.enriched(shard)
    consumer = Consumer(
        context, context.topics.raw(shard), "processor", dead_stream=context.topics.dead(shard)
    )
    async for batch in consumer.batches(count=BATCH):
        read.add(len(batch))
        with telemetry.span("process", (entry.traceparent for entry in batch)) as traceparent:
            results: list[tuple[Entry, NewEntry]] = []
            for entry in batch:
                try:
                    result, legs = derive(
                        entry,
                        te=context.clock.now_ns(),
                        rate=settings.rate,
                        greeks=settings.greeks,
                        traceparent=traceparent,
                    )
                except DecodeError as error:
                    await consumer.dead_letter(entry, "undecodable", str(error))
                except Exception as error:
                    telemetry.log.exception("enrichment_failed", key=entry.key)
                    await consumer.dead_letter(entry, "internal", repr(error))
                else:
                    results.append((entry, result))
                    contracts.add(legs)
            if results:
                appended = await consumer.finish(target, results)
                written.add(sum(place is not None for place in appended))
        if results:
            record_age((context.clock.now_ns() - results[-1][0].ts) / 1e9)
    await consumer.close()


def derive(
    entry: Entry, *, te: int, rate: float, greeks: str, traceparent: str
) -> tuple[NewEntry, int]:
    """The enriched entry of a raw one and its number of legs. Raises DecodeError."""
    body, asked = bodies.body_of(entry), bodies.context_of(entry)
    if entry.type == RAW_CHAIN_TYPE:
        snapshot = dhan_chain.map_chain(body, asked, entry.ts)
        chain = enrich.enrich(snapshot, rate=rate, greeks=greeks)
        kind, data, legs = ENRICHED_CHAIN_TYPE, frames.encode_frame(chain), chain.header.n
    elif entry.type == RAW_EXPIRIES_TYPE:
        kind, legs = ENRICHED_EXPIRIES_TYPE, 0
        data = frames.encode_expiries(dhan.map_expiries(body, asked, entry.ts))
    else:
        raise DecodeError(f"type {entry.type!r} is not known")
    return NewEntry(
        id=f"{entry.id}:r{CALCULATION_REVISION}",
        type=kind,
        key=entry.key,
        ts=entry.ts,
        te=te,
        traceparent=traceparent,
        data=data,
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
