"""Enriched frames to latest keys and live channels; the latest wins.

Of a batch, only the newest frame of each chain is written: what it replaces would be overwritten
in the same instant.
"""

import asyncio

from pipeline import frames, latest
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.frames import Position
from pipeline.models import ENRICHED_CHAIN_TYPE, ENRICHED_EXPIRIES_TYPE, market_snapshot
from pipeline.runtime import Context, run
from pipeline.streams import Consumer

BATCH = 16


async def publish(context: Context) -> None:
    """Work every shard of the enriched stream until stopping."""
    context.telemetry.set_state("ready")
    await asyncio.gather(*(_publish_shard(context, n) for n in range(context.topics.shards)))


async def _publish_shard(context: Context, shard: int) -> None:
    telemetry = context.telemetry
    read = telemetry.counter("entries_read", "entries read")
    written = telemetry.counter("latest_written", "latest keys written")
    live = telemetry.counter("live_published", "texts published on live channels")
    record_age = telemetry.histogram("age_latest", "from receipt to the latest key")
    consumer = Consumer(
        context,
        context.topics.enriched(shard),
        "realtime",
        dead_stream=context.topics.dead(shard),
        critical=False,
    )
    async for batch in consumer.batches(count=BATCH):
        read.add(len(batch))
        with telemetry.span("publish", (entry.traceparent for entry in batch)):
            for entry in newest_of_each(batch):
                try:
                    keys = await _write(context, shard, entry)
                except DecodeError as error:
                    await consumer.dead_letter(entry, "undecodable", str(error))
                else:
                    written.add(keys)
                    live.add(keys)
            await consumer.ack(batch)
        record_age((context.clock.now_ns() - batch[-1].ts) / 1e9)
    await consumer.close()


def newest_of_each(batch: list[Entry]) -> list[Entry]:
    """The newest entry of each type and key, in the order in which they came."""
    newest: dict[tuple[str, str], Entry] = {}
    for entry in batch:
        other = newest.get((entry.type, entry.key))
        if other is None or (entry.ts, entry.seq) > (other.ts, other.seq):
            newest[entry.type, entry.key] = entry
    return list(newest.values())


async def _write(context: Context, shard: int, entry: Entry) -> int:
    """The number of latest keys written; 0 where they hold something newer."""
    if entry.type == ENRICHED_EXPIRIES_TYPE:
        expiries = frames.decode_expiries(entry.data)
        await latest.write_expiries(context.redis, context.topics, shard, expiries)
        return 0
    if entry.type != ENRICHED_CHAIN_TYPE:
        raise DecodeError(f"type {entry.type!r} is not known")
    chain = frames.decode_frame(entry.data)
    position = Position(entry.epoch, entry.seq, entry.te or entry.ts)
    texts = frames.encode_client_json(chain, market_snapshot(chain.header), position)
    return await latest.write_chain(
        context.redis, context.topics, shard, texts, chain.header, position
    )


def main() -> None:
    """Run the worker."""
    run("realtime", publish)


if __name__ == "__main__":
    main()
