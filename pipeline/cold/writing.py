"""Closed days out of Postgres into the cold store, one underlying after another.

The manifest is written behind the files that it names, and an export is never replaced by one that
has less. An export that breaks off goes on where it was when it is asked for again.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import date
from pathlib import Path

import msgspec

from pipeline.clock import to_rfc3339
from pipeline.cold import manifest as manifests
from pipeline.cold.days import bounds, is_closed
from pipeline.cold.manifest import Manifest, Slice
from pipeline.cold.slices import Exported, SliceExport
from pipeline.database import Database
from pipeline.errors import ColdStoreError


async def days_to_export(database: Database, root: Path, now_ns: int) -> list[date]:
    """Closed days of which the ledger has more lines than the cold store, or which it has in part.

    Fewer lines are those of a day that retention is dropping. Reads nothing but the ledger and the
    manifests. Raises StoreError, ColdStoreError.
    """
    days = []
    for row in await database.fetch("ledger_by_day"):
        stored = manifests.read_manifest(manifests.directory_of(root, row["day"]))
        is_there = stored is not None and stored.complete and stored.ledger_lines >= row["lines"]
        if is_closed(row["day"], now_ns) and not is_there:
            days.append(row["day"])
    return days


class Exporter:
    """Writes days below `root`; `now_ns` says which of them are over."""

    def __init__(self, database: Database, root: Path, now_ns: int) -> None:
        self._database, self._root, self._now_ns = database, root, now_ns

    async def export(self, day: date, only: Sequence[str] = ()) -> AsyncIterator[Exported]:
        """Export the underlyings of a day, or some of them, and tell of each when it is done.

        Raises ColdStoreError where the day is not over, where the ledger and the rows disagree, and
        where an export that is there has more; StoreError; OSError.
        """
        if not is_closed(day, self._now_ns):
            raise ColdStoreError(f"{day} is not over yet")
        there = await self._underlyings(day)
        if missing := set(only) - set(there):
            raise ColdStoreError(f"nothing of {', '.join(sorted(missing))} is stored on {day}")
        directory = manifests.directory_of(self._root, day)
        stored = manifests.read_manifest(directory) or Manifest(day=day, written_at="")
        if there:
            directory.mkdir(parents=True, exist_ok=True)
            manifests.remove_parts(directory)
        for underlying in only or there:
            slice_export = SliceExport(self._database, directory, day, underlying)
            done, exported = await slice_export.run(stored.underlyings.get(underlying))
            if done is not None:
                # Between these two the manifest speaks neither of the old files nor of the new.
                stored = self._put(directory, stored, underlying, None)
                slice_export.put_in_place()
                stored = self._put(directory, stored, underlying, done)
            yield exported
        is_complete = bool(there) and stored.underlyings.keys() >= set(there)
        if is_complete and not stored.complete:
            manifests.write_manifest(directory, msgspec.structs.replace(stored, complete=True))

    async def _underlyings(self, day: date) -> list[str]:
        start, end = bounds(day)
        rows = await self._database.fetch("underlyings_of_day", start=start, end=end)
        return [row["underlying"] for row in rows]

    def _put(
        self, directory: Path, stored: Manifest, underlying: str, slice: Slice | None
    ) -> Manifest:
        """The manifest with that slice, or without that underlying, on the disk."""
        slices = {name: one for name, one in stored.underlyings.items() if name != underlying}
        if slice is not None:
            slices[underlying] = slice
        changed = msgspec.structs.replace(
            stored,
            underlyings=dict(sorted(slices.items())),
            complete=False,
            written_at=to_rfc3339(self._now_ns),
        )
        if slice is not None or underlying in stored.underlyings:
            manifests.write_manifest(directory, changed)
        return changed
