"""Trims streams to the lowest id that every critical group has finished with.

Entries are kept for a while behind that, for resume and replay; a stream that outgrows its bytes
keeps a shorter while, but is never cut into what a critical group still has to read.
"""

import contextlib
import time
from collections.abc import Callable, Iterable

from pipeline.clock import SECOND_NS
from pipeline.runtime import Context, pause, run
from pipeline.streams import stream_bytes, trim
from pipeline.streams.gauges import GroupGauges
from pipeline.streams.links import AWAY
from pipeline.streams.tallies import prune
from pipeline.streams.tally import MINUTE_NS

INTERVAL_S = 5.0
PRUNE_EVERY_S = 600.0  # a tally of two days is some ten thousand fields; to list them takes 10 ms
HELD_BACK_MS = 60_000  # an oldest entry this much older than wanted is worth a line in the log


async def trim_streams(context: Context) -> None:
    """Trim every few seconds until stopping."""
    telemetry = context.telemetry
    trimmed = telemetry.counter("entries_trimmed", "entries removed from streams")
    sizes: dict[str, int] = {}
    shards = range(context.topics.shards)
    for stream in (
        *(context.topics.raw(shard) for shard in shards),
        *(context.topics.enriched(shard) for shard in shards),
        *(context.topics.contracts(shard) for shard in shards),  # empty without the splitter
    ):
        sizes[stream] = 0
        name = "_".join(part.strip("{}") for part in stream.split(":"))
        telemetry.gauge(f"{name}_bytes", f"memory of {stream}", _reads(sizes, stream), "By")
    gauges = GroupGauges(telemetry)
    streams = [*sizes, *(context.topics.dead(shard) for shard in shards)]
    prune_at = 0.0
    telemetry.set_state("ready")
    while not context.stopping.is_set():
        for stream in sizes:
            try:
                trimmed.add(await _trim_one(context, stream, sizes))
            except AWAY as error:
                telemetry.set_state("degraded", f"Redis is away: {type(error).__name__}")
            else:
                telemetry.set_state("ready")
        with contextlib.suppress(*AWAY):  # the next trim says so
            await gauges.sample(context.redis, streams)
            if time.monotonic() >= prune_at:
                await _prune_tallies(context, streams)
                prune_at = time.monotonic() + PRUNE_EVERY_S
        await pause(context.stopping, INTERVAL_S)


async def _prune_tallies(context: Context, streams: Iterable[str]) -> None:
    keep_ns = context.settings.audit_keep_s * SECOND_NS
    minute = (context.clock.now_ns() - keep_ns) // MINUTE_NS
    for stream in streams:
        await prune(context.redis, stream, minute)


async def _trim_one(context: Context, stream: str, sizes: dict[str, int]) -> int:
    size = sizes[stream] = await stream_bytes(context.redis, stream)
    keep_ms = kept_ms(context.settings.keep_s, size, context.settings.keep_bytes)
    trimmed = await trim(context.redis, stream, keep_ms)
    if trimmed.holder and trimmed.oldest:
        # Stream ids are the server's wall time, whatever clock the market runs on.
        behind_ms = time.time_ns() // 1_000_000 - keep_ms - int(trimmed.oldest.split("-")[0])
        if behind_ms > HELD_BACK_MS:
            context.telemetry.log.warning(
                "held_back",
                stream=stream,
                group=trimmed.holder,
                behind_s=behind_ms // 1_000,
                bytes=size,
            )
    return trimmed.removed


def kept_ms(keep_s: int, size: int, limit: int) -> int:
    """How much of a stream to keep, ms: `keep_s`, or as much less as brings it under its bytes."""
    return keep_s * 1_000 if size <= limit else keep_s * 1_000 * limit // size


def _reads(sizes: dict[str, int], stream: str) -> Callable[[], float]:
    return lambda: sizes[stream]


def main() -> None:
    """Run the worker."""
    run("trimmer", trim_streams)


if __name__ == "__main__":
    main()
