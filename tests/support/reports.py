"""Reports of polls on their way into Postgres without the bus between."""

from pipeline.clock import SECOND_NS
from pipeline.database import Database
from pipeline.models import Cause, PollGap, PollReport
from pipeline.polls import MINUTE_NS, raw_report
from workers.storage.reports import Reported, write_reports


def missing(starts: int, ends: int, missed: int, cause: Cause = "upstream") -> PollGap:
    """A gap of so many polls between two instants, ns UTC."""
    return PollGap(starts, ends, missed, cause, "test")


def report(chain: str, minute_ns: int, answered: int, *gaps: PollGap) -> Reported:
    """What was due in one minute of a chain."""
    until = minute_ns + MINUTE_NS
    told = PollReport(
        chain=chain, provider="dhan", since=minute_ns, until=until, answered=answered, gaps=gaps
    )
    number = minute_ns // SECOND_NS
    return Reported(f"{raw_report(told, until).id}:r1", f"{number}-0", until, told)


async def write_polls(database: Database, *reports: Reported) -> int:
    """Count reports as the storage worker would; how many were new."""
    async with database.session() as session, session.transaction():
        return await write_reports(session, reports)
