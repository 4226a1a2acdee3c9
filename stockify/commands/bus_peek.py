"""`stockify bus peek`: entries of a stream as lines that a person can read."""

import asyncio
import contextlib
import heapq
from collections.abc import Iterator
from typing import Any

import click

from stockify import entry_lines
from stockify.bus import Bus, attached
from stockify.instants import Place, id_order, place

_PAGE = 100
_FOLLOW_S = 0.2  # between two looks: below what an eye takes for waiting

Found = tuple[str, dict[bytes, bytes]]


@click.command()
@click.argument("stream", default="enriched")
@click.option("-n", "--count", default=10, type=click.IntRange(0), help="How many to begin with.")
@click.option("--from", "start", help="begin there: a stream id, RFC 3339, or HH:MM in IST")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
@click.option("--full", is_flag=True, help="Every field, request context, header and first legs.")
def peek(stream: str, count: int, start: str | None, follow: bool, full: bool) -> None:
    """Show the newest entries of STREAM, one line each, or those from a place on.

    STREAM is raw, enriched (the default), contracts, dead, a stream of your own, or a whole key.
    Looking changes nothing: no group is made and nothing is acknowledged.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_peek(stream, count, start, follow=follow, full=full))


async def _peek(stream: str, count: int, start: str | None, *, follow: bool, full: bool) -> None:
    async with attached("peek") as bus:
        names = await bus.named(stream)
        begin = place(start, bus.clock.now_ns()) if start else None
        # Asked first, so that what comes meanwhile is shown after what was there.
        ends = {name: await _newest(bus, name) for name in names}
        found = {
            name: await (_from(bus, name, begin, count) if begin else _last(bus, name, count))
            for name in names
        }
        merged = list(heapq.merge(*found.values(), key=lambda one: id_order(one[0])))
        if not follow:
            merged = merged[:count] if begin else merged[max(0, len(merged) - count) :]
        for stream_id, fields in merged:
            _echo(stream_id, fields, full=full)
        if follow:
            shown = {name: entries[-1][0] for name, entries in found.items() if entries}
            await _follow(bus, ends | shown, full=full)


async def _newest(bus: Bus, name: str) -> str:
    newest: Any = await bus.redis.xrevrange(name, count=1)
    return newest[0][0].decode() if newest else "0-0"


async def _last(bus: Bus, name: str, count: int) -> list[Found]:
    answer: Any = await bus.redis.xrevrange(name, count=count) if count else []
    return [(stream_id.decode(), fields) for stream_id, fields in reversed(answer)]


async def _from(bus: Bus, name: str, begin: Place, count: int) -> list[Found]:
    """The first entries at or behind a place. A time is that of receipt: all are looked at."""
    found: list[Found] = []
    at = "-" if begin.stream_id is None else "{}-{}".format(*begin.stream_id)
    while len(found) < count:
        page: Any = await bus.redis.xrange(name, min=at, count=_PAGE)
        for stream_id, fields in page:
            one = (stream_id.decode(), fields)
            if begin.is_reached(received(fields), one[0]):
                found.append(one)
        if len(page) < _PAGE:
            break
        at = f"({page[-1][0].decode()}"
    return found[:count]


async def _follow(bus: Bus, ends: dict[str, str], *, full: bool) -> None:
    while True:
        for name, end in ends.items():
            page: Any = await bus.redis.xrange(name, min=f"({end}", count=_PAGE)
            for stream_id, fields in page:
                _echo(stream_id.decode(), fields, full=full)
            if page:
                ends[name] = page[-1][0].decode()
        await asyncio.sleep(_FOLLOW_S)


def received(fields: dict[bytes, bytes]) -> int:
    """When what an entry says was received, ns; 0 where it does not tell."""
    text = fields.get(b"ts") or fields.get(b"ts_ingest") or b""
    return int(text) if text.isdigit() else 0


def _echo(stream_id: str, fields: dict[bytes, bytes], *, full: bool) -> None:
    lines: Iterator[str] = (
        entry_lines.full(stream_id, fields)
        if full
        else iter((entry_lines.line(stream_id, fields),))
    )
    for text in lines:
        click.echo(text)
