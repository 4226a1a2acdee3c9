"""Groups of legs on their way from a file into Postgres, each with all that belongs to it.

A group is committed as a whole: legs, snapshots, lines of the ledger and the count of snapshots by
minute. Opens no transaction itself.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from pipeline import rows
from pipeline.clock import to_datetime
from pipeline.cold.datasets import SNAPSHOTS
from pipeline.cold.definitions import Numbers
from pipeline.cold.files import snapshot_keys
from pipeline.cold.lines import Line, SnapshotKey
from pipeline.database import Session
from pipeline.errors import ColdStoreError
from pipeline.kernels import copyrows
from pipeline.kernels.copyrows import Bounds, Columns
from pipeline.models import NULL_INTEGER, chain_symbol
from pipeline.packing import EPOCH_US
from pipeline.rows import DOUBLES, INTEGERS, SHORTS, SINGLES, WIDES

_MINUTE_US = 60_000_000
# What the columns hold; the database has its own checks.
_ANYTHING = Bounds(
    least_wides=np.full(1 + len(WIDES), NULL_INTEGER + 1),
    least_integers=np.full(1 + len(INTEGERS), -(2**31)),
    positive_doubles=np.zeros(len(DOUBLES), np.bool_),
    positive_singles=np.zeros(len(SINGLES), np.bool_),
    most_shorts=np.full(1 + len(SHORTS), 2**15 - 1, np.int16),
)


class Group(NamedTuple):
    """Lines to be added, by time, and the legs among which theirs are; None where no leg is."""

    lines: Sequence[Line]
    legs: pa.Table | None


def groups_of(file: parquet.ParquetFile, lines: Sequence[Line]) -> Iterator[Group]:
    """Lines by the row groups that hold their legs; those without any come with a neighbour.

    Row groups none of whose lines is to be added are not read.
    """
    ordered = sorted(lines, key=lambda line: line.ts)
    instants = [line.ts for line in ordered]
    begin = 0
    for number in range(file.num_row_groups):
        last = _last_instant(file, number)
        end = bisect_right(instants, last)
        if end > begin:
            yield Group(ordered[begin:end], file.read_row_group(number))
        begin = end
    if begin < len(ordered):
        yield Group(ordered[begin:], None)


class GroupWriter:
    """Writes groups of one underlying; `stored` are the ids that the ledger had before."""

    def __init__(
        self, underlying: str, snapshots: pa.Table, numbers: Numbers, stored: set[str]
    ) -> None:
        self._underlying, self._numbers = underlying, numbers
        self._snapshots = snapshots
        keys = snapshot_keys(underlying, snapshots)
        self._places = {key: place for place, key in enumerate(keys)}
        self._counted = {id.rpartition(":r")[0] for id in stored}

    async def write(self, session: Session, group: Group) -> int:
        """Write a group in the session's transaction; gives how many legs it had."""
        keys = [line.key for line in group.lines if line.key is not None]
        await session.copy_buffer("copy_market_snapshots", self._packed_snapshots(keys))
        legs = 0
        if group.legs is not None:
            fresh = group.legs.filter(_mask(self._underlying, group.legs, set(keys)))
            legs = fresh.num_rows
            await session.copy_buffer("copy_option_contracts", self._encoded(fresh))
        if legs != (wanted := sum(line.n for line in group.lines)):
            raise ColdStoreError(
                f"{self._underlying}: a group has {legs:,} legs, and its lines tell of {wanted:,}"
            )
        lines = [
            (line.id, line.stream_id, line.ts * 1_000, line.n, line.rejected)
            for line in group.lines
        ]
        await session.copy_buffer("copy_ledger", rows.ledger.pack(lines))
        await self._count_present(session, group.lines)
        return legs

    def _packed_snapshots(self, keys: Sequence[SnapshotKey]) -> bytes:
        table = self._snapshots.take(pa.array([self._places[key] for key in keys], pa.int64()))
        columns: dict[str, list[Any]] = {}
        for name, kind in SNAPSHOTS.columns:
            column = table[name]
            if kind == "timestamptz":
                ticks = column.cast(pa.int64()).to_pylist()
                columns[name] = [None if us is None else us * 1_000 for us in ticks]
            else:
                columns[name] = column.to_pylist()
        place = SNAPSHOTS.names.index("provider")  # the underlying stands before it
        ordered = [columns[name] for name in SNAPSHOTS.names]
        ordered.insert(place, [self._underlying] * len(keys))
        return rows.snapshots.pack(zip(*ordered, strict=True))

    def _encoded(self, legs: pa.Table) -> memoryview:
        instrument_ids = self._numbers.of(legs["instrument_id"].to_numpy())
        instants = legs["ts"].cast(pa.int64()).to_numpy() - EPOCH_US
        wides = [instants, *(_integers(legs[name]) for name in WIDES)]
        integers = [instrument_ids, *(_integers(legs[name]) for name in INTEGERS)]
        shorts = [legs[name].to_numpy() for name in ("rev", *SHORTS)]
        columns = Columns(
            wides=np.array(wides, np.int64),
            integers=np.array(integers, np.int64),
            doubles=np.array([_floats(legs[name]) for name in DOUBLES], np.float64),
            singles=np.array([_floats(legs[name]) for name in SINGLES], np.float32),
            shorts=np.array(shorts, np.int16),
        )
        # The form for which the storage worker has it compiled.
        columns.doubles.flags.writeable = columns.singles.flags.writeable = False
        misfits = np.zeros(legs.num_rows, np.bool_)
        buffer = np.empty(copyrows.room(legs.num_rows, columns), np.uint8)
        length = copyrows.encode(buffer, columns, _ANYTHING, misfits)
        if misfits.any():
            raise ColdStoreError(f"{self._underlying}: no row can hold {misfits.sum():,} legs")
        return buffer.data[:length]

    async def _count_present(self, session: Session, lines: Sequence[Line]) -> None:
        """Count the snapshots of which no revision was there, once for all their revisions."""
        counted: Counter[tuple[int, str, str]] = Counter()
        for line in lines:
            if line.key is None or line.raw_id in self._counted:
                continue
            self._counted.add(line.raw_id)
            counted[line.ts - line.ts % _MINUTE_US, line.key.chain, line.key.provider] += 1
        found = sorted(counted.items())
        await session.execute(
            "count_present",
            minutes=[to_datetime(minute * 1_000) for (minute, _, _), _ in found],
            symbols=[symbol for (_, symbol, _), _ in found],
            providers=[provider for (_, _, provider), _ in found],
            counts=[count for _, count in found],
        )


