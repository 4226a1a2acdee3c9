"""`stockify migrate`: bring the database's schema to this version."""

import asyncio

import click

from pipeline import migrations
from pipeline.attached import attached_settings
from pipeline.errors import ConfigError


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be applied; apply nothing.")
def migrate(only_plan: bool) -> None:
    """Apply the migrations that the instance's database, or STOCKIFY_DATABASE_URL, lacks."""
    url = attached_settings().database_url
    if not url:
        raise ConfigError("no database: set STOCKIFY_DATABASE_URL or start the instance")
    done = asyncio.run(migrations.plan(url) if only_plan else migrations.migrate(url))
    word = "pending" if only_plan else "applied"
    for migration in done:
        click.echo(f"{word} {migration.number:04d}_{migration.name}")
    if not done:
        click.echo("nothing to apply")
