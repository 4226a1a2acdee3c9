"""Enriched frames to latest keys and live channels; the latest wins.

Of a batch, only the newest frame of each chain is written: what it replaces would be overwritten
in the same instant.
"""

import asyncio
from datetime import date

from pipeline import frames, latest
from pipeline.clock import SECOND_NS, expiry_ns
from pipeline.entries import Entry
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.frames import Position
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    ENRICHED_POLLS_TYPE,
    ChainHeader,
    market_snapshot,
)
from pipeline.runtime import Context, jittered, pause, run
from pipeline.streams import Consumer

BATCH = 16
SILENT_NS = 60 * SECOND_NS  # a nearer chain that has not come for so long speaks no more


class Speakers:
    """Which chain speaks for its underlying: the nearest that has not settled and still comes.

    Forward and volatility differ by expiry; taken from whichever chain came last they would jump
    to and fro.
    """

    def __init__(self) -> None:
        self._nearest: dict[str, tuple[date, int]] = {}

    def speaks(self, header: ChainHeader) -> bool:
        """Whether this chain speaks for its underlying now."""
        expiry, ts = self._nearest.get(header.underlying, (header.expiry, header.ts_ingest))
        if header.ts_ingest < ts:
            return True  # a late one: whether it is too late, the keys' positions say
        if (
            header.expiry > expiry
            and header.ts_ingest < expiry_ns(expiry)
            and header.ts_ingest - ts < SILENT_NS
        ):
            return False
        self._nearest[header.underlying] = header.expiry, header.ts_ingest
        return True


async def publish(context: Context) -> None:
    """Work every shard of the enriched stream until stopping."""
    context.telemetry.set_state("ready")
    await asyncio.gather(*(_publish_shard(context, n) for n in range(context.topics.shards)))


async def _publish_shard(context: Context, shard: int) -> None:
    telemetry, speakers = context.telemetry, Speakers()
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
        start="earliest",
    )
    async for batch in consumer.batches(count=BATCH):
        read.add(len(batch))
        with telemetry.span("publish", (entry.traceparent for entry in batch)):
            for entry in newest_of_each(batch):
                try:
                    keys = await _until_written(context, shard, entry, speakers)
                except DecodeError as error:
                    await consumer.dead_letter(entry, "undecodable", str(error))
                    continue
                if keys is None:
                    break
                written.add(keys)
                live.add(keys)
            else:
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


async def _until_written(
    context: Context, shard: int, entry: Entry, speakers: Speakers
) -> int | None:
    """Write an entry, waiting while Redis is away; None where it still is when stopping.

    Then the batch stays pending, and comes again after the next start.
    """
    telemetry, stopping = context.telemetry, context.stopping
    attempt = 0
    while True:
        try:
            keys = await _write(context, shard, entry, speakers)
        except BusUnavailable as error:
            telemetry.set_state("degraded", str(error))
        else:
            if attempt:
                telemetry.set_state("draining" if stopping.is_set() else "ready")
            return keys
        if stopping.is_set():
            return None
        await pause(stopping, jittered(attempt))
        attempt += 1


async def _write(context: Context, shard: int, entry: Entry, speakers: Speakers) -> int:
    """The number of latest keys written; 0 where they hold something newer."""
    if entry.type == ENRICHED_EXPIRIES_TYPE:
        expiries = frames.decode_expiries(entry.data)
        await latest.write_expiries(context.redis, context.topics, shard, expiries)
        return 0
    if entry.type == ENRICHED_POLLS_TYPE:
        return 0
    if entry.type != ENRICHED_CHAIN_TYPE:
        raise DecodeError(f"type {entry.type!r} is not known")
    chain = frames.decode_frame(entry.data)
    position = Position(entry.epoch, entry.seq, entry.te or entry.ts)
    texts = frames.encode_client_json(chain, market_snapshot(chain.header), position)
    return await latest.write_chain(
        context.redis,
        context.topics,
        shard,
        texts,
        chain.header,
        position,
        speaks=speakers.speaks(chain.header),
    )


def main() -> None:
    """Run the worker."""
    run("realtime", publish)


if __name__ == "__main__":
    main()