def _mask(underlying: str, legs: pa.Table, fresh: set[SnapshotKey]) -> pa.Array:
    """Which legs belong to those snapshots."""
    chains = {
        expiry: chain_symbol(underlying, expiry) for expiry in legs["expiry"].unique().to_pylist()
    }
    # A group has few chains, providers and revisions, so that each of their pairings is one code,
    # and an instant and a code are one number.
    parts = [legs[name].combine_chunks().dictionary_encode() for name in ("expiry", "rev")]
    parts.append(legs["provider"].unify_dictionaries().combine_chunks())
    expiries, revs, providers = parts
    instants = legs["ts"].cast(pa.int64()).to_numpy()
    distinct, places = np.unique(instants, return_inverse=True)
    sizes = [len(part.dictionary) for part in parts]
    codes = np.ravel_multi_index(
        [places, *(part.indices.to_numpy() for part in parts)], (len(distinct), *sizes)
    )
    wanted = [
        is_fresh
        for ts in distinct.tolist()
        for expiry in expiries.dictionary.to_pylist()
        for rev in revs.dictionary.to_pylist()
        for provider in providers.dictionary.to_pylist()
        for is_fresh in [SnapshotKey(ts, chains[expiry], provider, rev) in fresh]
    ]
    return pa.array(np.array(wanted, np.bool_)[codes])


def _last_instant(file: parquet.ParquetFile, number: int) -> int:
    """When the last leg of a row group was received, µs; they stand by time."""
    instants = file.read_row_group(number, columns=["ts"])["ts"]
    return int(instants[-1].cast(pa.int64()).as_py())


def _integers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    filled: NDArray[np.int64] = column.cast(pa.int64()).fill_null(NULL_INTEGER).to_numpy()
    return filled


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    filled: NDArray[np.float32] = column.fill_null(np.nan).to_numpy()
    return filled
