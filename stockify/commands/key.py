"""`stockify key`: API keys, which programs exchange for short tokens at the gateway."""

import asyncio
import time

import click
import msgspec
from rich.table import Table
from rich.text import Text

from pipeline.clock import SECOND_NS, to_rfc3339
from pipeline.credentials import DEFAULT_SCOPES, SCOPES
from pipeline.errors import ConfigError
from pipeline.keys import ApiKey, ApiKeys
from pipeline.revocations import Revocations
from stockify.bus import attached
from stockify.display import wide_console
from stockify.tokens import parse_ttl


@click.group()
def key() -> None:
    """Create, list and revoke API keys. A key is exchanged for tokens at POST /v1/token."""


@key.command()
@click.option("--name", required=True, help="Whose key it is, for the list.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=DEFAULT_SCOPES,
    show_default=True,
    help="What its tokens may allow; may be repeated.",
)
@click.option("--expires", default="", help="How long it holds: 12h, 90d; not said: for ever.")
def create(name: str, scopes: tuple[str, ...], expires: str) -> None:
    """Print a new key. It is shown here and never again."""
    ttl_s = parse_ttl(expires) if expires else 0
    click.echo(asyncio.run(_create(name, scopes, ttl_s)))


@key.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_keys(as_json: bool) -> None:
    """Show the keys, without their secrets, and when each was last exchanged."""
    asyncio.run(_list(as_json=as_json))


@key.command()
@click.argument("number", metavar="ID")
def revoke(number: str) -> None:
    """Revoke a key and every token that was given for it. ID is that of `key list`."""
    asyncio.run(_revoke(number))


async def _create(name: str, scopes: tuple[str, ...], ttl_s: int) -> str:
    async with attached("key") as bus:
        try:
            text, made = await ApiKeys(bus.redis).create(name, scopes, ttl_s=ttl_s)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    until = f"until {_shown(made.expires)}" if made.expires else "until it is revoked"
    click.echo(f"key {made.id} of {made.name}: {' '.join(made.scopes)}, {until}", err=True)
    return text


async def _list(*, as_json: bool) -> None:
    async with attached("key") as bus:
        found = await ApiKeys(bus.redis).listed()
    if as_json:
        keys = [
            {
                "id": one.id,
                "name": one.name,
                "scopes": one.scopes,
                "created": _shown(one.created),
                "expires": _shown(one.expires),
                "revoked": _shown(one.revoked),
                "used": _shown(used),
                "holds": one.holds(time.time()),
            }
            for one, used in found
        ]
        click.echo(msgspec.json.format(msgspec.json.encode({"keys": keys}), indent=2).decode())
    elif found:
        wide_console().print(_table(found))
    else:
        click.echo("no API keys")


def _table(found: list[tuple[ApiKey, int]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("id", "name", "scopes", "created (UTC)", "last used", "expires", "state"):
        table.add_column(title, no_wrap=True)
    now = time.time()
    for one, used in found:
        state = "revoked" if one.revoked else "holds" if one.holds(now) else "expired"
        instants = [(_shown(at) or "never")[:16] for at in (one.created, used, one.expires)]
        table.add_row(one.id, Text(one.name), " ".join(one.scopes), *instants, state)
    return table


async def _revoke(number: str) -> None:
    async with attached("key") as bus:
        found = await ApiKeys(bus.redis).revoke(number)
        if found is None:
            raise ConfigError(f"no API key {number!r}; `stockify key list` shows them")
        await Revocations(bus.redis).revoke_subject(found.subject)
    click.echo(f"key {found.id} of {found.name} is revoked, and the tokens given for it")


def _shown(seconds: int) -> str | None:
    return to_rfc3339(seconds * SECOND_NS)[:19].replace("T", " ") if seconds else None
