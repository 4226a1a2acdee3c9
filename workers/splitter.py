"""Enriched frames to one entry a contract, in plain text; opt-in, for readers that want records.

Each chain is acknowledged and its contracts appended in one step, so each is written exactly once.
It costs the bus many times what the frame does; who can decode a frame reads the enriched stream.
"""

import asyncio

from pipeline import frames
from pipeline.dhan import underlyings_named
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    ENRICHED_POLLS_TYPE,
    EnrichedChain,
)
from pipeline.runtime import Context, run
from pipeline.streams import Consumer

BATCH = 8  # chains of one read; each is a call of its own


async def split(context: Context) -> None:
    """Work every shard of the enriched stream until stopping."""
    underlyings_named(context.settings.splitter_underlyings, "STOCKIFY_SPLITTER_UNDERLYINGS")
    context.telemetry.set_state("ready")
    await asyncio.gather(*(_split_shard(context, n) for n in range(context.topics.shards)))


async def _split_shard(context: Context, shard: int) -> None:
    telemetry, topics = context.telemetry, context.topics
    wanted = frozenset(context.settings.splitter_underlyings)
    read = telemetry.counter("entries_read", "entries read")
    written = telemetry.counter("contracts", "contracts written, an entry each")
    record_age = telemetry.histogram("age_split", "from receipt to the contracts' entries")
    consumer = Consumer(
        context,
        topics.enriched(shard),
        "splitter",
        dead_stream=topics.dead(shard),
        start="earliest",
    )
    try:
        async for batch in consumer.batches(count=BATCH):
            read.add(len(batch))
            with telemetry.span("split", (entry.traceparent for entry in batch)):
                for entry in batch:
                    try:
                        contracts = contracts_of(entry, wanted)
                    except DecodeError as error:
                        await consumer.dead_letter(entry, "undecodable", str(error))
                        continue
                    written.add(
                        await consumer.finish_many(topics.contracts(shard), entry, contracts) or 0
                    )
            record_age((context.clock.now_ns() - batch[-1].ts) / 1e9)
    finally:
        await consumer.close()


def contracts_of(entry: Entry, wanted: frozenset[str]) -> list[list[str]]:
    """Field names and values, in turn, of each contract in an entry; none where it is not wanted.

    No underlying named means that all are wanted. Raises DecodeError.
    """
    if entry.type in (ENRICHED_EXPIRIES_TYPE, ENRICHED_POLLS_TYPE):
        return []
    if entry.type != ENRICHED_CHAIN_TYPE:
        raise DecodeError(f"type {entry.type!r} is not known")
    chain = frames.decode_frame(entry.data)
    if wanted and chain.header.underlying not in wanted:
        return []
    return plain_contracts(chain)


def plain_contracts(chain: EnrichedChain) -> list[list[str]]:
    """Field names and values, in turn, of each contract; what is absent is left out."""
    header = chain.header
    shared = {"ts_ingest": header.ts_ingest, "spot": header.spot, "forward": header.forward}
    return [
        [
            text
            for name, value in (row | shared).items()
            if value is not None
            for text in (name, str(value))
        ]
        for row in frames.leg_rows(chain)
    ]


def main() -> None:
    """Run the worker."""
    run("splitter", split)


if __name__ == "__main__":
    main()
