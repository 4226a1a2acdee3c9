"""`stockify token`: a token alone on stdout, so that a script can take it."""

import click

from pipeline import config
from pipeline.credentials import DEFAULT_SCOPES, SCOPES
from stockify import tokens
from stockify.instance import StateDirectory


@click.command()
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=DEFAULT_SCOPES,
    show_default=True,
    help="What it allows; may be repeated.",
)
@click.option("--ttl", default="12h", show_default=True, help="How long it holds: 30m, 12h, 7d.")
def token(scopes: tuple[str, ...], ttl: str) -> None:
    """Print a token for this machine's instance, which need not be running."""
    settings = config.load()
    state = StateDirectory(settings.state_path())
    click.echo(tokens.local_token(settings, state, scopes, tokens.parse_ttl(ttl)))
