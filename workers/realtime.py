"""Enriched frames to latest keys and live channels; the latest wins.

Of a batch, only the newest frame of each chain is written: what it replaces would be overwritten
in the same instant.
"""

import asyncio

from pipeline import frames, latest
from pipeline.entries import Entry
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.frames import Position
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    ENRICHED_POLLS_TYPE,
    market_snapshot,
)
from pipeline.runtime import Context, jittered, pause, run
from pipeline.speakers import Speakers
from pipeline.streams import Consumer

BATCH = 16


class Links:
    """Which update of a symbol came before, so that whoever misses one can tell."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int, int]] = {}
        self._merged: set[str] = set()

    def merge(self, batch: list[Entry], kept: list[Entry]) -> None:
        """Of some symbols a batch holds updates that are not published; more is not said of them.

        The stream has them, and whoever wants every one reads them there.
        """
        names = {entry.stream_id for entry in kept}
        for entry in batch:
            if entry.stream_id not in names:
                self._merged |= {entry.key, entry.key.rpartition("-")[0]}

    def prev(self, symbol: str, entry: Entry) -> int:
        """The `seq` of a symbol's update before this one; 0 where that is not known."""
        epoch, _, seq = self._last.get(symbol, ("", 0, 0))
        return seq if epoch == entry.epoch and symbol not in self._merged else 0

    def note(self, symbol: str, entry: Entry) -> None:
        """This one is published."""
        epoch, ts, seq = self._last.get(symbol, ("", 0, 0))
        if epoch != entry.epoch or (entry.ts, entry.seq) > (ts, seq):
            self._last[symbol] = entry.epoch, entry.ts, entry.seq
            self._merged.discard(symbol)


async def publish(context: Context) -> None:
    """Work every shard of the enriched stream until stopping."""
    context.telemetry.set_state("ready")
    await asyncio.gather(*(_publish_shard(context, n) for n in range(context.topics.shards)))


async def _publish_shard(context: Context, shard: int) -> None:
    telemetry, speakers, links = context.telemetry, Speakers(), Links()
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
            newest = newest_of_each(batch)
            links.merge(batch, newest)
            for entry in newest:
                try:
                    keys = await _until_written(context, shard, entry, speakers, links)
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
    context: Context, shard: int, entry: Entry, speakers: Speakers, links: Links
) -> int | None:
    """Write an entry, waiting while Redis is away; None where it still is when stopping.

    Then the batch stays pending, and comes again after the next start.
    """
    telemetry, stopping = context.telemetry, context.stopping
    attempt = 0
    while True:
        try:
            keys = await _write(context, shard, entry, speakers, links)
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


async def _write(
    context: Context, shard: int, entry: Entry, speakers: Speakers, links: Links
) -> int:
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
    header = chain.header
    ts_enrich, prev = entry.te or entry.ts, links.prev(header.chain, entry)
    position = Position(entry.epoch, entry.seq, ts_enrich, prev)
    texts = frames.encode_client_json(
        chain, market_snapshot(header), position, links.prev(header.underlying, entry)
    )
    speaks = speakers.speaks(header)
    written = await latest.write_chain(
        context.redis, context.topics, shard, texts, header, position, speaks=speaks
    )
    links.note(header.chain, entry)
    if speaks:
        links.note(header.underlying, entry)
    return written


def main() -> None:
    """Run the worker."""
    run("realtime", publish)


if __name__ == "__main__":
    main()
