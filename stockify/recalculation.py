"""Archived bodies enriched again by the present calculation, beside what was stored before.

Rows of another revision have keys and ledger lines of their own, so that nothing that is stored
changes, and what is there already is passed over. Bodies that do not decode are told of, as the
processor told of them when they came.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import msgspec

from pipeline.archive import read_archive
from pipeline.clock import Clock
from pipeline.database import Database
from pipeline.entries import Entry
from pipeline.errors import ConfigError, DecodeError
from pipeline.frames import open_frame
from pipeline.models import CALCULATION_REVISION, RAW_CHAIN_TYPE
from workers import processor
from workers.storage.writer import Arrived, Writer

BATCH = 64  # chains: some 16,000 rows, the flat part of the cost curve of a transaction


class Outcome(msgspec.Struct):
    """What became of one underlying's bodies; `reasons` of the undecodable, most frequent first.

    `set_aside` are legs that no row can hold. `damage` says where the archive itself cannot be
    read on.
    """

    underlying: str
    new: int = 0
    rows: int = 0
    known: int = 0
    set_aside: int = 0
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    damage: str = ""

    @property
    def undecodable(self) -> int:
        """Bodies of which nothing came."""
        return self.reasons.total()


class Recalculation:
    """Enriches archived days again; `archive` is the archiver's directory."""

    def __init__(
        self, database: Database, archive: Path, clock: Clock, *, rate: float, greeks: str
    ) -> None:
        self._database, self._archive, self._clock = database, archive, clock
        self._rate, self._greeks = rate, greeks
        self._writer = Writer(database, clock.now_ns)

    def files(self, day: date, only: Sequence[str] = ()) -> list[Path]:
        """The day's files, of those underlyings. Raises ConfigError where one has none."""
        directory = self._archive / day.isoformat()
        files = {path.stem: path for path in sorted(directory.glob("*.raw"))}
        if missing := set(only) - files.keys():
            raise ConfigError(f"{directory} has nothing of {', '.join(sorted(missing))}")
        if not files:
            raise ConfigError(
                f"{directory} has no archived body; `stockify run archiver` keeps them"
            )
        return [path for name, path in files.items() if not only or name in only]

    async def run(self, path: Path, tell: Callable[[Outcome], None]) -> Outcome:
        """Enrich what a file has, calling `tell` after every commit. Raises StoreError, OSError.

        Broken off anywhere it has stored whole snapshots, and the next run goes on behind them.
        """
        outcome = Outcome(path.stem)
        entries = self._chains(path, outcome)
        while batch := list(itertools.islice(entries, BATCH)):
            await self._store(batch, outcome)
            tell(outcome)
        return outcome

    def _chains(self, path: Path, outcome: Outcome) -> Iterator[Entry]:
        try:
            for entry in read_archive(path):
                if entry.type == RAW_CHAIN_TYPE:
                    yield entry
        except DecodeError as error:
            outcome.damage = str(error)

    async def _store(self, batch: Sequence[Entry], outcome: Outcome) -> None:
        ids = [f"{entry.id}:r{CALCULATION_REVISION}" for entry in batch]
        known = {row["id"] for row in await self._database.fetch("ledger_known", ids=ids)}
        outcome.known += sum(id in known for id in ids)
        chains = []
        for entry, id in zip(batch, ids, strict=True):
            if id in known:
                continue
            await asyncio.sleep(0)  # where Ctrl-C is heard
            try:
                chains.append(self._enriched(entry))
            except DecodeError as error:
                outcome.reasons[str(error)] += 1
        if not chains:
            return
        written = await self._writer.write(chains)
        outcome.new += written.snapshots
        outcome.rows += written.rows
        outcome.known += written.known
        outcome.set_aside += len(written.refused)

    def _enriched(self, entry: Entry) -> Arrived:
        """A chain as the storage worker would have it, at the place of its raw entry."""
        if not entry.id:
            raise DecodeError("the entry has no message id, by which the ledger could know it")
        te = self._clock.now_ns()
        made, _ = processor.derive(
            entry, te=te, rate=self._rate, greeks=self._greeks, traceparent=""
        )
        header, columns = open_frame(made.data)
        return Arrived(made.id, entry.stream_id, entry.epoch, entry.seq, te, header, columns)
