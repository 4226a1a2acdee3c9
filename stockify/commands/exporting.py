"""`stockify export`: closed days out of Postgres into files that anything reads."""

import asyncio
import sys
from datetime import date, datetime
from pathlib import Path

import click

from pipeline.attached import attached_settings
from pipeline.clock import Clock
from pipeline.cold.days import days_between
from pipeline.cold.slices import Exported
from pipeline.cold.writing import Exporter, days_to_export
from pipeline.config import Settings
from pipeline.database import Database
from pipeline.errors import ColdStoreError, ConfigError
from stockify.display import counted

COLD = "cold"  # below the state directory
FAULTY = 1
DAY = click.DateTime(["%Y-%m-%d"])


@click.command("export")
@click.option("--day", "first", type=DAY, help="the day of the exchange, 2026-01-22")
@click.option("--until", "last", type=DAY, help="every day from --day to this one")
@click.option("--closed", is_flag=True, help="Every closed day that is not exported as it is now.")
@click.option("--to", "root", type=click.Path(path_type=Path), help="where the days go")
@click.option("--underlying", "underlyings", multiple=True, help="only this one; may be repeated")
def export(
    first: datetime | None,
    last: datetime | None,
    closed: bool,
    root: Path | None,
    underlyings: tuple[str, ...],
) -> None:
    """Write closed days as Parquet files, by default below `cold` in the state directory.

    What is exported already and has not changed is not written again. Exits 1 where a day could
    not be exported.
    """
    if closed == (first is not None) or (last is not None and first is None):
        raise ConfigError("give --day, with or without --until, or --closed")
    if closed and underlyings:
        raise ConfigError("--closed is about whole days, and --underlying about parts of them")
    settings = attached_settings()
    if not settings.database_url:
        raise ConfigError("STOCKIFY_DATABASE_URL is not set, and no instance is running")
    days = None
    if first is not None:
        days = days_between(first.date(), (last or first).date())
        if not days:
            raise ConfigError("--until is before --day")
    where = root or settings.state_path() / COLD
    if not asyncio.run(_export(settings, where, days, underlyings)):
        sys.exit(FAULTY)


async def _export(
    settings: Settings, root: Path, days: list[date] | None, underlyings: tuple[str, ...]
) -> bool:
    """Whether every day was exported; a day that cannot be stands in nobody's way."""
    now_ns = Clock(settings.clock).now_ns()
    database = Database(settings.database_url)
    try:
        await database.open()
        if days is None:
            days = await days_to_export(database, root, now_ns)
            if not days:
                click.echo("nothing to export: every closed day is there as it is stored")
        exporter = Exporter(database, root, now_ns)
        failed = 0
        for day in days:
            try:
                await _export_day(exporter, day, underlyings)
            except ColdStoreError as error:
                failed += 1
                click.echo(f"stockify: {day} is not exported: {error}", err=True)
        return not failed
    finally:
        await database.close()


async def _export_day(exporter: Exporter, day: date, underlyings: tuple[str, ...]) -> None:
    has_any = False
    async for exported in exporter.export(day, underlyings):
        has_any = True
        click.echo(told(exported))
    if not has_any:
        click.echo(f"{day}: nothing is stored")


def told(exported: Exported) -> str:
    """What became of an underlying's day, in a line."""
    what = (
        f"{exported.day} {exported.underlying}: {counted(exported.contracts, 'contract')} in "
        f"{counted(exported.snapshots, 'snapshot')}, {exported.bytes / 1e6:,.1f} MB"
    )
    if exported.is_known:
        return f"{what}, exported before"
    return f"{what}, {exported.contracts / exported.seconds:,.0f} rows/s"
