"""Chains, their ledger lines and what they cover, into Postgres in one transaction.

Nothing is read from the bus or acknowledged here. A batch is prepared and then committed, so that
the next one can be prepared meanwhile.
"""

import asyncio
import contextlib
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import rows
from pipeline.clock import SECOND_NS, to_datetime
from pipeline.database import Database, Session
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.frames import decode_column, open_frame
from pipeline.instruments import Instruments
from pipeline.models import CALCULATION_REVISION, ChainHeader, contract_symbol
from pipeline.rows import LegEncoder, StoredChain, misfit_reason, snapshot_row
from workers.storage.trials import find_refused

_REVISION_MARK = ":r"  # before the calculation revision, at the end of a message id
_REMEMBERED_COMMITS = 4  # a batch that was prepared longer ago is prepared anew


class Arrived(msgspec.Struct, frozen=True):
    """The frame of a chain, and what its entry says of it."""

    id: str
    stream_id: str
    epoch: str
    seq: int
    ts_enrich: int | None
    header: ChainHeader
    columns: Mapping[str, bytes]

    def symbol(self, leg: int) -> str:
        """The symbol id of one leg."""
        strike, kind = (
            decode_column(self.columns.get(name), name, self.header.n)[leg].item()
            for name in ("strike", "kind")
        )
        return contract_symbol(self.header.chain, strike, kind)


class Refused(msgspec.Struct, frozen=True):
    """A leg that Postgres cannot hold, and why; the rest of its chain is stored."""

    arrived: Arrived
    leg: int
    reason: str


class Written(msgspec.Struct, frozen=True):
    """What a batch put into Postgres; `known` chains had their rows there already."""

    rows: int = 0
    snapshots: int = 0
    known: int = 0
    refused: tuple[Refused, ...] = ()

    def plus(self, other: "Written") -> "Written":
        """Both together."""
        return Written(
            self.rows + other.rows,
            self.snapshots + other.snapshots,
            self.known + other.known,
            self.refused + other.refused,
        )


class Prepared(msgspec.Struct, frozen=True):
    """A batch that wants nothing but its commit; `legs` lie in the buffer of the encoder."""

    fresh: list[Arrived]
    stored: list[StoredChain]
    encoder: LegEncoder
    legs: memoryview
    left_out: NDArray[np.bool_]
    present: "Counter[tuple[int, str, str]]"
    known: int
    refused: tuple[Refused, ...]
    batch: Sequence[Arrived]
    without: "Known"
    looked: "_Looked"


class _Looked(NamedTuple):
    """When the database was looked at: after so many commits and connections."""

    commits: int
    connections: int


# Which legs to leave out, and why, by message id.
Known = Mapping[str, Mapping[int, str]]
_NOTHING: Known = {}


