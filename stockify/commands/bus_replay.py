"""`stockify bus replay`: kept entries once more, at the pace at which they were received."""

import asyncio
import time

import click
import msgspec
from redis.exceptions import RedisError

from pipeline.clock import SECOND_NS, to_rfc3339
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.streams.glances import Glance, copy, glance
from pipeline.topics import Topics
from stockify.bus import Bus, attached
from stockify.display import counted, duration
from stockify.instants import Place, place

TTL_S = 86_400  # a replay that nobody reads any more goes by itself
_NAMES = ("raw", "enriched", "contracts")


class Lane(msgspec.Struct):
    """One shard's entries on their way from `source` to `target`."""

    source: str
    target: str
    entries: list[Glance]
    done: int = 0
    gone: int = 0


@click.command()
@click.option("--from", "start", required=True, help="RFC 3339, HH:MM in IST, or a stream id")
@click.option("--to", "end", required=True, help="up to there, itself left out")
@click.option(
    "--speed", default=1.0, type=click.FloatRange(0), help="Times as fast; 0: without a pause."
)
@click.option("--stream", type=click.Choice(_NAMES), default="raw", show_default=True)
@click.option("--to-stream", help="into that stream instead of stream:replay:<name>")
@click.option(
    "--into", type=click.Choice(["raw"]), help="into the live raw stream: enrich it again"
)
def replay(
    start: str, end: str, speed: float, stream: str, to_stream: str | None, into: str | None
) -> None:
    """Append the kept entries of an interval again, in their order and at their pace.

    They go to stream:replay:<name>, which goes by itself a day later, so that a consumer can be
    tried on them and nothing live sees them. Into the live raw stream only with --into raw: then
    they are enriched once more, and what Postgres has is known there by its id and not stored
    twice. A time means that of receipt.
    """
    if into and (stream != "raw" or to_stream):
        raise ConfigError("--into raw replays the raw stream, and goes without --to-stream")
    asyncio.run(_replay(start, end, speed, stream, to_stream, is_live=into is not None))


async def _replay(
    start: str, end: str, speed: float, stream: str, to_stream: str | None, *, is_live: bool
) -> None:
    async with attached("replay") as bus:
        now_ns = bus.clock.now_ns()
        first, last = place(start, now_ns), place(end, now_ns)
        lanes = [
            Lane(source, target, await _entries(bus, source, first, last))
            for source, target in _ways(bus, stream, to_stream, is_live=is_live)
        ]
        times = [received(entry) for lane in lanes for entry in lane.entries]
        if not times:
            click.echo(f"nothing is kept of {stream} between {start} and {end}")
            return
        takes = "without a pause"
        if speed:
            takes = f"in about {duration((max(times) - min(times)) / SECOND_NS / speed)}"
        click.echo(
            f"{counted(len(times), 'entry', 'entries')} from {to_rfc3339(min(times))} to "
            f"{to_rfc3339(max(times))}, {takes}"
        )
        paces = Pace(min(times), time.monotonic(), speed)
        ttl_s = 0 if is_live or to_stream else TTL_S
        sending = (_send(bus, lane, paces, counts=is_live, ttl_s=ttl_s) for lane in lanes)
        await asyncio.gather(*sending)
        for lane in lanes:
            if lane.entries:
                gone = f", {lane.gone:,} trimmed meanwhile" if lane.gone else ""
                sent = counted(lane.done, "entry", "entries")
                click.echo(f"{lane.source}: {sent} into {lane.target}{gone}")


class Pace(msgspec.Struct, frozen=True):
    """When what was received at a time is due: `began` (s) stands for `first_ns`."""

    first_ns: int
    began: float
    speed: float

    def due(self, ts: int) -> float:
        """Seconds of the monotonic clock; at once with speed 0."""
        return self.began + (ts - self.first_ns) / SECOND_NS / self.speed if self.speed else 0.0


def received(entry: Glance) -> int:
    """When an entry was received, ns; of one that does not tell, when it was appended."""
    told = entry.number("ts") or entry.number("ts_ingest")
    return told or int(entry.stream_id.partition("-")[0]) * 1_000_000


def _ways(bus: Bus, stream: str, to_stream: str | None, *, is_live: bool) -> list[tuple[str, str]]:
    """Source and target of every shard. Raises ConfigError for a target that is in use."""
    topics, ways = bus.topics, []
    short = to_stream.removeprefix(Topics().stream("")) if to_stream else None
    if short in (*_NAMES, "dead"):
        raise ConfigError(f"{to_stream} is live; only --into raw writes to a live stream")
    for shard in bus.shards():
        source = topics.stream(stream, shard)
        target = topics.stream(short, shard) if short else topics.replay(stream, shard)
        ways.append((source, source if is_live else target))
    return ways


async def _entries(bus: Bus, source: str, first: Place, last: Place) -> list[Glance]:
    """The entries of the interval; a time is looked for in all, since ids are of the appending."""
    start = "-" if first.stream_id is None else "{}-{}".format(*first.stream_id)
    found: list[Glance] = []
    async for page in glance(bus.redis, source, start=start):
        for entry in page:
            at = (received(entry), entry.stream_id)
            if first.is_reached(*at) and not last.is_reached(*at):
                found.append(entry)
    return found


async def _send(bus: Bus, lane: Lane, pace: Pace, *, counts: bool, ttl_s: int) -> None:
    for entry in lane.entries:
        await asyncio.sleep(max(0.0, pace.due(received(entry)) - time.monotonic()))
        try:
            sent = await copy(bus.redis, entry, lane.target, counts=counts, ttl_s=ttl_s)
        except (RedisError, OSError) as error:
            raise BusUnavailable(
                f"Redis: {error}; go on with --from {entry.stream_id}, which may have been sent"
            ) from error
        if sent is None:
            lane.gone += 1
        else:
            lane.done += 1
