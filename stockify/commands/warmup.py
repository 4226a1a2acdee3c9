"""`stockify warmup`: compile the kernels before a process needs them."""

import subprocess
import sys
import time

import click

from stockify import warm


@click.command()
@click.option("--force", is_flag=True, help="Compile also where the cache is up to date.")
def warmup(force: bool) -> None:
    """Fill the kernel caches, one directory a role; the first `stockify up` does it too."""
    roles = warm.ROLES if force else warm.cold_roles()
    if not roles:
        click.echo("kernels are warm")
    for role in roles:
        began = time.monotonic()
        launch = warm.launch(role)
        code = subprocess.run(launch.argv, env=dict(launch.env), check=False).returncode
        if code:
            sys.exit(code)
        click.echo(f"{role}: {time.monotonic() - began:.1f} s")
