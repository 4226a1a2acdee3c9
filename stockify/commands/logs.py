"""`stockify logs`: what the processes printed, merged by time."""

from datetime import UTC, datetime

import click

from pipeline import config
from stockify import log_reader
from stockify.instance import StateDirectory
from stockify.log_reader import Line

_COLOURS = {"debug": "bright_black", "warning": "yellow", "error": "red"}


@click.command()
@click.argument("names", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
@click.option("-n", "--lines", default=50, type=click.IntRange(0), help="How many to begin with.")
@click.option(
    "--level",
    type=click.Choice(log_reader.LEVELS),
    default="debug",
    help="Leave out what is less grave.",
)
def logs(names: tuple[str, ...], follow: bool, lines: int, level: str) -> None:
    """Show the last lines of all processes, or of NAMES, merged by time (UTC)."""
    state = StateDirectory(config.load().state_path())
    sources = state.log_paths()
    unknown = sorted(set(names) - set(sources))
    if unknown:
        known = ", ".join(sources) or "none yet"
        raise click.UsageError(f"no log of {', '.join(unknown)}; there are: {known}")
    if names:
        sources = {name: sources[name] for name in names}
    width = max(map(len, sources), default=0)
    following = log_reader.follow(sources, level)
    for line in log_reader.last_lines(sources, lines, level):
        click.echo(_text(line, width))
    if not follow:
        return
    try:
        for added in following:
            for line in added:
                click.echo(_text(line, width))
    except KeyboardInterrupt:
        return


def _text(line: Line, width: int) -> str:
    at = datetime.fromtimestamp(line.at, UTC).strftime("%H:%M:%S.%f")[:-3] if line.at else " " * 12
    fields = " ".join(f"{name}={value}" for name, value in line.fields.items())
    text = f"{line.source:<{width}}  {line.level:<7}  {line.event}  {fields}".rstrip()
    return f"{click.style(at, dim=True)}  {click.style(text, fg=_COLOURS.get(line.level))}"
