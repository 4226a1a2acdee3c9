"""The `stockify` command: a table of subcommands, each loaded when it is used.

Loading them all would cost half a second (psycopg, redis and PyJWT among them), which `stockify
status` and a shell's completion would pay every time; loading one costs 0.1 s.
"""

import sys

import click

from pipeline.errors import ConfigError, StockifyError
from stockify.instance import AlreadyHeld
from stockify.lazy import Entry, LazyGroup

COMMANDS = {
    "up": Entry("stockify.commands.up", "up", "Start the whole pipeline and keep it running."),
    "status": Entry("stockify.commands.status", "status", "Say how the running instance is."),
    "logs": Entry("stockify.commands.logs", "logs", "Show the processes' logs, merged by time."),
    "token": Entry("stockify.commands.token", "token", "Print a token for the gateway."),
    "key": Entry("stockify.commands.key", "key", "Create, list and revoke API keys."),
    "env": Entry("stockify.commands.env", "env", "Print what a consumer needs, to be sourced."),
    "run": Entry("stockify.commands.run", "run", "Run one worker against the instance."),
    "bus": Entry("stockify.commands.bus", "bus", "Show streams and groups; peek, replay, trim."),
    "dead": Entry("stockify.commands.dead", "dead", "Look at dead letters; redrive or drop them."),
    "audit": Entry("stockify.commands.audit", "audit", "Say whether anything is lost or double."),
    "replay": Entry("stockify.replay", "command", "Feed recorded bodies into the pipeline."),
    "compare": Entry("stockify.compare", "command", "Compare our volatilities with Dhan's own."),
    "export": Entry("stockify.commands.exporting", "export", "Write closed days as Parquet files."),
    "import": Entry("stockify.commands.importing", "import_days", "Bring exported days back."),
    "reenrich": Entry("stockify.commands.reenriching", "reenrich", "Calculate a day anew."),
    "migrate": Entry("stockify.commands.migrate", "migrate", "Apply the database migrations."),
    "warmup": Entry("stockify.commands.warmup", "warmup", "Compile the kernels ahead of use."),
    "doctor": Entry("stockify.commands.doctor", "doctor", "Check machine, settings and servers."),
    "bench": Entry("stockify.bench", "command", "Measure, and print a table."),
}


@click.command(
    cls=LazyGroup, entries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
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
