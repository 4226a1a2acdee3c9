"""`stockify run`: one worker in this terminal, built in or the user's own, against the instance."""

import os
import subprocess
import sys

import click
import msgspec

from pipeline.attached import attached_settings
from pipeline.errors import ConfigError
from stockify import plan, warm


@click.command()
@click.argument("worker")
@click.option("--underlying", "underlyings", multiple=True, help="splitter: only of this one")
def run(worker: str, underlyings: tuple[str, ...]) -> None:
    """Run WORKER: a built-in name such as splitter, or package.module:name of your own.

    It is given the running instance's addresses; STOCKIFY_* of this shell come before them.
    """
    built_in = plan.MODULES | plan.OPTIONAL
    if worker in built_in:
        arguments: tuple[str, ...] = ("-m", built_in[worker])
    elif ":" in worker:
        arguments = ("-m", "stockify.one_file", worker)
    else:
        names = ", ".join(built_in)
        raise ConfigError(f"no worker {worker!r}: want package.module:name or one of {names}")
    settings = attached_settings()
    if underlyings:
        if worker != "splitter":
            raise ConfigError("--underlying is for the splitter")
        settings = msgspec.structs.replace(settings, splitter_underlyings=underlyings)
    environment = plan.environment(settings, worker.replace(":", "."))
    if worker in warm.cold_roles():  # as `up` does: a stale cache would run yesterday's code
        launch = warm.launch(worker)
        subprocess.run(launch.argv, env=dict(launch.env), check=True)
    # In this process's place, so that signals and the exit code are the worker's own.
    os.execve(sys.executable, (sys.executable, *arguments), environment)  # noqa: S606
