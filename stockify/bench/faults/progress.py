"""What has come out so far: which promises are kept, and how far every group has got."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from pipeline.database import Database
from pipeline.errors import StoreError
from pipeline.models import CALCULATION_REVISION
from pipeline.runtime import Redis
from pipeline.topics import Topics
from stockify.bench.faults.journal import JournalReader

LOOK_S = 0.1
ASK_AT_ONCE = 5_000
BEGIN = "0-0"


class Position(msgspec.Struct, frozen=True):
    """How far a group of a stream has got: the stream's last id, the last delivered, pending."""

    head: str
    delivered: str
    pending: int

    @property
    def is_done(self) -> bool:
        """Whether the group has finished all there is."""
        return self.pending == 0 and place(self.delivered) >= place(self.head)


Positions = dict[tuple[str, str], Position]


class Progress:
    """Follows the journal, the ledger and the dead letters; `look` asks, the rest only tells."""

    def __init__(
        self, journal: JournalReader, database: Database, redis: Redis, topics: Topics
    ) -> None:
        self.journal = journal
        self.dead: dict[str, str] = {}  # message id -> reason and error
        self._database = database
        self._redis = redis
        self._topics = topics
        self._open: dict[str, int] = {}  # promises not kept yet, oldest first, with their number
        self._letters_read = {topics.dead(shard): BEGIN for shard in range(topics.shards)}

    @property
    def promised(self) -> int:
        """How many entries were promised so far."""
        return len(self.journal.promises)

    @property
    def open(self) -> Sequence[str]:
        """The promises that are not kept yet."""
        return list(self._open)

    def is_kept(self, promises: int) -> bool:
        """Whether the first so many promises are kept, by the last look."""
        first = next(iter(self._open.values()), self.promised)
        return first >= promises

    async def look(self) -> None:
        """Ask the ledger and the dead letters for what is open. Raises StoreError, RedisError."""
        self.note()
        known: list[str] = []
        for ids in _chunks(list(self._open)):
            asked = [ledger_id(message_id) for message_id in ids]
            found = await self._database.fetch("ledger_known", ids=asked)
            known += [row["id"].rpartition(":r")[0] for row in found]
        await self._read_letters()
        for message_id in (*known, *self.dead):
            self._open.pop(message_id, None)

    def note(self) -> None:
        """Take in what the journal has got since."""
        number = self.promised
        for promise in self.journal.read():
            if promise.id not in self.dead:
                self._open[promise.id] = number
            number += 1

    async def follow(self) -> None:
        """Look for ever, through outages of both servers."""
        while True:
            with contextlib.suppress(StoreError, RedisError, OSError):
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def positions(self) -> Positions:
        """Every group's position. Raises RedisError where a stream is not there."""
        found: Positions = {}
        for shard in range(self._topics.shards):
            for stream in (self._topics.raw(shard), self._topics.enriched(shard)):
                last: Any = await self._redis.xrevrange(stream, count=1)
                head = last[0][0].decode() if last else BEGIN
                groups: Any = await self._redis.xinfo_groups(stream)
                for group in groups:
                    found[stream, group["name"].decode()] = Position(
                        head, group["last-delivered-id"].decode(), int(group["pending"])
                    )
        return found

    async def _read_letters(self) -> None:
        for stream, last in self._letters_read.items():
            letters: Any = await self._redis.xrange(stream, f"({last}")
            for stream_id, fields in letters:
                self._letters_read[stream] = stream_id.decode()
                reason, error = fields[b"reason"].decode(), fields.get(b"error", b"").decode()
                told = f"{reason}: {error}" if reason else ""
                self.dead[_raw_id(fields[b"id"].decode())] = told


def place(stream_id: str) -> tuple[int, int]:
    """A stream id as numbers, to compare."""
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number or 0)


def ledger_id(message_id: str) -> str:
    """The id under which a raw entry's rows are known."""
    return f"{message_id}:r{CALCULATION_REVISION}"


def _raw_id(message_id: str) -> str:
    head, mark, _revision = message_id.rpartition(":r")
    return head if mark else message_id


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), ASK_AT_ONCE):
        yield ids[start : start + ASK_AT_ONCE]