class Writer:
    """Writes chains and their ledger lines in one transaction; `now_ns` says which day it is."""

    def __init__(self, database: Database, now_ns: Callable[[], int]) -> None:
        self._database = database
        self._now_ns = now_ns
        self._instruments = Instruments(database)
        self._encoders: list[LegEncoder] = []  # those whose buffers are free
        self._days: set[date] = set()
        self._commits = 0
        self._recent: deque[set[str]] = deque(maxlen=_REMEMBERED_COMMITS)  # ids, of all revisions
        self._writing: list[tuple[set[str], asyncio.Event]] = []
        self._connections = 0

    async def write(self, batch: Sequence[Arrived], without: Known = _NOTHING) -> Written:
        """Commit every chain whose id is not in the ledger; all of them or none.

        Legs that no row can hold, and those of `without`, are left out and told. Raises
        RowsRejected if some other row can never be stored, StoreUnavailable if the outcome is open:
        the same call again settles it.
        """
        return await self.commit(await self.prepare(batch, without))

    async def prepare(self, batch: Sequence[Arrived], without: Known = _NOTHING) -> Prepared:
        """Look up and encode what a batch needs. Raises RowsRejected, StoreUnavailable."""
        if self._connections != self._database.connections:
            self.forget()  # for it may be another server, and one that has less
        looked = _Looked(self._commits, self._connections)
        distinct = {arrived.id: arrived for arrived in batch}
        known = await self._known([*distinct.values()])
        fresh = [arrived for arrived in distinct.values() if arrived.id not in known]
        refused: list[Refused] = []
        for again in (arrived for arrived in distinct.values() if known.get(arrived.id)):
            refused += await self._refused_before(again)
        stored = [await self._stored(arrived) for arrived in fresh]
        encoder = self._encoders.pop() if self._encoders else LegEncoder()
        legs, misfits = encoder.encode(stored, _mask(fresh, without))
        refused += _told(fresh, stored, misfits, without)
        sys.audit("stockify.storage", "encoded")
        return Prepared(
            *(fresh, stored, encoder, legs, misfits, _present(fresh, known)),
            known=len(batch) - len(fresh),
            refused=tuple(refused),
            batch=batch,
            without=without,
            looked=looked,
        )

    async def commit(self, prepared: Prepared) -> Written:
        """Write a prepared batch, once. Raises as `write` does; then it must be prepared anew."""
        while True:
            ids = {id for one in prepared.fresh for id in _revisions(one.id)}
            try:
                async with self._alone_with(ids):
                    is_stale = self._is_overtaken(prepared)
                    written = None if is_stale else await self._committed(prepared, ids)
            finally:
                self._encoders.append(prepared.encoder)
            if written is not None:
                return written
            prepared = await self.prepare(prepared.batch, prepared.without)

    def _is_overtaken(self, prepared: Prepared) -> bool:
        """Whether snapshots of the batch were committed after the ledger was asked for them."""
        since = self._commits - prepared.looked.commits
        if since > len(self._recent):
            return True
        ids = {arrived.id for arrived in prepared.fresh}
        return any(not one.isdisjoint(ids) for one in [*self._recent][len(self._recent) - since :])

    @contextlib.asynccontextmanager
    async def _alone_with(self, ids: set[str]) -> AsyncIterator[None]:
        """Wait until no other commit writes any of those snapshots, then let none do so."""
        while others := [done for theirs, done in self._writing if not theirs.isdisjoint(ids)]:
            await others[0].wait()
        this = ids, asyncio.Event()
        self._writing.append(this)
        try:
            yield
        finally:
            self._writing.remove(this)
            this[1].set()

    async def _committed(self, prepared: Prepared, ids: set[str]) -> Written | None:
        """Write a batch; None where the connection is newer than what was looked up for it."""
        fresh, stored = prepared.fresh, prepared.stored
        if not fresh:
            return Written(known=prepared.known, refused=prepared.refused)
        await self.make_days(fresh)
        kept = [
            len(part) - int(np.count_nonzero(part))
            for part in _apart(prepared.left_out, [one.header.n for one in fresh])
        ]
        lines = [_ledger_line(one, n) for one, n in zip(fresh, kept, strict=True)]
        async with self._database.session() as session:
            if self._database.connections != prepared.looked.connections:
                return None
            async with session.transaction():
                sys.audit("stockify.storage", "begun")
                snapshots = rows.snapshots.pack(map(snapshot_row, stored))
                await session.copy_buffer("copy_market_snapshots", snapshots)
                sys.audit("stockify.storage", "snapshots_copied")
                await session.copy_buffer("copy_option_contracts", prepared.legs)
                sys.audit("stockify.storage", "contracts_copied")
                await session.copy_buffer("copy_ledger", rows.ledger.pack(lines))
                sys.audit("stockify.storage", "ledger_copied")
                await _count_present(session, prepared.present)
                sys.audit("stockify.storage", "coverage_counted")
            sys.audit("stockify.storage", "committed")
        self._commits += 1
        self._recent.append(ids)
        return Written(sum(kept), len(fresh), prepared.known, prepared.refused)

    def forget(self) -> None:
        """Take nothing for granted that was seen in the database before."""
        self._connections = self._database.connections
        self._instruments.forget()
        self._days.clear()

    async def refused_by_server(self, arrived: Arrived) -> dict[int, str]:
        """Which legs of a chain the server alone refuses, and why, found by trial.

        Raises RowsRejected where it refuses the chain itself, or more legs than are worth a trial.
        """
        await self.make_days([arrived])
        return await find_refused(self._database, await self._stored(arrived))

    async def _known(self, batch: Sequence[Arrived]) -> dict[str, int]:
        """Of message ids, all revisions, that are in the ledger: how many legs were set aside."""
        ids = [id for arrived in batch for id in _revisions(arrived.id)]
        found = await self._database.fetch("ledger_known", ids=ids)
        return {row["id"]: row["rejected"] for row in found}

    async def make_days(self, batch: Sequence[Arrived]) -> None:
        """Give the batch's UTC days a place, and tomorrow too, so that midnight costs nothing."""
        needed = {to_datetime(arrived.header.ts_ingest).date() for arrived in batch}
        today = to_datetime(self._now_ns()).date()
        needed |= {today, today + timedelta(days=1)}
        missing = sorted(needed - self._days)
        if missing:
            await self._database.fetch("make_days", days=missing)
            self._days.update(missing)

    async def _stored(self, arrived: Arrived) -> StoredChain:
        ids = await self._instruments.of(arrived.header, arrived.columns)
        return StoredChain(
            *(arrived.header, arrived.columns, arrived.epoch, arrived.seq, arrived.ts_enrich, ids)
        )

    async def _refused_before(self, arrived: Arrived) -> list[Refused]:
        """The legs of a stored chain that are not there; told again, since their letters may not
        have been written before the worker died."""
        stored = await self._stored(arrived)
        found = await self._database.fetch(
            "stored_legs",
            ts=to_datetime(arrived.header.ts_ingest),
            rev=arrived.header.rev,
            instrument_ids=stored.instrument_ids.tolist(),
        )
        there = np.isin(stored.instrument_ids, [row["instrument_id"] for row in found])
        return [
            Refused(arrived, leg, misfit_reason(stored, leg))
            for leg in np.flatnonzero(~there).tolist()
        ]


