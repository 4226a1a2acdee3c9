"""`stockify bus trim`: what a trim would remove and who holds it back, or one trim now."""

import asyncio

import click

from pipeline.streams.trimming import Trimmed, stream_bytes
from pipeline.streams.trimming import trim as trim_stream
from stockify.bus import attached
from stockify.bus_view import size
from stockify.display import counted, duration
from workers.trimmer import kept_ms


@click.command()
@click.option("--plan", is_flag=True, help="Only say what would be removed.")
def trim(plan: bool) -> None:
    """Trim every stream once, as the trimmer does every few seconds.

    Nothing goes that a critical group has not finished, nor what is younger than STOCKIFY_KEEP_S;
    less is kept of a stream that outgrows STOCKIFY_KEEP_BYTES.
    """
    asyncio.run(_trim(plan=plan))


async def _trim(*, plan: bool) -> None:
    async with attached("trim") as bus:
        for stream in bus.trimmed():
            if not await bus.redis.exists(stream):
                continue
            held = await stream_bytes(bus.redis, stream)
            keep_ms = kept_ms(bus.settings.keep_s, held, bus.settings.keep_bytes)
            trimmed = await trim_stream(bus.redis, stream, keep_ms, held, plan=plan)
            for text in lines(stream, held, keep_ms, trimmed, plan=plan):
                click.echo(text)


def lines(stream: str, held: int, keep_ms: int, trimmed: Trimmed, *, plan: bool) -> list[str]:
    """What a trim of one stream did or would do, in words."""
    verb = "would remove" if plan else "removed"
    said = f"{stream}: {verb} {counted(trimmed.removed, 'entry', 'entries')}"
    if trimmed.removed:
        said += f", all before {trimmed.cut}"
    said += f"; {size(held)}, keeps {duration(keep_ms / 1_000)}"
    if trimmed.holder:
        said += f"; held back by {trimmed.holder}"
    found = [said]
    for one in trimmed.behind:
        what = "critical" if one.is_critical else "best effort"
        skipped = f", misses {counted(one.skipped, 'entry', 'entries')}" if one.skipped else ""
        found.append(
            f"  {one.group} ({what}) is past its promise: first unfinished {one.stream_id}, "
            f"{duration(one.age_ms / 1_000)} old{skipped}"
        )
    return found
