"""`stockify reenrich`: an archived day calculated anew, beside what was stored before."""

import asyncio
import sys
import time
from datetime import date, datetime

import click

from pipeline.attached import attached_settings
from pipeline.candles import refresh_candles
from pipeline.clock import Clock, to_ns
from pipeline.cold.days import bounds
from pipeline.config import Settings
from pipeline.database import Database
from pipeline.errors import ConfigError
from pipeline.models import CALCULATION_REVISION
from stockify.display import counted
from stockify.recalculation import Outcome, Recalculation
from workers import processor

TELL_EVERY_S = 5.0
REASONS_SHOWN = 10
FAULTY = 1
STOPPED = 130  # as a shell says it of Ctrl-C


@click.command()
@click.option("--day", required=True, type=click.DateTime(["%Y-%m-%d"]), help="the archived day")
@click.option("--underlying", "underlyings", multiple=True, help="only this one; may be repeated")
def reenrich(day: datetime, underlyings: tuple[str, ...]) -> None:
    """Enrich a day's archived bodies by the present calculation, and store what is new.

    What another revision stored stays as it is. May be stopped and run again at any time. Exits 1
    where an archived file is damaged.
    """
    settings = attached_settings()
    if not settings.database_url:
        raise ConfigError("STOCKIFY_DATABASE_URL is not set, and no instance is running")
    try:
        outcomes = asyncio.run(_reenrich(settings, day.date(), underlyings))
    except KeyboardInterrupt:
        click.echo(
            "stopped; what was stored is whole, and the next run goes on behind it", err=True
        )
        sys.exit(STOPPED)
    if any(outcome.damage for outcome in outcomes):
        sys.exit(FAULTY)


async def _reenrich(settings: Settings, day: date, underlyings: tuple[str, ...]) -> list[Outcome]:
    database = Database(settings.database_url)
    archive = settings.state_path() / "archive"
    outcomes = []
    try:
        await database.open()
        recalculation = Recalculation(
            *(database, archive, Clock(settings.clock)),
            rate=settings.rate,
            greeks=settings.greeks,
        )
        paths = recalculation.files(day, underlyings)
        await asyncio.to_thread(processor.warmup)
        click.echo(f"{day}: calculation revision {CALCULATION_REVISION}")
        for path in paths:
            outcome = await recalculation.run(path, _Teller())
            outcomes.append(outcome)
            for line in told(outcome):
                click.echo(line)
        # Candles are made anew from rows, which other underlyings may not have any more.
        if not underlyings and any(outcome.new for outcome in outcomes):
            await refresh_candles(database, *(to_ns(one) for one in bounds(day)))
    finally:
        await database.close()
    return outcomes


class _Teller:
    """Says now and then how far it is."""

    def __init__(self) -> None:
        self._next = time.monotonic() + TELL_EVERY_S

    def __call__(self, outcome: Outcome) -> None:
        if time.monotonic() >= self._next:
            self._next += TELL_EVERY_S
            click.echo(f"  … {told(outcome)[0]}", err=True)


def told(outcome: Outcome) -> list[str]:
    """What became of an underlying's bodies, in words."""
    first = (
        f"{outcome.underlying}: {counted(outcome.new, 'snapshot')} new "
        f"({counted(outcome.rows, 'contract')}), {outcome.known:,} known, "
        f"{outcome.undecodable:,} undecodable"
    )
    if outcome.set_aside:
        first += f", {counted(outcome.set_aside, 'leg')} that no row can hold"
    lines = [first]
    shown = outcome.reasons.most_common(REASONS_SHOWN)
    lines += [f"  {number:,} × {reason}" for reason, number in shown]
    if (others := len(outcome.reasons) - len(shown)) > 0:
        lines.append(f"  and {counted(others, 'other reason')}")
    if outcome.damage:
        lines.append(f"  broken off: {outcome.damage}")
    return lines
