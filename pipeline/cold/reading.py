"""Closed days from the cold store into Postgres; what is there already is left alone.

Everything is checked before anything is written. Then each group of legs is committed together with
its snapshots and its lines of the ledger, so that an import that breaks off goes on where it was,
and a second one finds nothing to do.
"""

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date
from pathlib import Path

import msgspec
import pyarrow as pa

from pipeline.candles import refresh_candles
from pipeline.clock import to_ns
from pipeline.cold import files
from pipeline.cold import manifest as manifests
from pipeline.cold.datasets import (
    CONTRACTS,
    COVERAGE,
    DATASETS,
    GAPS,
    INSTRUMENTS,
    LEDGER,
    SNAPSHOTS,
    Dataset,
)
from pipeline.cold.days import bounds
from pipeline.cold.definitions import adopt
from pipeline.cold.groups import Group, GroupWriter, groups_of
from pipeline.cold.lines import Line, check_agreement, revisions_of
from pipeline.cold.manifest import Manifest, Slice
from pipeline.database import Database
from pipeline.errors import ColdStoreError

KNOWN_IDS = 10_000  # asked of the ledger at once


class Imported(msgspec.Struct, frozen=True):
    """What became of one underlying of a day; rows that the database did not have before."""

    day: date
    underlying: str
    contracts: int
    snapshots: int
    known: int
    seconds: float


class Importer:
    """Reads one day's directory into a database."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database, self._directory = database, directory

    def check(self, only: Sequence[str] = ()) -> Manifest:
        """The manifest of what is to be loaded, of which every file is what was written.

        Raises ColdStoreError.
        """
        manifest = manifests.read_manifest(self._directory)
        if manifest is None:
            raise ColdStoreError(f"{self._directory} has no {manifests.MANIFEST}")
        if missing := set(only) - manifest.underlyings.keys():
            raise ColdStoreError(f"{self._directory} has nothing of {', '.join(sorted(missing))}")
        chosen = {
            name: slice for name, slice in manifest.underlyings.items() if not only or name in only
        }
        for underlying, slice in chosen.items():
            manifests.check_files(self._directory, slice)
            self._check_content(manifest.day, underlying, slice)
        is_whole = manifest.complete and chosen.keys() == manifest.underlyings.keys()
        return msgspec.structs.replace(manifest, underlyings=chosen, complete=is_whole)

    async def load(self, manifest: Manifest) -> AsyncIterator[Imported]:
        """Bring what `check` gave into the database, and tell of each underlying.

        Raises ColdStoreError, StoreError; what was committed before stays, and is known next time.
        """
        start, end = bounds(manifest.day)
        # A day of the exchange lies in two UTC days, for which there must be a place.
        days = [one.astimezone(UTC).date() for one in (start, end)]
        await self._database.fetch("make_days", days=days)
        has_new = False
        for underlying in manifest.underlyings:
            begun = time.perf_counter()
            done = await self._load(manifest.day, underlying)
            has_new |= done[1] > 0
            yield Imported(manifest.day, underlying, *done, time.perf_counter() - begun)
        # Candles are made anew from rows, so those of underlyings that have none now must not be.
        if has_new and manifest.complete:
            await refresh_candles(self._database, to_ns(start), to_ns(end))

    async def _load(self, day: date, underlying: str) -> tuple[int, int, int]:
        """New contracts and snapshots of one underlying, and snapshots known before."""
        lines = files.lines_of(self._whole(underlying, LEDGER))
        stored = await self._stored(lines)
        await self._check_rows(
            day, underlying, sum(line.id in stored for line in lines if line.key)
        )
        fresh = [line for line in lines if line.id not in stored]
        contracts = snapshots = 0
        if fresh:
            async with self._database.session() as session, session.transaction():
                ids = await adopt(session, underlying, self._whole(underlying, INSTRUMENTS))
            writer = GroupWriter(underlying, self._whole(underlying, SNAPSHOTS), ids, stored)
            with files.opened(self._path(underlying, CONTRACTS), CONTRACTS) as file:
                for group in groups_of(file, fresh):
                    contracts += await self._commit(writer, group)
                    snapshots += sum(line.key is not None for line in group.lines)
        await self._add_coverage(underlying)
        all_snapshots = sum(line.key is not None for line in lines)
        return contracts, snapshots, all_snapshots - snapshots

    async def _check_rows(self, day: date, underlying: str, known: int) -> None:
        """Raise ColdStoreError where the rows of known lines are gone: they would not come back."""
        start, end = bounds(day)
        rows = await self._database.fetch(
            "snapshots_of_day", underlying=underlying, start=start, end=end
        )
        if rows[0]["snapshots"] < known:
            raise ColdStoreError(
                f"the database knows {known:,} snapshots of {underlying} on {day}, but their rows "
                "are gone: retention has dropped the day and not yet forgotten its ledger"
            )

    async def _commit(self, writer: GroupWriter, group: Group) -> int:
        async with self._database.session() as session, session.transaction():
            return await writer.write(session, group)

    async def _stored(self, lines: Sequence[Line]) -> set[str]:
        """The ids, of all revisions of these lines, that the ledger has."""
        highest = max((line.key.rev for line in lines if line.key is not None), default=1)
        ids = sorted({id for line in lines for id in revisions_of(line, highest)})
        stored: set[str] = set()
        for first in range(0, len(ids), KNOWN_IDS):
            asked = ids[first : first + KNOWN_IDS]
            stored |= {row["id"] for row in await self._database.fetch("ledger_known", ids=asked)}
        return stored

    async def _add_coverage(self, underlying: str) -> None:
        """What was expected, and the gaps; what is there already stays."""
        coverage = self._whole(underlying, COVERAGE).to_pydict()
        gaps = self._whole(underlying, GAPS).to_pydict()
        async with self._database.session() as session, session.transaction():
            if coverage["minute"]:
                await session.execute(
                    "expect_snapshots",
                    minutes=coverage["minute"],
                    symbols=coverage["symbol"],
                    providers=coverage["provider"],
                    expected=coverage["expected"],
                )
            if gaps["starts"]:
                await session.execute(
                    "add_gaps",
                    starts=gaps["starts"],
                    ends=gaps["ends"],
                    missed=gaps["missed"],
                    symbols=gaps["symbol"],
                    providers=gaps["provider"],
                    causes=gaps["cause"],
                    details=gaps["detail"],
                )

    def _check_content(self, day: date, underlying: str, slice: Slice) -> None:
        """What a checksum cannot say: columns, counts, and that the parts belong together."""
        for dataset in DATASETS:
            path, wanted = self._path(underlying, dataset), slice.files[dataset.name].rows
            with files.opened(path, dataset) as file:
                if file.metadata.num_rows != wanted:
                    raise ColdStoreError(
                        f"{path} has {file.metadata.num_rows:,} rows, not {wanted:,}"
                    )
        lines = files.lines_of(self._whole(underlying, LEDGER))
        snapshots = self._whole(underlying, SNAPSHOTS)
        start, end = (to_ns(one) // 1_000 for one in bounds(day))
        if not all(start <= line.ts < end for line in lines):
            raise ColdStoreError(f"{self._directory}: {underlying} has entries of another day")
        keys = files.snapshot_keys(underlying, snapshots)
        what = f"{self._directory}: {underlying}"
        check_agreement(what, lines, keys, slice.files[CONTRACTS.name].rows)

    def _whole(self, underlying: str, dataset: Dataset) -> pa.Table:
        return files.read_whole(self._path(underlying, dataset), dataset)

    def _path(self, underlying: str, dataset: Dataset) -> Path:
        return self._directory / manifests.file_path(underlying, dataset.name)
