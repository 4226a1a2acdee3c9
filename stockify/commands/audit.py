"""`stockify audit`: whether anything is missing or double between the provider and Postgres."""

import asyncio
import sys
from collections.abc import Sequence

import click
import msgspec
from rich.table import Table

from pipeline import audit as comparison
from pipeline.attached import attached_settings
from pipeline.audit import CHAIN_KIND, Covered, Line, Report
from pipeline.clock import IST, Clock, to_datetime
from pipeline.config import Settings
from pipeline.coverage import Gap, read_gaps
from pipeline.database import Database
from pipeline.errors import ConfigError
from pipeline.runtime import connect
from pipeline.streams.tallies import Count
from pipeline.streams.tally import MINUTE_NS
from pipeline.topics import Topics
from stockify.auditing import Auditor, Interval, interval
from stockify.display import counted, wide_console
from stockify.instants import instant

FAULTY = 1
SHOWN = 10  # gaps, the longest ones; --all shows every one


@click.command()
@click.option("--from", "start", help="judge from then on: RFC 3339, or HH:MM in IST")
@click.option("--to", "end", help="judge up to then")
@click.option("--all", "show_all", is_flag=True, help="Print every minute and gap.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--wait",
    "wait_s",
    default=5.0,
    show_default=True,
    help="seconds for which a fault must last to be one",
)
def audit(start: str | None, end: str | None, show_all: bool, as_json: bool, wait_s: float) -> None:
    """Compare what was appended to the raw stream, enriched and stored, minute by minute.

    Every append is counted in Redis as it happens, so trimmed entries count too. What is still on
    its way is no fault, and neither is a poll that brought no snapshot: the gaps say why. Exits 0
    when nothing is missing or double and coverage says what is there, 1 otherwise.
    """
    settings = attached_settings()
    if not settings.database_url:
        raise ConfigError("STOCKIFY_DATABASE_URL is not set, and no instance is running")
    now_ns = Clock(settings.clock).now_ns()
    minutes = interval(
        now_ns,
        settings.audit_keep_s,
        instant(start, now_ns) if start else None,
        instant(end, now_ns) if end else None,
    )
    report, gaps = asyncio.run(_audited(settings, minutes, wait_s))
    if as_json:
        found = msgspec.json.encode(summary(report, gaps))
        click.echo(msgspec.json.format(found, indent=2).decode())
    else:
        _print(report, gaps, show_all=show_all)
    if not report.is_clean:
        sys.exit(FAULTY)


async def _audited(
    settings: Settings, minutes: Interval, wait_s: float
) -> tuple[Report, list[Gap]]:
    redis = connect(settings, name="audit")
    database = Database(settings.database_url)
    try:
        await database.open()
        topics = Topics(shards=settings.shards, tagged=settings.redis_cluster)
        report = await Auditor(redis, database, topics).audit(minutes, wait_s)
        return report, await _gaps(database, report)
    finally:
        await database.close()
        await redis.aclose()


async def _gaps(database: Database, report: Report) -> list[Gap]:
    """The gaps of the minutes that were judged."""
    judged = [one.minute for one in report.covered]
    if not judged:
        return []
    start_ns, end_ns = min(judged) * MINUTE_NS, (max(judged) + 1) * MINUTE_NS
    return await read_gaps(database, None, start_ns, end_ns)


class Summary(msgspec.Struct, frozen=True):
    """A report added up, as a program reads it; a minute that differs counts as one missing.

    `expected` snapshots are those `present`, those missed by cause, and what else is not there yet;
    `unaccounted` should be and are not, `miscounted` are minutes whose coverage is wrong.
    """

    clean: bool
    minutes: int
    entries: int
    contracts: int
    stored: int
    missing: int
    double: int
    in_flight: int
    dead: int
    beyond: int
    lines: tuple[Line, ...]
    expected: int
    present: int
    missed_upstream: int
    missed_us: int
    unaccounted: int
    miscounted: tuple[Covered, ...]
    gaps: tuple[Gap, ...]


def summary(report: Report, gaps: Sequence[Gap] = ()) -> Summary:
    """What a report comes to."""
    lines = report.lines
    return Summary(
        clean=report.is_clean,
        minutes=len({line.minute for line in lines}),
        entries=sum(line.raw.n for line in lines),
        contracts=sum(line.enriched.c for line in lines),
        stored=sum(line.stored.n for line in lines if line.stored and line.kind == CHAIN_KIND),
        missing=report.entries(comparison.MISSING) + report.entries(comparison.DIFFERS),
        double=report.entries(comparison.DOUBLE),
        in_flight=sum(line.in_flight for line in lines),
        dead=sum(line.raw_dead + line.enriched_dead for line in lines),
        beyond=report.entries(comparison.BEYOND),
        lines=lines,
        expected=sum(one.expected for one in report.covered),
        present=sum(one.present for one in report.covered),
        missed_upstream=sum(one.upstream for one in report.covered),
        missed_us=sum(one.us for one in report.covered),
        unaccounted=report.unaccounted,
        miscounted=report.miscounted,
        gaps=tuple(gaps),
    )


