"""`stockify migrate`: bring the database's schema to this version."""

import asyncio

import click

from pipeline import migrations
from pipeline.attached import attached_settings
from pipeline.errors import ConfigError
from pipeline.migrations import Edition, Migration

EDITIONS: dict[Edition, str] = {
    "plain": "PostgreSQL with native partitions",
    "apache": "TimescaleDB, Apache licence",
    "community": "TimescaleDB under its own licence",
}


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Say how each stands; apply nothing.")
def migrate(only_plan: bool) -> None:
    """Apply the migrations that the instance's database, or STOCKIFY_DATABASE_URL, lacks."""
    url = attached_settings().database_url
    if not url:
        raise ConfigError("no database: set STOCKIFY_DATABASE_URL or start the instance")
    if only_plan:
        plan = asyncio.run(migrations.plan(url))
        click.echo(f"the server: {EDITIONS[plan.edition]}")
        for state, migration in plan.files:
            word = f"{state} it" if state == "not for" else state
            click.echo(f"{word:<10} {_name(migration)}")
        return
    done = asyncio.run(migrations.migrate(url))
    for migration in done:
        click.echo(f"applied {_name(migration)}")
    if not done:
        click.echo("nothing to apply")


def _name(migration: Migration) -> str:
    return f"{migration.number:04d}_{migration.name}"
