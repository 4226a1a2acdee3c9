"""Coverage from the provider to Postgres by the real processes: faults, kills, what is told."""

import asyncio
import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import redis

from pipeline.audit import Report
from pipeline.clock import SECOND_NS, Clock, to_ns
from pipeline.config import Settings
from pipeline.entries import NewEntry, decode_entry
from pipeline.models import ENRICHED_POLLS_TYPE
from pipeline.polls import MINUTE_NS
from pipeline.runtime import connect
from pipeline.topics import Topics
from stockify.auditing import Auditor, interval
from tests.support import bus, simulator, worker_process
from tests.support.postgres import open_database
from tests.support.simulator import Simulator

START = "2026-01-20T10:00:00+05:30@x30"  # a Tuesday in session; a minute passes in two seconds
CADENCE_NS = 3_100_000_000
DEADLINE_S = 60.0


class Pipeline:
    """Settings that all processes share, and what they left in Postgres."""

    def __init__(self, exchange: Simulator, settings: Settings) -> None:
        self.exchange, self.settings = exchange, settings
        self.clock = Clock(settings.clock)

    def worker(self, name: str) -> "contextlib.AbstractContextManager[subprocess.Popen[bytes]]":
        return worker_process.running(f"workers.{name}", self.settings)

    def rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.settings.database_url) as connection:
            return connection.execute(query).fetchall()

    def coverage(self) -> dict[int, tuple[int, int, int, int]]:
        """By minute: expected, present, missed upstream, missed by us."""
        rows = self.rows(
            "SELECT minute, expected, present, missed_upstream, missed_us FROM coverage"
        )
        return {to_ns(minute): (a, b, c, d) for minute, a, b, c, d in rows}

    def snapshots(self) -> list[int]:
        """When each was received."""
        return [to_ns(ts) for (ts,) in self.rows("SELECT ts FROM market_snapshots ORDER BY ts")]

    def gaps(self) -> list[tuple[int, int, int, str, str]]:
        """Start, end, missed, cause and detail."""
        rows = self.rows("SELECT starts, ends, missed, cause, detail FROM gaps ORDER BY starts")
        return [(to_ns(starts), to_ns(ends), *said) for starts, ends, *said in rows]

    def has_ended(self, cause: str) -> bool:
        """Whether a gap of that cause was told, up to the snapshot that ends it."""
        snapshots = self.snapshots()
        return any(gap[3] == cause and gap[1] in snapshots for gap in self.gaps())

    def is_stored(self) -> bool:
        """Whether every entry of both streams is finished with."""
        with redis.Redis.from_url(self.settings.redis_url, decode_responses=True) as client:
            for stream in ("stream:raw", "stream:enriched"):
                (group,) = client.xinfo_groups(stream)
                if group["lag"] != 0 or group["pending"] != 0:
                    return False
        return True

    async def append_all_again(self) -> None:
        """What was enriched once more, as after a loss that was none."""
        async with bus.context(self.settings.redis_url) as context:
            items: Any = await context.redis.xrange("stream:enriched")
            entries = [decode_entry(*item) for item in items]
            assert ENRICHED_POLLS_TYPE in {entry.type for entry in entries}
            again = [
                NewEntry(id=one.id, type=one.type, key=one.key, ts=one.ts, te=one.te, data=one.data)
                for one in entries
            ]
            await bus.append(context, "stream:enriched", *again)

    def await_minutes(self, count: int) -> None:
        """Until so many more minutes have passed and their coverage is told."""
        now_ns = self.clock.now_ns()
        wanted = now_ns - now_ns % MINUTE_NS + (count - 1) * MINUTE_NS
        until(lambda: any(at >= wanted and one[0] for at, one in self.coverage().items()))

    async def audited(self) -> Report:
        client = connect(self.settings)
        try:
            async with open_database(self.settings.database_url) as database:
                judged = interval(self.clock.now_ns(), 172_800, None, None)
                return await Auditor(client, database, Topics()).audit(judged, 10.0)
        finally:
            await client.aclose()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def pipeline(valkey: str, plain_database_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A simulator, processor, and what ingest and storage need to join them."""
    clock = Clock(START).anchored()
    with simulator.running(clock=clock, simulator_seed=5) as exchange:
        settings = Settings(
            redis_url=valkey,
            database_url=plain_database_url,
            dhan_base_url=exchange.url,
            dhan_client_id="1000000001",
            dhan_access_token="token",
            provider="simulator",
            underlyings=("NIFTY",),
            expiries_per_underlying=1,
            chain_budget="chain",
            clock=clock,
            state_dir=str(tmp_path),
            lease_ms=600,
            claim_idle_ms=500,
            storage_max_age_ms=50,
        )
        made = Pipeline(exchange, settings)
        with made.worker("processor"):
            yield made


def assert_gap_is_where_no_snapshot_came(
    pipeline: Pipeline, gap: tuple[Any, ...], unknown: int = 0
) -> None:
    """It begins when the poll after the last snapshot was due, and ends with the next snapshot.

    So many snapshots may lie in it that the books do not know of.
    """
    starts, ends, missed = gap[:3]
    snapshots = pipeline.snapshots()
    assert ends in snapshots
    assert len([ts for ts in snapshots if starts <= ts < ends]) <= unknown
    last = max(ts for ts in snapshots if ts < starts)
    # The slot is asked for a moment after it was free, and here a second of that is half a minute.
    assert CADENCE_NS <= starts - last <= CADENCE_NS + 30 * SECOND_NS
    assert missed == pytest.approx((ends - starts) / CADENCE_NS, abs=0.51)


def test_coverage_tells_what_came_what_did_not_and_why(pipeline: Pipeline) -> None:
    with pipeline.worker("ingest") as ingest:
        with pipeline.worker("storage") as storage:
            pipeline.await_minutes(2)
            pipeline.exchange.order_fault(kind="html_502", count=3)
            until(lambda: pipeline.has_ended("upstream"))
            storage.kill()
            time.sleep(0.5)  # for polls of which storage learns later
        ingest.kill()
        ingest.wait()
    time.sleep(1.0)  # the outage: half a minute of the market, and what starting takes
    with pipeline.worker("storage"):
        with pipeline.worker("ingest") as ingest:
            until(lambda: pipeline.has_ended("us"))
            assert worker_process.stopped(ingest) == 0
        until(pipeline.is_stored)
        report = asyncio.run(pipeline.audited())
        assert report.is_clean, report

        found = pipeline.coverage()
        snapshots = Counter(ts - ts % MINUTE_NS for ts in pipeline.snapshots())
        assert {at: present for at, (_, present, _, _) in found.items() if present} == snapshots
        # A killed ingest may have put one snapshot away that its books do not know of.
        beyond = [present - (due - up - us) for due, present, up, us in found.values()]
        assert (min(beyond), sum(beyond) <= 1) == (0, True), found

        upstream, *_, us = pipeline.gaps()
        assert (upstream[3:], us[3:]) == (("upstream", "unavailable"), ("us", "not_running"))
        assert_gap_is_where_no_snapshot_came(pipeline, upstream)
        assert_gap_is_where_no_snapshot_came(pipeline, us, unknown=sum(beyond))
        assert sum(gap[2] for gap in pipeline.gaps()) == sum(
            up + us for _, _, up, us in found.values()
        )

        asyncio.run(pipeline.append_all_again())
        until(pipeline.is_stored)
        assert pipeline.coverage() == found
        assert (upstream, us) == (pipeline.gaps()[0], pipeline.gaps()[-1])
