"""`stockify dead`: entries that were set aside, and what is to become of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import click
import msgspec
from rich.table import Table
from rich.text import Text

from pipeline.clock import to_rfc3339
from pipeline.errors import ConfigError
from pipeline.streams import letters
from pipeline.streams.dead_letters import DeadLetters
from pipeline.streams.letters import Filter, Letter
from pipeline.streams.overview import dead_streams
from stockify import entry_lines
from stockify.bus import Bus, attached
from stockify.display import counted, wide_console
from stockify.instants import instant


@click.group()
def dead() -> None:
    """Look at entries that were set aside, send them back, or drop them."""


_filters = (
    click.option("--reason", default="", help="only with that reason: undecodable, attempts, …"),
    click.option("--key", default="", help="only of that symbol, and what belongs to it"),
    click.option("--group", default="", help="only what that group set aside"),
    click.option("--since", help="only since then: RFC 3339, or HH:MM in IST"),
    click.option("--stream", default="dead", help="another stream of dead letters"),
)


def _filtered(command: click.decorators.FC) -> click.decorators.FC:
    for option in reversed(_filters):
        command = option(command)
    return command


@dead.command("list")
@_filtered
@click.option("-n", "--count", default=20, type=click.IntRange(0), help="How many to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_letters(
    reason: str, key: str, group: str, since: str | None, stream: str, count: int, as_json: bool
) -> None:
    """Show dead letters, newest first, and how many there are for each reason."""
    asyncio.run(_list(Wanted(reason, key, group, since, stream), count, as_json=as_json))


@dead.command()
@click.argument("stream_id")
@click.option("--stream", default="dead", help="another stream of dead letters")
def show(stream_id: str, stream: str) -> None:
    """Show everything of a letter, its payload decoded as far as possible."""
    asyncio.run(_show(stream_id, stream))


@dead.command()
@click.argument("stream_ids", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every letter that the filters leave.")
@_filtered
@click.option("--yes", is_flag=True, help="Do not ask.")
def redrive(
    stream_ids: tuple[str, ...],
    all_: bool,
    reason: str,
    key: str,
    group: str,
    since: str | None,
    stream: str,
    yes: bool,
) -> None:
    """Send letters back to the streams they came from, each exactly once, the oldest first.

    STREAM_IDS are those of the letters; or --all, or a filter. Each keeps its message id, and every
    group of that stream is given it as a new entry.
    """
    wanted = Wanted(reason, key, group, since, stream)
    asyncio.run(_each("redrive", _chosen(wanted, stream_ids, all_=all_), stream_ids, yes=yes))


@dead.command()
@click.argument("stream_ids", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every letter that the filters leave.")
@_filtered
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(
    stream_ids: tuple[str, ...],
    all_: bool,
    reason: str,
    key: str,
    group: str,
    since: str | None,
    stream: str,
    yes: bool,
) -> None:
    """Remove letters for good; the audit goes on counting them as dead letters."""
    wanted = Wanted(reason, key, group, since, stream)
    asyncio.run(_each("drop", _chosen(wanted, stream_ids, all_=all_), stream_ids, yes=yes))


class Wanted(msgspec.Struct, frozen=True):
    """The filters as they were typed."""

    reason: str
    key: str
    group: str
    since: str | None
    stream: str

    def filter(self, now_ns: int) -> Filter:
        """The filters as the letters know them. Raises ConfigError."""
        since = instant(self.since, now_ns) if self.since else 0
        return Filter(reason=self.reason, key=self.key, group=self.group, since=since)

    @property
    def is_narrow(self) -> bool:
        """Whether some filter was given."""
        return bool(self.reason or self.key or self.group or self.since)


def _chosen(wanted: Wanted, stream_ids: tuple[str, ...], *, all_: bool) -> Wanted:
    if stream_ids and (all_ or wanted.is_narrow):
        raise ConfigError("either the ids of letters, or --all and filters")
    if not (stream_ids or all_ or wanted.is_narrow):
        raise ConfigError("which letters? Say their ids, --all, or a filter such as --reason")
    return wanted


async def _list(wanted: Wanted, count: int, *, as_json: bool) -> None:
    async with attached("dead") as bus:
        found = [letter async for letter in _matching(bus, wanted)]
    found.sort(key=lambda letter: letter.at, reverse=True)
    reasons = Counter(letter.reason for letter in found)
    if as_json:
        said = {"letters": len(found), "reasons": dict(reasons), "newest": found[:count]}
        click.echo(msgspec.json.format(msgspec.json.encode(said), indent=2).decode())
        return
    if not found:
        click.echo("no dead letters")
        return
    counts = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
    console = wide_console()
    console.print(f"{counted(len(found), 'dead letter')}: {counts}")
    if count:
        console.print(_table(found[:count]))


def _table(found: list[Letter]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("id", "set aside (UTC)", "reason", "group", "key"):
        table.add_column(title, no_wrap=True)
    table.add_column("attempts", justify="right")
    table.add_column("error", overflow="ellipsis", no_wrap=True)
    for letter in found:
        table.add_row(
            letter.stream_id,
            to_rfc3339(letter.at)[:19].replace("T", " "),
            letter.reason,
            letter.group,
            letter.key,
            str(letter.attempts),
            Text(letter.error.replace("\n", " ")),
        )
    return table


async def _show(stream_id: str, stream: str) -> None:
    async with attached("dead") as bus:
        for name in await _dead_streams(bus, stream):
            fields = await letters.read_fields(bus.redis, name, stream_id)
            if fields is not None:
                for text in entry_lines.full(stream_id, fields):
                    click.echo(text)
                return
    raise ConfigError(f"no letter {stream_id}")


async def _each(what: str, wanted: Wanted, stream_ids: tuple[str, ...], *, yes: bool) -> None:
    async with attached("dead") as bus:
        found = [letter async for letter in _matching(bus, wanted, stream_ids)]
        found.sort(key=lambda letter: letter.at)
        missing = set(stream_ids) - {letter.stream_id for letter in found}
        for stream_id in sorted(missing):
            click.echo(f"{stream_id}: there is no such letter", err=True)
        if not found:
            raise ConfigError("no letters to " + what)
        if not (yes or stream_ids):
            click.confirm(f"{what} {counted(len(found), 'letter')}?", abort=True)
        done = 0
        for letter in found:
            done += await (_redrive(bus, letter) if what == "redrive" else _drop(bus, letter))
        click.echo(f"{done:,} of {counted(len(found), 'letter')} {_DONE[what]}")


_DONE = {"redrive": "sent back", "drop": "dropped"}


async def _redrive(bus: Bus, letter: Letter) -> int:
    if not letter.stream:
        click.echo(f"{letter.stream_id}: does not say where it came from", err=True)
        return 0
    sent = await DeadLetters(bus.redis, bus.settings, bus.topics).redrive(letter)
    if sent is None:
        click.echo(f"{letter.stream_id}: was gone already", err=True)
        return 0
    source, place = sent
    click.echo(f"{letter.stream_id}: {letter.id} → {source} {place.stream_id}")
    return 1


async def _drop(bus: Bus, letter: Letter) -> int:
    if not await letters.drop(bus.redis, letter):
        click.echo(f"{letter.stream_id}: was gone already", err=True)
        return 0
    click.echo(f"{letter.stream_id}: {letter.id} dropped ({letter.reason})")
    return 1


async def _matching(
    bus: Bus, wanted: Wanted, stream_ids: tuple[str, ...] = ()
) -> AsyncIterator[Letter]:
    chosen = wanted.filter(bus.clock.now_ns())
    for name in await _dead_streams(bus, wanted.stream):
        if stream_ids:
            for stream_id in dict.fromkeys(stream_ids):
                letter = await letters.find_letter(bus.redis, name, stream_id)
                if letter is not None:
                    yield letter
        else:
            async for letter in letters.read_letters(bus.redis, name, chosen):
                yield letter


async def _dead_streams(bus: Bus, stream: str) -> list[str]:
    """The streams that are meant, those of earlier cuts too; none yet is no error."""
    if stream != "dead":
        return await bus.named(stream)
    return await dead_streams(bus.redis, bus.topics)
