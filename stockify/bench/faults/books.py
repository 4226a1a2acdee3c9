"""The counting: every promise against Postgres, the streams and the dead letters.

It counts when all is quiet, from outside: it reads the streams as anybody may and asks the
database, and believes nothing that a worker says of itself.
"""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from pipeline.clock import to_datetime
from pipeline.database import Database
from pipeline.entries import Entry, decode_entry
from pipeline.runtime import Redis
from pipeline.topics import Topics
from stockify.bench.faults.journal import Promise
from stockify.bench.faults.progress import BEGIN, Progress

READ_COUNT = 500
_RAW_INSTANT = 2  # of provider:symbol:instant:digest


class Counted(msgspec.Struct, frozen=True):
    """What became of what was promised; each list says of every case what is wrong with it."""

    entries: int
    lost: list[str]
    double: list[str]
    disorder: list[str]
    refused: list[str]  # good entries that were set aside
    dead_letters: int


class _Line(msgspec.Struct):
    """One key's entries in one epoch of one stream."""

    last_ts: int = 0
    last_seq: int = 0


class Books:
    """Reads the streams on from where it was, and counts what came since the last count."""

    def __init__(self, progress: Progress, database: Database, redis: Redis, topics: Topics):
        self._progress = progress
        self._database = database
        self._redis = redis
        self._read_to: dict[str, str] = {}
        for shard in range(topics.shards):
            self._read_to |= {topics.raw(shard): BEGIN, topics.enriched(shard): BEGIN}
        self._seen: Counter[tuple[str, str, str]] = Counter()  # stream, epoch, message id
        self._lines: dict[tuple[str, str, str], _Line] = {}
        self._disorder: list[str] = []
        self._counted = 0

    async def read(self) -> None:
        """Read every stream to its end; before a stream is deleted too, for it is gone then."""
        for stream in self._read_to:
            oldest: Any = await self._redis.xrange(stream, count=1)
            async for entry in self._entries(stream):
                # What was trimmed since the last reading leaves a gap before the oldest entry.
                is_oldest = bool(oldest) and oldest[0][0].decode() == entry.stream_id
                self._seen[stream, entry.epoch, entry.id] += 1
                self._check_order(stream, entry, after_gap=is_oldest)

    async def count(self) -> Counted:
        """Count what was promised since the last count; everything has come out by now."""
        await self.read()
        await self._progress.look()
        promises = self._progress.journal.promises[self._counted :]
        self._counted = self._progress.promised
        lost, double = await self._rows(promises)
        lost += self._missing(promises)
        double += [f"{times} times in {key}" for key, times in self._seen.items() if times > 1]
        counted = Counted(
            entries=len(promises),
            lost=lost,
            double=double,
            disorder=self._disorder,
            refused=self._refused(promises),
            dead_letters=sum(promise.id in self._progress.dead for promise in promises),
        )
        self._seen.clear()
        self._disorder = []
        return counted

    def _missing(self, promises: list[Promise]) -> list[str]:
        """Chains neither stored nor set aside, and poison that was not set aside."""
        unkept, dead = set(self._progress.open), self._progress.dead
        missing = [f"nowhere: {promise.id}" for promise in promises if promise.id in unkept]
        return missing + [
            f"poison without its reason: {promise.id}"
            for promise in promises
            if promise.kind == "poison" and not dead.get(promise.id)
        ]

    def _refused(self, promises: list[Promise]) -> list[str]:
        dead = self._progress.dead
        good = [promise.id for promise in promises if promise.kind != "poison"]
        return [f"{id}: {dead[id]}" for id in good if id in dead]

    async def _rows(self, promises: list[Promise]) -> tuple[list[str], list[str]]:
        """Instants with rows too few, and with rows too many."""
        instants = [int(promise.id.split(":")[_RAW_INSTANT]) for promise in promises]
        if not instants:
            return [], []
        uneven = await self._database.fetch(
            "uneven_instants",
            start=to_datetime(min(instants)),
            end=to_datetime(max(instants) + 1_000),
        )
        words = (
            "{ts_ingest}: {lines} ledger lines of {wanted} rows, {legs} rows, {snapshots} chains"
        )
        lost: list[str] = []
        double: list[str] = []
        for row in uneven:
            is_short = row["legs"] < row["wanted"] or row["snapshots"] < row["lines"]
            (lost if is_short else double).append(words.format(**row))
        return lost, double

    def _check_order(self, stream: str, entry: Entry, *, after_gap: bool) -> None:
        """Within an epoch a key's instants rise, and the stream's numbers rise by one."""
        key = self._lines.setdefault((stream, entry.epoch, entry.key), _Line())
        if entry.ts <= key.last_ts:
            self._disorder.append(f"{stream} {entry.stream_id}: {entry.key} is older than before")
        key.last_ts = entry.ts
        whole = self._lines.setdefault((stream, entry.epoch, ""), _Line())
        gap = entry.seq - whole.last_seq - 1
        if whole.last_seq and gap and (gap < 0 or not after_gap):
            self._disorder.append(
                f"{stream} {entry.stream_id}: seq {entry.seq} after {whole.last_seq}"
            )
        whole.last_seq = entry.seq

    async def _entries(self, stream: str) -> AsyncIterator[Entry]:
        while True:
            after = f"({self._read_to[stream]}"
            items: Any = await self._redis.xrange(stream, after, count=READ_COUNT)
            for stream_id, fields in items:
                yield decode_entry(stream_id, fields)
            if not items:
                return
            self._read_to[stream] = items[-1][0].decode()
