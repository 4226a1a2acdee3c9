"""`stockify warmup`: compile the kernels before a process needs them."""

import contextlib
import subprocess
import sys
import time

import click

from stockify import warm

_LOOK_S = 0.25


@click.command()
@click.option("--force", is_flag=True, help="Compile also where the cache is up to date.")
def warmup(force: bool) -> None:
    """Fill the kernel caches, one directory a role; the first `stockify up` does it too."""
    roles = warm.ROLES if force else warm.cold_roles()
    if not roles:
        click.echo("kernels are warm")
    for role in roles:
        began = time.monotonic()
        code = _fill(role, force)
        if code:
            sys.exit(code)
        click.echo(f"{role}: {warm.kernels(role)} kernels in {time.monotonic() - began:.1f} s")


def _fill(role: str, force: bool) -> int:
    """Its exit code. A person sees how far it is, on one line; a log sees that it began."""
    is_watched = sys.stdout.isatty()
    if not is_watched:
        click.echo(f"{role}: compiling its kernels")
    launch = warm.launch(role, again=force)
    with subprocess.Popen(launch.argv, env=dict(launch.env)) as process:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
            if is_watched:
                click.echo(f"\r\033[K{role}: {warm.kernels(role)} kernels", nl=False)
    if is_watched:
        click.echo("\r\033[K", nl=False)
    return process.returncode