def _print(report: Report, gaps: Sequence[Gap], *, show_all: bool) -> None:
    console = wide_console()
    shown = report.lines if show_all else report.faults
    if shown:
        console.print(_table(shown))
    for one in report.miscounted[:SHOWN]:
        minute = _minute(one.minute * MINUTE_NS)
        console.print(f"{minute} {one.symbol}: coverage {one.present}, stored {one.stored}")
    longest = sorted(gaps, key=lambda gap: gap.starts - gap.ends)
    for gap in sorted(gaps if show_all else longest[:SHOWN], key=lambda gap: gap.starts):
        console.print(_gap_line(gap))
    for text in sentences(report, gaps):
        console.print(text)


def sentences(report: Report, gaps: Sequence[Gap] = ()) -> list[str]:
    """What the report comes to, in words."""
    found = summary(report, gaps)
    if not found.lines:
        return ["nothing to judge: no entry of that interval is in the tallies"]
    verdict = "clean"
    if not found.clean:
        verdict = f"NOT CLEAN, {found.missing:,} missing, {found.double:,} double"
    text = (
        f"{verdict}: {counted(found.entries, 'entry', 'entries')} received in "
        f"{counted(found.minutes, 'minute')}, {counted(found.contracts, 'contract')}, "
        f"{counted(found.stored, 'chain')} in Postgres"
    )
    if found.in_flight:
        text += f"; {found.in_flight:,} in flight"
    if found.dead:
        text += f"; {counted(found.dead, 'dead letter')}"
    said = [text]
    if found.beyond:
        lost = counted(found.beyond, "entry", "entries")
        said.append(f"{lost} in Postgres alone: Redis lost them after they were stored")
    if found.miscounted:
        said.append(f"coverage is wrong in {counted(len(found.miscounted), 'minute')} of a chain")
    if found.expected:
        unreported = sum(one.present for one in report.covered if not one.expected)
        said.append(_coverage_sentence(found, unreported))
    return said


def _coverage_sentence(found: Summary, unreported: int) -> str:
    here = found.present - unreported
    text = f"{here:,} snapshots present of {found.expected:,} expected"
    causes = (("upstream", found.missed_upstream), ("by us", found.missed_us))
    missed = [f"{number:,} missed {cause}" for cause, number in causes if number]
    if missed:
        text += f": {' and '.join(missed)} in {counted(len(found.gaps), 'gap')}"
    if unreported:
        text += f"; {unreported:,} of minutes not reported on, or not yet"
    if found.unaccounted:
        text += f"; {found.unaccounted:,} UNACCOUNTED for"
    return text


def _gap_line(gap: Gap) -> str:
    starts, ends = (
        to_datetime(instant).astimezone(IST).strftime("%H:%M:%S")
        for instant in (gap.starts, gap.ends)
    )
    day = to_datetime(gap.starts).astimezone(IST).strftime("%d %b")
    why = f"{gap.cause} ({gap.detail})"
    return f"{day} {starts}-{ends} IST {gap.symbol}: {why}, {gap.missed:,} missed"


def _minute(instant_ns: int) -> str:
    return to_datetime(instant_ns).astimezone(IST).strftime("%d %b %H:%M")


def _table(lines: tuple[Line, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("minute (IST)")
    table.add_column("shard", justify="right")
    table.add_column("kind")
    for stage in (
        "raw",
        "dead",
        "enriched",
        "dead",
        "Postgres",
        "contracts",
        "stored",
        "in flight",
    ):
        table.add_column(stage, justify="right")
    table.add_column("hashes")
    table.add_column("verdict")
    for line in lines:
        stored = line.stored
        table.add_row(
            _minute(line.minute * MINUTE_NS),
            "all" if line.shard == comparison.ALL_SHARDS else str(line.shard),
            line.kind,
            *(f"{line.raw.n}{f'+{line.again}' if line.again else ''}", _some(line.raw_dead)),
            *(str(line.enriched.n), _some(line.enriched_dead)),
            *(str(stored.n) if stored else "-", str(line.enriched.c)),
            *(str(stored.c) if stored else "-", _some(line.in_flight)),
            " ".join(map(_hash, (line.raw, line.enriched, stored))),
            _said(line),
            style="red" if line.is_fault else None,
        )
    return table


def _said(line: Line) -> str:
    if not line.where:
        return line.verdict
    off = f" {abs(line.off.n)}" if line.off.n else ""
    return f"{line.verdict}{off} in {line.where}"


def _some(number: int) -> str:
    return str(number) if number else ""


def _hash(count: Count | None) -> str:
    return f"{count.h:x}"[-8:].rjust(8, "0") if count else "-"
