"""One underlying of one closed day out of Postgres into files, from one state of the database.

Legs come in groups of rows, so that a day of any size takes the same memory: while one group is
compressed, the next is read. The files get their names when they are whole.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from pipeline.clock import to_datetime
from pipeline.cold import files
from pipeline.cold import manifest as manifests
from pipeline.cold.datasets import (
    CONTRACTS,
    COVERAGE,
    DATASETS,
    GAPS,
    INSTRUMENTS,
    LEDGER,
    SENT_LEGS,
    SNAPSHOTS,
    Dataset,
)
from pipeline.cold.days import bounds
from pipeline.cold.lines import Line, check_agreement
from pipeline.cold.manifest import Slice, StoredFile
from pipeline.cold.tables import Legs, table_of
from pipeline.columns import ColumnReader
from pipeline.database import Database, Session
from pipeline.errors import ColdStoreError
from pipeline.kernels.copyread import Field

# Legs of a row group: some 15 MB as the server sends them, as much again as columns. Statistics of
# a group tell readers which to skip, and an import commits one at a time.
GROUP_LEGS = 65_536
GROUP_INSTANTS = 4_096  # of one statement, however few legs their chains have

_TYPES_OF_LEGS = tuple(kind for _, kind in SENT_LEGS)


class Exported(msgspec.Struct, frozen=True):
    """What became of one underlying of a day; `is_known`: its files were there and are the same."""

    day: date
    underlying: str
    contracts: int
    snapshots: int
    bytes: int
    seconds: float
    is_known: bool


class SliceExport:
    """Writes the files of one underlying and day below the day's directory."""

    def __init__(self, database: Database, directory: Path, day: date, underlying: str) -> None:
        self._database, self._directory = database, directory
        self._day, self._underlying = day, underlying
        start, end = bounds(day)
        self._asked = {"underlying": underlying, "start": start, "end": end}
        self._files: dict[str, StoredFile] = {}

    async def run(self, before: Slice | None) -> tuple[Slice | None, Exported]:
        """Write the files; None where those of `before` are what would be written.

        Raises ColdStoreError where the ledger and the rows disagree, or `before` has more.
        """
        begun = time.perf_counter()
        async with self._database.session() as session, session.transaction():
            await session.execute("read_one_state")
            ledger = await self._small(session, LEDGER)
            lines = files.lines_of(ledger)
            if before is not None and self._is_known(before, lines):
                return None, self._told(before, begun, is_known=True)
            self._path(CONTRACTS).parent.mkdir(exist_ok=True)
            snapshots = await self._small(session, SNAPSHOTS)
            legs = Legs(await self._small(session, INSTRUMENTS))
            contracts = await self._contracts(session, snapshots, legs)
            coverage = await self._small(session, COVERAGE)
            gaps = await self._small(session, GAPS)
        keys = files.snapshot_keys(self._underlying, snapshots)
        check_agreement(f"{self._underlying} on {self._day}", lines, keys, contracts)
        self._write(LEDGER, ledger)
        self._write(SNAPSHOTS, snapshots)
        self._write(INSTRUMENTS, legs.definitions())
        self._write(COVERAGE, coverage)
        self._write(GAPS, gaps)
        done = Slice(
            files={dataset.name: self._files[dataset.name] for dataset in DATASETS},
            revisions=tuple(sorted({key.rev for key in keys})),
            ledger_lines=len(lines),
            ledger_sha256=_hash(lines),
        )
        return done, self._told(done, begun, is_known=False)

    def put_in_place(self) -> None:
        """Give the files their names, in the place of those of an earlier export."""
        for stored in self._files.values():
            path = self._directory / stored.path
            files.part_of(path).replace(path)
        manifests.sync_directory(self._path(CONTRACTS).parent)
        manifests.sync_directory(self._directory)

    def _is_known(self, before: Slice, lines: Sequence[Line]) -> bool:
        """Whether what is there need not be written again. Raises ColdStoreError if it has more."""
        path = self._directory / before.files[LEDGER.name].path
        try:
            manifests.check_files(self._directory, before)
            there = {line.id for line in files.lines_of(files.read_whole(path, LEDGER))}
            lost = len(there - {line.id for line in lines})
        except ColdStoreError:  # damaged: to be written again, if all is there
            lost = before.ledger_lines - len(lines)
            is_whole = False
        else:
            is_whole = before.ledger_sha256 == _hash(lines)
        if lost > 0:
            raise ColdStoreError(
                f"{lost:,} entries of {self._underlying} on {self._day} are in the export and no "
                "longer in the database; the export is kept as it is"
            )
        return is_whole

    async def _contracts(self, session: Session, snapshots: pa.Table, legs: Legs) -> int:
        """Write the legs; gives how many."""
        total = 0
        loop = asyncio.get_running_loop()
        # The pool is left before the writer is closed, whatever ends this.
        with (
            files.written(self._path(CONTRACTS), CONTRACTS) as writer,
            ThreadPoolExecutor(1) as pool,
        ):
            under_way: asyncio.Future[int] | None = None
            for instants in _groups(snapshots):
                sent = await _columns(
                    *(session, "copy_contracts_out", _TYPES_OF_LEGS),
                    instants=[to_datetime(ts * 1_000) for ts in instants],
                    first=to_datetime(instants[0] * 1_000),
                    last=to_datetime(instants[-1] * 1_000),
                )
                if under_way is not None:
                    total += await under_way
                under_way = loop.run_in_executor(pool, _append, writer, legs, *sent)
            if under_way is not None:
                total += await under_way
        self._describe(CONTRACTS, total)
        return total

    async def _small(self, session: Session, dataset: Dataset) -> pa.Table:
        """A dataset that fits into memory: some lines a snapshot at most."""
        query = f"copy_{dataset.name}_out"
        return table_of(dataset, *await _columns(session, query, dataset.types, **self._asked))

    def _write(self, dataset: Dataset, table: pa.Table) -> None:
        with files.written(self._path(dataset), dataset) as writer:
            writer.write_table(table)
        self._describe(dataset, table.num_rows)

    def _describe(self, dataset: Dataset, rows: int) -> None:
        path = manifests.file_path(self._underlying, dataset.name)
        part = files.part_of(self._directory / path)
        self._files[dataset.name] = manifests.describe_file(part, path, rows)

    def _path(self, dataset: Dataset) -> Path:
        return self._directory / manifests.file_path(self._underlying, dataset.name)

    def _told(self, slice: Slice, begun: float, *, is_known: bool) -> Exported:
        return Exported(
            day=self._day,
            underlying=self._underlying,
            contracts=slice.files[CONTRACTS.name].rows,
            snapshots=slice.files[SNAPSHOTS.name].rows,
            bytes=sum(stored.bytes for stored in slice.files.values()),
            seconds=time.perf_counter() - begun,
            is_known=is_known,
        )


