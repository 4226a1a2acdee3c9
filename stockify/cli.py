"""The `stockify` command: a table of subcommands, each loaded when it is used.

Loading them all would cost half a second (psycopg, redis and PyJWT among them), which `stockify
status` and a shell's completion would pay every time; loading one costs 0.1 s.
"""

import importlib
import sys
from typing import NamedTuple

import click

from pipeline.errors import ConfigError, StockifyError
from stockify.instance import AlreadyHeld


class Entry(NamedTuple):
    """Where a subcommand is, and what the overview says of it."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "up": Entry("stockify.commands.up", "up", "Start the whole pipeline and keep it running."),
    "status": Entry("stockify.commands.status", "status", "Say how the running instance is."),
    "logs": Entry("stockify.commands.logs", "logs", "Show the processes' logs, merged by time."),
    "token": Entry("stockify.commands.token", "token", "Print a token for the gateway."),
    "env": Entry("stockify.commands.env", "env", "Print what a consumer needs, to be sourced."),
    "run": Entry("stockify.commands.run", "run", "Run one worker against the instance."),
    "bus": Entry("stockify.commands.bus", "bus", "Show streams and groups; peek, replay, trim."),
    "dead": Entry("stockify.commands.dead", "dead", "Look at dead letters; redrive or drop them."),
    "audit": Entry("stockify.commands.audit", "audit", "Say whether anything is lost or double."),
    "replay": Entry("stockify.replay", "command", "Feed recorded bodies into the pipeline."),
    "compare": Entry("stockify.compare", "command", "Compare our volatilities with Dhan's own."),
    "migrate": Entry("stockify.commands.migrate", "migrate", "Apply the database migrations."),
    "warmup": Entry("stockify.commands.warmup", "warmup", "Compile the kernels ahead of use."),
    "doctor": Entry("stockify.commands.doctor", "doctor", "Check machine, settings and servers."),
    "bench": Entry("stockify.bench", "command", "Measure, and print a table."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when that subcommand is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, imported now."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}:{entry.attribute} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stockify")
def commands() -> None:
    """Market data for Indian options on one Redis and one Postgres.

    Settings are read from STOCKIFY_* and from the file that STOCKIFY_CONFIG names.
    """


def main() -> None:
    """The console script. Exits 2 for a wrong setting or option, 1 for another failure."""
    try:
        commands(prog_name="stockify")
    except StockifyError as error:
        click.echo(f"stockify: {error}", err=True)
        is_usage = isinstance(error, ConfigError) and not isinstance(error, AlreadyHeld)
        sys.exit(2 if is_usage else 1)
