"""`stockify bus`: how streams and groups stand, and what one does with streams by hand."""

import asyncio
import contextlib
import time

import click
import msgspec
from redis.exceptions import RedisError
from rich.live import Live
from rich.text import Text

from pipeline.errors import StockifyError
from pipeline.streams import overview
from pipeline.streams.overview import View, plain
from stockify.bus import Bus, attached
from stockify.bus_view import tables
from stockify.display import wide_console
from stockify.lazy import Entry, LazyGroup

REFRESH_S = 1.0
_LIST_EVERY_S = 10.0  # to list the streams means to go over every key

PARTS = {
    "peek": Entry("stockify.commands.bus_peek", "peek", "Show entries of a stream."),
    "replay": Entry("stockify.commands.bus_replay", "replay", "Append an interval once more."),
    "trim": Entry("stockify.commands.bus_trim", "trim", "Trim once, or say what would go."),
    "reshard": Entry(
        "stockify.commands.bus_reshard", "reshard", "Cut the bus into another number of shards."
    ),
    "forget": Entry("stockify.commands.bus_forget", "forget", "Remove a group that is not wanted."),
}


@click.group(cls=LazyGroup, entries=PARTS, invoke_without_command=True)
@click.option("--once", is_flag=True, help="Print it once, also on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def bus(context: click.Context, once: bool, as_json: bool) -> None:
    """Show streams and groups: headroom, lag, pending entries, their age, owners of shards.

    Lag counts entries that were not delivered, by our own sequences. On a terminal it is shown anew
    every second until Ctrl-C.
    """
    if context.invoked_subcommand is None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_show(once=once, as_json=as_json))


async def _show(*, once: bool, as_json: bool) -> None:
    console = wide_console()
    async with attached("bus") as found:
        if as_json:
            view = await look(found, await found.streams())
            text = msgspec.json.format(msgspec.json.encode(plain(view)), indent=2)
            click.echo(text.decode())
        elif once or not console.is_terminal:
            console.print(tables(await look(found, await found.streams())))
        else:
            with Live(console=console, auto_refresh=False, screen=False) as live:
                await _show_live(found, live)


async def _show_live(found: Bus, live: Live) -> None:
    streams: list[str] = []
    listed_at = 0.0
    while True:
        try:
            if time.monotonic() - listed_at >= _LIST_EVERY_S:
                streams, listed_at = await found.streams(), time.monotonic()
            live.update(tables(await look(found, streams)), refresh=True)
        except (RedisError, OSError, StockifyError) as error:
            live.update(Text(f"Redis is away: {error}", "yellow"), refresh=True)
        await asyncio.sleep(REFRESH_S)


async def look(found: Bus, streams: list[str]) -> View:
    """How these streams stand, those that never were left out."""
    return await overview.look(found.redis, found.topics, streams, found.settings.keep_bytes)
