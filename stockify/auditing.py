"""Gathers what `pipeline.audit` compares: the tallies of every shard, and Postgres between them,
ledger and coverage.

Redis is read before and after Postgres, so that a minute in which anything was at work meanwhile is
known for one; a fault is believed when it is still there on reading again.
"""

import asyncio
import time
from collections.abc import Sequence

import msgspec

from pipeline import audit, layout
from pipeline.audit import PROCESSOR, STORAGE, Covered, Line, Report, Shard
from pipeline.clock import to_datetime
from pipeline.database import Database
from pipeline.runtime import Redis
from pipeline.streams.tallies import NONE, Bucket, Count, Stage, read_stage
from pipeline.streams.tally import MINUTE_NS
from pipeline.topics import Topics

AGAIN_S = 0.5  # between two readings while something seems to be wrong
_WINDOW_MINUTES = 60  # asked of Postgres at once


class Interval(msgspec.Struct, frozen=True):
    """Minutes since 1970 to judge, both ends included; before the horizon tallies are forgotten.

    `last` is None up to the newest minute that anybody has counted.
    """

    first: int
    last: int | None
    horizon: int


def interval(now_ns: int, keep_s: int, start_ns: int | None, end_ns: int | None) -> Interval:
    """What to judge of [start, end), by default everything that the tallies still know."""
    horizon = (now_ns - keep_s * 1_000_000_000) // MINUTE_NS + 2  # the trimmer may be at that one
    first = horizon if start_ns is None else max(horizon, start_ns // MINUTE_NS)
    return Interval(first, None if end_ns is None else (end_ns - 1) // MINUTE_NS, horizon)


class Auditor:
    """Compares raw, enriched and Postgres of every shard."""

    def __init__(self, redis: Redis, database: Database, topics: Topics) -> None:
        self._redis = redis
        self._database = database
        self._topics = topics

    async def audit(self, minutes: Interval, wait_s: float) -> Report:
        """The report of an interval; faults in it have outlasted `wait_s` seconds of reading again.

        Raises what redis-py raises, and StoreError.
        """
        deadline = time.monotonic() + wait_s
        while True:
            report = await self._once(minutes)
            if report.is_clean or time.monotonic() >= deadline:
                return report
            await asyncio.sleep(AGAIN_S)

    async def _once(self, minutes: Interval) -> Report:
        record = await layout.read(self._redis)
        past = [cut.topics for cut in record.past] if record else []
        own = _streams(self._topics)
        gone = dict.fromkeys(way for cut in past for way in _streams(cut) if way not in own)
        ways = [*own, *gone]
        before = [await self._stages(way) for way in ways]
        begins = [audit.began(stages, minutes.horizon) for stages in before]
        known = [minute for minute in begins if minute is not None]
        if not known:
            return Report(())
        last = _last(before) + 1 if minutes.last is None else minutes.last
        first = max(minutes.first, min(known))
        stored = await self._stored(first, last)
        covered = await self._covered(first, last)
        after = [await self._stages(way) for way in ways]
        shards = [
            Shard(number, before[number], after[number], stored.get(number, {}))
            for number in range(len(ways))
        ]
        count = len(own)
        report = audit.judge(
            shards[:count], minutes.first, last, minutes.horizon, shards[count:] if past else None
        )
        report = msgspec.structs.replace(report, covered=covered)
        doubles = [line for line in report.faults if await self._is_double(line)]
        return audit.with_doubles(report, doubles) if doubles else report

    async def _stages(self, way: tuple[str, str]) -> tuple[Stage, Stage]:
        return (
            await read_stage(self._redis, way[0], PROCESSOR),
            await read_stage(self._redis, way[1], STORAGE),
        )

    async def _stored(self, first: int, last: int) -> dict[int, dict[Bucket, Count]]:
        """Of each shard what Postgres holds, by minute and kind."""
        found: dict[int, dict[Bucket, Count]] = {}
        for window in _windows(first, last):
            for row in await self._database.fetch("ledger_tally", **window):
                buckets = found.setdefault(self._topics.shard_of_key(row["symbol"]), {})
                bucket, one = (row["minute"], row["kind"]), Count(row["n"], row["h"], row["c"])
                buckets[bucket] = buckets.get(bucket, NONE).plus(one)
        return found

    async def _covered(self, first: int, last: int) -> tuple[Covered, ...]:
        """What coverage says of each minute and chain, with what the ledger has of the same."""
        found: list[Covered] = []
        for window in _windows(first, last):
            rows = await self._database.fetch("coverage_tally", **window)
            found += [Covered(**row) for row in rows]
        return tuple(found)

    async def _is_double(self, line: Line) -> bool:
        if line.verdict != audit.MISSING or line.where != audit.POSTGRES:
            return False
        rows = await self._database.fetch(
            "ledger_identities", **_between(line.minute, line.minute + 1)
        )
        shard_of = self._topics.shard_of_key
        identities = {
            row["identity"]
            for row in rows
            if row["kind"] == line.kind
            and line.shard in (audit.ALL_SHARDS, shard_of(row["symbol"]))
        }
        return audit.is_double(line, identities)


def _streams(topics: Topics) -> list[tuple[str, str]]:
    """Raw and enriched of every shard."""
    return [(topics.raw(shard), topics.enriched(shard)) for shard in range(topics.shards)]


def _last(shards: Sequence[tuple[Stage, Stage]]) -> int:
    """The newest minute counted: not that of now, since a clock may have been put back."""
    return max(minute for stages in shards for stage in stages for minute, _ in stage.tally.counted)


def _windows(first: int, last: int) -> list[dict[str, object]]:
    starts = range(first, last + 1, _WINDOW_MINUTES)
    return [_between(start, min(last + 1, start + _WINDOW_MINUTES)) for start in starts]


def _between(first: int, end: int) -> dict[str, object]:
    return {"start": to_datetime(first * MINUTE_NS), "end": to_datetime(end * MINUTE_NS)}
