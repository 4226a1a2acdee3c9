"""Trims streams to the lowest id that every critical group has finished with.

Entries are kept for a while behind that, for resume and replay; a stream that outgrows its bytes
keeps a shorter while, but is never cut into what a critical group still has to read.
"""

import time
from collections.abc import Callable, Iterable

from pipeline.clock import SECOND_NS
from pipeline.cluster import primaries
from pipeline.errors import BusUnavailable
from pipeline.runtime import Context, pause, run
from pipeline.streams import stream_bytes, trim
from pipeline.streams.gauges import GroupGauges
from pipeline.streams.links import AWAY
from pipeline.streams.tallies import prune
from pipeline.streams.tally import MINUTE_NS
from pipeline.streams.trimming import Behind

INTERVAL_S = 5.0
LOOK_EVERY_S = 30.0  # how often users' own streams are looked for
PRUNE_EVERY_S = 600.0  # a tally of two days is some ten thousand fields; to list them takes 10 ms
SAY_AGAIN_S = 60.0  # a group that stays behind is worth a line a minute
SCANNED_AT_ONCE = 1_000
HELD_BACK_MS = 60_000  # so much beyond what is kept anyway is worth a line in the log


async def trim_streams(context: Context) -> None:
    """Trim every few seconds until stopping."""
    telemetry = context.telemetry
    trimmer = _Trimmer(context)
    gauges = GroupGauges(telemetry)
    look_at = prune_at = 0.0
    telemetry.set_state("ready")
    while not context.stopping.is_set():
        try:
            if time.monotonic() >= look_at:
                await trimmer.look()
                look_at = time.monotonic() + LOOK_EVERY_S
            for stream in trimmer.sizes:
                await trimmer.trim(stream)
            streams = [*trimmer.sizes, *trimmer.dead]
            await gauges.sample(context.redis, streams)
            if time.monotonic() >= prune_at:
                await _prune_tallies(context, streams)
                prune_at = time.monotonic() + PRUNE_EVERY_S
        except (*AWAY, BusUnavailable) as error:
            telemetry.set_state("degraded", f"Redis is away: {type(error).__name__}")
        else:
            telemetry.set_state("ready")
        await pause(context.stopping, INTERVAL_S)


class _Trimmer:
    """The streams that are trimmed: ours, and those of users, which it finds. Dead letters stay."""

    def __init__(self, context: Context) -> None:
        self._context = context
        telemetry, topics = context.telemetry, context.topics
        shards = range(topics.shards)
        self.sizes: dict[str, int] = {}
        self.dead = [topics.dead(shard) for shard in shards]
        self._trimmed = telemetry.counter("entries_trimmed", "entries removed from streams")
        self._passed = telemetry.counter(
            "entries_passed", "entries removed that a best-effort group had not finished"
        )
        self._said: dict[tuple[str, str], float] = {}
        for stream in (
            *(topics.raw(shard) for shard in shards),
            *(topics.enriched(shard) for shard in shards),
            *(topics.contracts(shard) for shard in shards),  # empty without the splitter
        ):
            self.sizes[stream] = 0
            name = "_".join(part.strip("{}") for part in stream.split(":"))
            size = _reads(self.sizes, stream)
            telemetry.gauge(f"{name}_bytes", f"memory of {stream}", size, "By")

    async def look(self) -> None:
        """Find the streams that somebody else has made."""
        pattern = self._context.topics.stream_pattern()
        for server in await primaries(self._context.redis):
            async for key in server.scan_iter(pattern, count=SCANNED_AT_ONCE, _type="stream"):
                if (stream := key.decode()) not in self.dead:
                    self.sizes.setdefault(stream, 0)

    async def trim(self, stream: str) -> None:
        """Trim one stream, and say who is behind."""
        settings, redis = self._context.settings, self._context.redis
        size = self.sizes[stream] = await stream_bytes(redis, stream)
        keep_ms = kept_ms(settings.keep_s, size, settings.keep_bytes)
        trimmed = await trim(redis, stream, keep_ms, size)
        self._trimmed.add(trimmed.removed)
        for behind in trimmed.behind:
            if behind.skipped:
                self._passed.add(behind.skipped)
                self._say("passed", stream, behind, entries=behind.skipped)
            elif behind.age_ms > keep_ms + HELD_BACK_MS:
                self._say("held_back", stream, behind, bytes=size, budget=settings.keep_bytes)

    def _say(self, event: str, stream: str, behind: Behind, **more: int) -> None:
        said = self._said.get((stream, behind.group), -SAY_AGAIN_S)
        if time.monotonic() - said >= SAY_AGAIN_S:
            self._said[stream, behind.group] = time.monotonic()
            self._context.telemetry.log.warning(
                event,
                stream=stream,
                group=behind.group,
                behind_s=behind.age_ms // 1_000,
                first=behind.stream_id,
                **more,
            )


async def _prune_tallies(context: Context, streams: Iterable[str]) -> None:
    keep_ns = context.settings.audit_keep_s * SECOND_NS
    minute = (context.clock.now_ns() - keep_ns) // MINUTE_NS
    for stream in streams:
        await prune(context.redis, stream, minute)


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
