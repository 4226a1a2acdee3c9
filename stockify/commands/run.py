"""`stockify run`: one worker in this terminal, built in or the user's own, against the instance."""

import os
import sys

import click

from pipeline.errors import ConfigError
from stockify import plan
from stockify.attached import attached_settings


@click.command()
@click.argument("worker")
def run(worker: str) -> None:
    """Run WORKER: a built-in name such as processor, or package.module:name of your own.

    It is given the running instance's addresses; STOCKIFY_* of this shell come before them.
    """
    if worker in plan.MODULES:
        arguments: tuple[str, ...] = ("-m", plan.MODULES[worker])
    elif ":" in worker:
        arguments = ("-m", "stockify.one_file", worker)
    else:
        names = ", ".join(plan.MODULES)
        raise ConfigError(f"no worker {worker!r}: want package.module:name or one of {names}")
    environment = plan.environment(attached_settings(), worker.replace(":", "."))
    # In this process's place, so that signals and the exit code are the worker's own.
    os.execve(sys.executable, (sys.executable, *arguments), environment)  # noqa: S606
