"""`stockify up`: one command runs the whole pipeline."""

import asyncio
import sys

import click
import msgspec
from rich.console import Console

from pipeline import config
from stockify import plan
from stockify.display import Display, PlainDisplay, TerminalDisplay
from stockify.instance import StateDirectory
from stockify.supervisor import Supervisor


@click.command()
@click.option("--no-sim", is_flag=True, help="Use the real provider; needs its credentials.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Port of the gateway.")
@click.option("--plain", is_flag=True, help="Print plain lines also on a terminal.")
def up(no_sim: bool, port: int | None, plain: bool) -> None:
    """Start engines, workers and gateway, and keep them running until Ctrl-C.

    Without --no-sim a simulated exchange stands in for the provider. Ctrl-C drains in order and
    exits 0; a second Ctrl-C hurries. What is in the state directory is there at the next start.
    """
    settings = config.load()
    if port is not None:
        settings = msgspec.structs.replace(settings, gateway_port=port)
    if no_sim:
        plan.check_provider(settings)
    state = StateDirectory(settings.state_path())
    state.prepare()
    display: Display
    if sys.stdout.isatty() and not plain:
        display = TerminalDisplay(Console())
    else:
        display = PlainDisplay(sys.stdout)
    try:
        code = asyncio.run(Supervisor(settings, state, display, simulated=not no_sim).run())
    finally:
        display.close()
    sys.exit(code)
