"""`stockify env`: what a consumer needs to attach, as lines for a shell.

The one command that prints passwords, because that is what it is asked for.
"""

import shlex

import click

from pipeline import config
from pipeline.errors import ConfigError
from stockify.instance import StateDirectory

EXPORTED = ("redis_url", "redis_cluster", "database_url", "shards", "clock", "state_dir")


@click.command()
def env() -> None:
    """Print the running instance's addresses, passwords included: eval "$(stockify env)"."""
    state = StateDirectory(config.load().state_path())
    running = state.running()
    if running is None:
        raise ConfigError(f"no instance runs in {state.path}")
    click.echo(f"# gateway {running.gateway}")
    for name in EXPORTED:
        variable = config.PREFIX + name.upper()
        click.echo(f"export {variable}={shlex.quote(running.environment[variable])}")
