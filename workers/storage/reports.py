"""Reports of polls into coverage and gaps, each counted once.

It works inside the transaction of whoever calls it, and commits nothing. It never counts what is
present: that is the business of who stores it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import add

import msgspec

from pipeline import polls
from pipeline.clock import to_datetime
from pipeline.database import Database, Session
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.models import PollGap, PollReport

_MICROSECOND_NS = 1_000  # no span of Postgres is shorter


class Reported(msgspec.Struct, frozen=True):
    """A report, and what its entry says of it; `ts` is when it was made, ns."""

    id: str
    stream_id: str
    ts: int
    report: PollReport


def reported_from(entry: Entry) -> Reported:
    """The report of an enriched entry. Raises DecodeError."""
    if not entry.id:
        raise DecodeError("the entry has no message id, by which the ledger could know it")
    return Reported(entry.id, entry.stream_id, entry.ts, polls.decode_report(entry.data))


async def add_reports(database: Database, reports: Sequence[Reported]) -> int:
    """Write reports in a transaction of their own, as `write_reports` does."""
    async with database.session() as session, session.transaction():
        return await write_reports(session, reports)


async def write_reports(session: Session, reports: Sequence[Reported]) -> int:
    """Count what reports say that the ledger does not know yet; gives how many these were.

    Their lines of the ledger are written here. Raises StoreError.
    """
    distinct = {reported.id: reported for reported in reports}
    new = await _added(session, list(distinct.values()))
    fresh = [reported.report for id, reported in distinct.items() if id in new]
    await _count_expected(session, fresh)
    spans = [(report, gap) for report in fresh for gap in report.gaps]
    for report, gap in sorted(spans, key=lambda one: one[1].starts):
        await _add_gap(session, report, gap)
    return len(fresh)


async def _added(session: Session, reports: Sequence[Reported]) -> set[str]:
    if not reports:
        return set()
    rows = await session.fetch(
        "add_reports",
        ids=[reported.id for reported in reports],
        stream_ids=[reported.stream_id for reported in reports],
        ts=[to_datetime(reported.ts) for reported in reports],
    )
    return {row["id"] for row in rows}


async def _count_expected(session: Session, reports: Iterable[PollReport]) -> None:
    counted: defaultdict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for report in reports:
        for minute, due in polls.due_by_minute(report).items():
            line = counted[minute, report.chain, report.provider]
            line[:] = map(add, line, (due.expected, due.upstream, due.us))
    if not counted:
        return
    # Two sessions that count in one order never wait for each other in a circle.
    lines = sorted(counted.items())
    await session.execute(
        "count_expected",
        minutes=[to_datetime(minute) for (minute, _, _), _ in lines],
        symbols=[symbol for (_, symbol, _), _ in lines],
        providers=[provider for (_, _, provider), _ in lines],
        expected=[counts[0] for _, counts in lines],
        upstream=[counts[1] for _, counts in lines],
        us=[counts[2] for _, counts in lines],
    )


async def _add_gap(session: Session, report: PollReport, gap: PollGap) -> None:
    """Add a gap, one with those that it touches: an outage of an hour is no sixty gaps."""
    whose = {"symbol": report.chain, "provider": report.provider, "cause": gap.cause}
    starts = to_datetime(gap.starts)
    ends = to_datetime(max(gap.ends, gap.starts + _MICROSECOND_NS))
    touching = await session.fetch("take_touching_gaps", starts=starts, ends=ends, **whose)
    missed = gap.missed + sum(row["missed"] for row in touching)
    if not missed:
        return  # the end of a gap whose beginning is not here, and nothing was due in it
    first = min(touching, key=lambda row: row["starts"], default=None)
    before = first is not None and first["starts"] <= starts
    await session.execute(
        "add_gap",
        starts=min([starts, *(row["starts"] for row in touching)]),
        ends=max([ends, *(row["ends"] for row in touching)]),
        missed=missed,
        detail=first["detail"] if first is not None and before else gap.detail,
        **whose,
    )
