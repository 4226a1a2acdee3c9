"""`stockify bus reshard`: work off the streams and cut the bus into another number of shards."""

import asyncio
from collections.abc import Iterator

import click

from pipeline import layout
from pipeline.errors import ConfigError
from stockify.bus import Bus, attached
from stockify.reshard import Outlook, Reshard, cancel, described, is_interrupted, open_again


@click.command()
@click.option("--shards", type=int, help="How many there shall be.")
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@click.option("--wait", "wait_s", default=300.0, help="Seconds to wait for groups to finish.")
@click.option("--leave", multiple=True, metavar="GROUP", help="Do not wait for this group.")
@click.option("--cancel", "is_cancelled", is_flag=True, help="Give up a change that was cut short.")
def reshard(
    shards: int | None, plan: bool, wait_s: float, leave: tuple[str, ...], is_cancelled: bool
) -> None:
    """Cut the bus into another number of shards, without losing or re-ordering anything.

    Producers keep what they have on disk meanwhile. When every group has finished the old streams
    the new number is recorded; processes with the old one end, and are to be started again with
    STOCKIFY_SHARDS set to the new one. Exits 1, and changes nothing, where groups do not finish.
    """
    if (shards is None) is not is_cancelled:
        raise ConfigError("want --shards N, or --cancel")
    asyncio.run(_reshard(shards or 0, plan=plan, wait_s=wait_s, leave=leave))


async def _reshard(shards: int, *, plan: bool, wait_s: float, leave: tuple[str, ...]) -> None:
    async with attached("reshard") as bus:
        record = await layout.read(bus.redis)
        if record is None:
            raise ConfigError("nothing has been started on this bus yet: set STOCKIFY_SHARDS")
        if not shards:
            await cancel(bus, record)
            click.echo("cancelled: the streams take entries again")
            return
        if await _finished_interrupted(bus, record, shards):
            return
        change = Reshard(bus, record, shards, leave)
        outlook = await change.outlook()
        for line in lines(outlook):
            click.echo(line)
        if plan:
            return
        try:
            await change.run(click.echo, wait_s)
        except TimeoutError as error:
            click.echo(f"{error}; nothing was changed", err=True)
            raise SystemExit(1) from error
        click.echo(f"start every process with STOCKIFY_SHARDS={shards}")


async def _finished_interrupted(bus: Bus, record: layout.Record, shards: int) -> bool:
    """Whether there was a change that was recorded and not brought to its end; now it is."""
    if record.current.shards != shards or not record.past:
        return False
    if not await is_interrupted(bus, record):
        return False
    await open_again(bus, record.past[-1].topics, record.current.topics, click.echo)
    click.echo("the change that was cut short is done")
    return True


def lines(outlook: Outlook) -> Iterator[str]:
    """What would be done, in words."""
    old, new = outlook.old, outlook.new
    yield f"from {old.shards} ({old.raw()}, …) to {new.shards} ({new.raw()}, …)"
    yield "1. nothing more is appended to the old streams; producers keep it on disk"
    if outlook.waiting:
        yield f"2. groups finish them: {described(outlook.waiting)}"
    else:
        yield "2. groups finish them: nothing is left to do"
    yield f"3. the latest values of {outlook.chains:,} chains are copied"
    yield f"4. {new.shards} is recorded; processes with {old.shards} end"
    yield "5. the old streams go after STOCKIFY_KEEP_S"
    if outlook.letters:
        yield f"   {outlook.letters:,} dead letters stay where they are"