def _append(writer: parquet.ParquetWriter, legs: Legs, rows: int, fields: Sequence[Field]) -> int:
    table = legs.table(rows, fields)
    if table.num_rows:
        writer.write_table(table, row_group_size=table.num_rows)
    return int(table.num_rows)


def _hash(lines: Sequence[Line]) -> str:
    return manifests.ledger_hash((line.id, line.n) for line in lines)


def _groups(snapshots: pa.Table) -> Iterator[list[int]]:
    """The instants of snapshots (µs) in groups of so many legs; an instant is in one of them."""
    instants, counts = snapshots["ts"].cast(pa.int64()).to_numpy(), snapshots["n"].to_numpy()
    distinct, first = np.unique(instants, return_index=True)
    group: list[int] = []
    held = 0
    sums = np.add.reduceat(counts, first) if len(first) else counts
    for instant, legs in zip(distinct.tolist(), sums.tolist(), strict=True):
        if group and (held + legs > GROUP_LEGS or len(group) == GROUP_INSTANTS):
            yield group
            group, held = [], 0
        group.append(instant)
        held += legs
    if group:
        yield group


async def _columns(
    session: Session, query: str, types: Sequence[str], **parameters: Any
) -> tuple[int, list[Field]]:
    """What a named COPY sends, as columns."""
    reader = ColumnReader(types)
    async with session.copy_out(query, **parameters) as buffers:
        async for data in buffers:
            reader.feed(data)
    rows, fields = reader.take()
    reader.finish()
    return rows, fields
