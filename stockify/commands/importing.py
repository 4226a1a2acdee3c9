"""`stockify import`: exported days back into Postgres, each row once."""

import asyncio
from datetime import date, datetime
from pathlib import Path

import click

from pipeline.attached import attached_settings
from pipeline.clock import SECOND_NS, Clock, to_datetime
from pipeline.cold.manifest import MANIFEST, directory_of
from pipeline.cold.reading import Imported, Importer
from pipeline.config import Settings
from pipeline.database import Database
from pipeline.errors import ColdStoreError, ConfigError
from stockify.commands.exporting import COLD, DAY
from stockify.display import counted

DAY_NS = 86_400 * SECOND_NS


@click.command("import")
@click.argument("root", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--day", type=DAY, help="only this day of the exchange, 2026-01-22")
@click.option("--underlying", "underlyings", multiple=True, help="only this one; may be repeated")
def import_days(root: Path | None, day: datetime | None, underlyings: tuple[str, ...]) -> None:
    """Bring days from ROOT, a day's directory or one of many days, into the database.

    Without ROOT they are looked for below `cold` in the state directory. Every file is checked
    first; what the database has already stays as it is, so that a second import does nothing.
    """
    settings = attached_settings()
    if not settings.database_url:
        raise ConfigError("STOCKIFY_DATABASE_URL is not set, and no instance is running")
    if root is None and day is None:
        raise ConfigError("give a directory, or --day")
    where = root or settings.state_path() / COLD
    if day is not None:
        where = where if _is_day(where) else directory_of(where, day.date())
    directories = [where] if _is_day(where) or day else sorted(where.glob("day=*"))
    if not directories:
        raise ColdStoreError(f"{where} has no exported day")
    asyncio.run(_import(settings, directories, underlyings))


def _is_day(path: Path) -> bool:
    return (path / MANIFEST).exists()


async def _import(
    settings: Settings, directories: list[Path], underlyings: tuple[str, ...]
) -> None:
    database = Database(settings.database_url)
    try:
        await database.open()
        importers = [Importer(database, directory.resolve()) for directory in directories]
        # All of them before anything is written.
        checked = [importer.check(underlyings) for importer in importers]
        for importer, manifest in zip(importers, checked, strict=True):
            if _is_dropped(manifest.day, settings):
                click.echo(
                    f"{manifest.day}: older than STOCKIFY_RETENTION_DAYS={settings.retention_days} "
                    "keeps; the storage worker will drop it again"
                )
            if not manifest.complete and not underlyings:
                click.echo(f"{manifest.day}: the export is not of the whole day")
            async for imported in importer.load(manifest):
                click.echo(told(imported))
    finally:
        await database.close()


def _is_dropped(day: date, settings: Settings) -> bool:
    """Whether the instance's storage worker drops that day."""
    kept_from = Clock(settings.clock).now_ns() - settings.retention_days * DAY_NS
    return bool(settings.retention_days) and day < to_datetime(kept_from).date()


def told(imported: Imported) -> str:
    """What became of an underlying's day, in a line."""
    what = f"{imported.day} {imported.underlying}: "
    if not imported.snapshots:
        return f"{what}nothing new, {counted(imported.known, 'snapshot')} known"
    return (
        f"{what}{counted(imported.contracts, 'contract')} in "
        f"{counted(imported.snapshots, 'snapshot')}, {imported.known:,} known, "
        f"{imported.contracts / imported.seconds:,.0f} rows/s"
    )
