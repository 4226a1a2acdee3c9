"""Chains, their ledger lines and what they cover, into Postgres in one transaction.

Nothing is read from the bus or acknowledged here.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

import msgspec

from pipeline import frames
from pipeline.clock import to_datetime
from pipeline.database import Database
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.instruments import Instruments
from pipeline.models import EnrichedChain
from pipeline.rows import LegEncoder, StoredChain, snapshot_row


class Arrived(msgspec.Struct, frozen=True):
    """A decoded chain and what its entry says of it."""

    id: str
    stream_id: str
    epoch: str
    seq: int
    ts_enrich: int | None
    chain: EnrichedChain


class Written(msgspec.Struct, frozen=True):
    """What a batch put into Postgres; `known` chains had their rows there already."""

    rows: int = 0
    snapshots: int = 0
    known: int = 0

    def plus(self, other: "Written") -> "Written":
        """Both together."""
        return Written(
            self.rows + other.rows, self.snapshots + other.snapshots, self.known + other.known
        )


class Writer:
    """Writes chains and their ledger lines in one transaction; `now_ns` says which day it is."""

    def __init__(self, database: Database, now_ns: Callable[[], int]) -> None:
        self._database = database
        self._now_ns = now_ns
        self._instruments = Instruments(database)
        self._encoder = LegEncoder()
        self._days: set[date] = set()

    async def write(self, batch: Sequence[Arrived]) -> Written:
        """Commit every chain whose id is not in the ledger; all of them or none.

        Raises RowsRejected if some row can never be stored, StoreUnavailable if the outcome is
        open: the same call again settles it.
        """
        distinct = {arrived.id: arrived for arrived in batch}
        known = await self._known(list(distinct))
        fresh = [arrived for arrived in distinct.values() if arrived.id not in known]
        skipped = Written(known=len(batch) - len(fresh))
        if not fresh:
            return skipped
        await self._make_days(fresh)
        stored = [await self._stored(arrived) for arrived in fresh]
        legs = self._encoder.encode(stored)
        async with self._database.session() as session, session.transaction():
            await session.copy_rows("copy_market_snapshots", map(snapshot_row, stored))
            await session.copy_buffer("copy_option_contracts", legs)
            await session.copy_rows("copy_ledger", map(_ledger_row, fresh))
        count = sum(arrived.chain.header.n for arrived in fresh)
        return Written(count, len(fresh)).plus(skipped)

    def forget(self) -> None:
        """Take nothing for granted that was seen in the database before."""
        self._instruments.forget()
        self._days.clear()

    async def _known(self, ids: list[str]) -> set[str]:
        found = await self._database.fetch("ledger_known", ids=ids)
        return {row["id"] for row in found}

    async def _make_days(self, batch: Sequence[Arrived]) -> None:
        """Give the batch's UTC days a place, and tomorrow too, so that midnight costs nothing."""
        needed = {to_datetime(arrived.chain.header.ts_ingest).date() for arrived in batch}
        today = to_datetime(self._now_ns()).date()
        needed |= {today, today + timedelta(days=1)}
        missing = sorted(needed - self._days)
        if missing:
            await self._database.fetch("make_days", days=missing)
            self._days.update(missing)

    async def _stored(self, arrived: Arrived) -> StoredChain:
        ids = await self._instruments.of(arrived.chain)
        return StoredChain(arrived.chain, arrived.epoch, arrived.seq, arrived.ts_enrich, ids)


def arrived_from(entry: Entry) -> Arrived:
    if not entry.id:
        raise DecodeError("the entry has no message id, by which the ledger could know it")
    chain = frames.decode_frame(entry.data)
    return Arrived(entry.id, entry.stream_id, entry.epoch, entry.seq, entry.te, chain)


def _ledger_row(arrived: Arrived) -> tuple[object, ...]:
    header = arrived.chain.header
    return arrived.id, arrived.stream_id, to_datetime(header.ts_ingest), header.n
