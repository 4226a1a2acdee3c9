"""`stockify doctor`: what stands in the way of an instance here, or of the one that runs."""

import sys

import click

from pipeline.attached import attached_settings
from stockify import doctor as checks
from stockify.doctor import Check, Mark
from stockify.instance import StateDirectory

_COLOURS = {Mark.GOOD: "green", Mark.POOR: "yellow", Mark.BAD: "red"}


@click.command()
def doctor() -> None:
    """Check machine, settings and servers; exits 1 where something must be put right."""
    settings = attached_settings()
    fine = checks.run(settings, StateDirectory(settings.state_path()), _show)
    sys.exit(0 if fine else 1)


def _show(check: Check) -> None:
    mark = click.style(check.mark.value, fg=_COLOURS[check.mark])
    advice = f"  → {check.advice}" if check.advice else ""
    click.echo(f"{mark} {check.name:<10}{check.found}{advice}")
