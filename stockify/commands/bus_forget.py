"""`stockify bus forget`: removes a group that is not wanted any more."""

import asyncio

import click

from pipeline.errors import ConfigError
from pipeline.streams.groups import forget as forget_group
from pipeline.streams.state import GroupState, StreamState, read_state
from stockify.bus import attached


@click.command()
@click.argument("stream")
@click.argument("group")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(stream: str, group: str, yes: bool) -> None:
    """Remove GROUP of STREAM with its card, durable cursor, lease and bookmark.

    The trimmer then waits for it no longer. Stop its worker first: one that runs makes the group
    again, at its start.
    """
    asyncio.run(_forget(stream, group, yes=yes))


async def _forget(stream: str, group: str, *, yes: bool) -> None:
    async with attached("forget") as bus:
        states = [await read_state(bus.redis, name) for name in await bus.named(stream)]
        found = [(state, one) for state in states for one in state.groups if one.name == group]
        if not found:
            known = sorted({one.name for state in states for one in state.groups})
            raise ConfigError(f"no group {group!r}; there are: {', '.join(known) or 'none'}")
        for state, one in found:
            click.echo(_about(state, one))
        if not yes:
            click.confirm(f"remove {group} for good?", abort=True)
        for state, _one in found:
            await forget_group(bus.redis, state.name, group)
            click.echo(f"{state.name}: {group} is removed")


def _about(state: StreamState, group: GroupState) -> str:
    owner = f", owned by {group.owner} at this moment" if group.owner else ""
    lag = "?" if group.lag is None else f"{group.lag:,}"
    return f"{state.name}: {group.name} has {group.pending:,} pending and lags {lag}{owner}"
