"""`stockify status`: how the running instance is, for people and for programs."""

import sys

import click
import msgspec
from rich.console import Console

from pipeline import config
from pipeline.attached import Holder
from pipeline.clock import SECOND_NS, Clock, parse_instant
from stockify.display import duration, table
from stockify.instance import StateDirectory, Status

NONE_RUNS = 3
STALE_S = 10.0  # it writes every second


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Say how the running instance is, without passwords.

    Exits 0 whenever an instance runs, degraded or not, and 3 where none does.
    """
    state = StateDirectory(config.load().state_path())
    holder = state.holder()
    if holder is None:
        click.echo(f"no instance runs in {state.path}", err=True)
        sys.exit(NONE_RUNS)
    found = state.status() or _just_starting(holder)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _print(found)


def _print(found: Status) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{found.state}, pid {found.pid}, since {found.since}")
    age_s = (Clock().now_ns() - parse_instant(found.at)) / SECOND_NS
    if age_s > STALE_S:
        console.print(f"the supervisor has not said anything for {duration(age_s)}")
    for name in ("gateway", "redis", "database"):
        console.print(f"{name:<9}{getattr(found, name) or '-'}")
    console.print(table(found))


def _just_starting(holder: Holder) -> Status:
    return Status(
        state="starting",
        at=holder.since,
        pid=holder.pid,
        since=holder.since,
        gateway=holder.page,
        redis="",
        database="",
        processes={},
    )
