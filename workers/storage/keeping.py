"""What has to be done now and then beside the writing: days made ahead, candles, retention.

One storage process at a time does it, whoever holds the lock of the database; a lost connection
lets go of it. What goes wrong is said and tried again, and never stops the shards. It writes no
snapshot.
"""

import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from pipeline import candles
from pipeline.clock import SECOND_NS, to_datetime
from pipeline.database import Database, Session
from pipeline.errors import BusUnavailable, StoreError
from pipeline.runtime import Context, jittered, pause
from pipeline.streams.glances import glance

LOOK_S = 1.0  # between looks for what is due
STAND_BY_S = 5.0  # between attempts to become the one who keeps
DAYS_AHEAD = 2
FORGET_AT_ONCE = 10_000
# A line of the ledger stays for so long at least, whatever retention says: an entry may come again
# as long as the streams keep it, and longer where a producer has it on its disk.
LEDGER_DAYS = 2


class Chore(NamedTuple):
    """Something to do every so many seconds; it gives how much it did."""

    name: str
    every_s: float
    call: Callable[[], Awaitable[int]]


class Keeper:
    """Does chores while it is the one of all storage processes that may."""

    def __init__(self, context: Context, database: Database) -> None:
        self._context, self._database = context, database
        telemetry = context.telemetry
        self._rolled = telemetry.counter("candle_minutes", "minutes rolled up into candles")
        self._dropped = telemetry.counter(
            "days_dropped", "partitions or chunks that retention took"
        )
        self._is_keeper = False
        telemetry.gauge("keeper", "1 where this process keeps the database", self._keeps)
        self._troubles: dict[str, str] = {}

    def chores(self) -> list[Chore]:
        """What there is to do."""
        return [
            Chore("days", 600.0, self._make_days),
            Chore("candles", 5.0, self._roll),
            Chore("retention", 600.0, self._retain),
        ]

    async def work(self) -> None:
        """Keep, or stand by for who does, until stopping."""
        attempt = 0
        while not self._context.stopping.is_set():
            try:
                async with self._database.session() as session:
                    await session.execute("check_writing")
                    if (await session.fetch("try_keeping"))[0]["is_mine"]:
                        attempt = 0
                        await self._keep(session)
            except StoreError:  # the shards say that Postgres is away
                attempt += 1
            except Exception:
                self._context.telemetry.log.exception("keeping_failed")
                attempt += 1
            self._is_keeper = False
            await pause(self._context.stopping, jittered(attempt) if attempt else STAND_BY_S)

    async def run(self, chores: Sequence[Chore], due: dict[str, float]) -> None:
        """Do what is due, and say of each when it is due again (by the monotonic clock)."""
        for chore in chores:
            if time.monotonic() < due.get(chore.name, 0.0):
                continue
            try:
                await chore.call()
            except (StoreError, BusUnavailable) as error:
                self._say(chore.name, str(error))
            except Exception as error:
                self._context.telemetry.log.exception("chore_failed", chore=chore.name)
                self._say(chore.name, repr(error))
            else:
                self._say(chore.name, "")
            due[chore.name] = time.monotonic() + chore.every_s

    async def _keep(self, session: Session) -> None:
        self._is_keeper = True
        chores, due = self.chores(), dict[str, float]()
        try:
            while not self._context.stopping.is_set():
                # With this connection goes the lock: also where the server only reads by now, for
                # then the one to keep is another.
                await session.execute("check_writing")
                await self.run(chores, due)
                await pause(self._context.stopping, LOOK_S)
        finally:
            with contextlib.suppress(StoreError):
                await session.fetch("end_keeping")

    def _keeps(self) -> float:
        return float(self._is_keeper)

    def _say(self, chore: str, trouble: str) -> None:
        """Log a trouble when it comes and when it goes, not each time."""
        if self._troubles.get(chore, "") == trouble:
            return
        self._troubles[chore] = trouble
        log = self._context.telemetry.log
        if trouble:
            log.warning("chore_put_off", chore=chore, error=trouble[:200])
        else:
            log.info("chore_done_again", chore=chore)

    async def _make_days(self) -> int:
        today = self._today()
        days = [today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)]
        await self._database.fetch("make_days", days=days)
        return len(days)

    async def _roll(self) -> int:
        rolled = await candles.roll_candles(self._database, self._context.clock.now_ns())
        self._rolled.add(rolled)
        return rolled

    async def _retain(self) -> int:
        """Drop what is older than retention keeps; of the small tables some lines at a time."""
        settings = self._context.settings
        # A server's policies go by its own clock; told or not, what is due is dropped below.
        is_real = settings.clock == "real"
        await self._database.fetch("set_retention", days=settings.retention_days * is_real)
        if not settings.retention_days:
            return 0
        before = self._today() - timedelta(days=settings.retention_days)
        rows = await self._database.fetch("drop_days", before=before)
        dropped: int = rows[0]["dropped"]
        self._dropped.add(dropped)
        midnight = datetime(before.year, before.month, before.day, tzinfo=UTC)
        await self._forget("forget_coverage", midnight)
        await self._forget("forget_gaps", midnight)
        await self._forget("forget_entries", min(midnight, await self._ledger_until()))
        return dropped

    async def _forget(self, name: str, before: datetime) -> None:
        async with self._database.session() as session:
            while not self._context.stopping.is_set():
                gone = await session.execute(name, before=before, most=FORGET_AT_ONCE)
                if gone < FORGET_AT_ONCE:
                    return

    async def _ledger_until(self) -> datetime:
        """Up to where no entry can come again: below all that is in the streams, and some days."""
        clock, topics = self._context.clock, self._context.topics
        oldest = clock.now_ns() - LEDGER_DAYS * 86_400 * SECOND_NS
        for shard in range(topics.shards):
            for stream in (topics.raw(shard), topics.enriched(shard)):
                pages = glance(self._context.redis, stream, newest_first=False)
                async with contextlib.aclosing(pages):
                    async for page in pages:
                        oldest = min(oldest, page[0].number("ts"))
                        break
        return to_datetime(oldest)

    def _today(self) -> date:
        return to_datetime(self._context.clock.now_ns()).date()