def arrived_from(entry: Entry) -> Arrived:
    """The chain of an entry. Raises DecodeError."""
    if not entry.id:
        raise DecodeError("the entry has no message id, by which the ledger could know it")
    header, columns = open_frame(entry.data)
    return Arrived(*(entry.id, entry.stream_id, entry.epoch, entry.seq, entry.te, header, columns))


def _revisions(message_id: str) -> list[str]:
    """A message id, and those of the same snapshot by other calculation revisions."""
    raw, _, rev = message_id.rpartition(_REVISION_MARK)
    if not raw or not rev.isdecimal() or len(rev) > 3:
        return [message_id]
    highest = max(CALCULATION_REVISION, int(rev))
    return [f"{raw}{_REVISION_MARK}{rev}" for rev in range(1, highest + 1)]


def _mask(fresh: Sequence[Arrived], without: Known) -> NDArray[np.bool_]:
    """Of every leg of every chain, whether `without` names it."""
    parts = [np.zeros(arrived.header.n, np.bool_) for arrived in fresh]
    for arrived, part in zip(fresh, parts, strict=True):
        part[list(without.get(arrived.id, ()))] = True
    return np.concatenate(parts) if parts else np.zeros(0, np.bool_)


def _apart(mask: NDArray[np.bool_], counts: Sequence[int]) -> list[NDArray[np.bool_]]:
    """The parts of a mask, one a chain."""
    return np.split(mask, np.cumsum(counts)[:-1])


def _told(
    fresh: Sequence[Arrived],
    stored: Sequence[StoredChain],
    misfits: NDArray[np.bool_],
    without: Known,
) -> list[Refused]:
    if not misfits.any():
        return []
    parts = _apart(misfits, [arrived.header.n for arrived in fresh])
    return [
        Refused(arrived, leg, without.get(arrived.id, {}).get(leg) or misfit_reason(chain, leg))
        for arrived, chain, part in zip(fresh, stored, parts, strict=True)
        for leg in np.flatnonzero(part).tolist()
    ]


def _present(fresh: Sequence[Arrived], known: Mapping[str, int]) -> "Counter[tuple[int, str, str]]":
    """How many snapshots a batch adds to each minute (ns), chain and provider.

    The same snapshot by another revision is none more.
    """
    counted: Counter[tuple[int, str, str]] = Counter()
    seen: set[str] = set()
    for arrived in fresh:
        revisions = _revisions(arrived.id)
        if seen.isdisjoint(revisions) and known.keys().isdisjoint(revisions):
            header = arrived.header
            minute = header.ts_ingest - header.ts_ingest % (60 * SECOND_NS)
            counted[minute, header.chain, header.provider] += 1
        seen.add(arrived.id)
    return counted


async def _count_present(session: Session, present: "Counter[tuple[int, str, str]]") -> None:
    # Two sessions that count in one order never wait for each other in a circle.
    lines = sorted(present.items())
    await session.execute(
        "count_present",
        minutes=[to_datetime(minute) for (minute, _, _), _ in lines],
        symbols=[symbol for (_, symbol, _), _ in lines],
        providers=[provider for (_, _, provider), _ in lines],
        counts=[count for _, count in lines],
    )


def _ledger_line(arrived: Arrived, kept: int) -> tuple[object, ...]:
    header = arrived.header
    return arrived.id, arrived.stream_id, header.ts_ingest, kept, header.n - kept
