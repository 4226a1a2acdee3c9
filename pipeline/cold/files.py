"""Files of the cold store: one dataset of one underlying and day, as Parquet.

A file that is being written has a name of its own until it is whole. Opens no database.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pipeline.cold.datasets import CONTRACTS, LEDGER, Dataset
from pipeline.cold.lines import Line, SnapshotKey, line_of
from pipeline.cold.tables import check_schema, schema_of
from pipeline.errors import ColdStoreError
from pipeline.models import chain_symbol

COMPRESSION = "zstd"
# Few different values stand in these columns of legs. In the others dictionaries only cost: without
# them a leg takes 24 bytes in place of 39, and a third of the time; floats lie byte by byte.
_REPEATED = frozenset(
    ("ts", "symbol", "expiry", "strike", "kind", "provider", "rev", "previous_close")
) | frozenset(("iv_status", "price_source", "greeks_source", "instrument_id"))


def part_of(path: Path) -> Path:
    """Where a file is written before it is whole."""
    return path.with_name(f"{path.name}.part")


@contextlib.contextmanager
def written(path: Path, dataset: Dataset) -> Iterator[parquet.ParquetWriter]:
    """A writer for a file of a dataset, which is there under its part's name afterwards."""
    layout: dict[str, Any] = {}
    if dataset is CONTRACTS:
        reals = [name for name, kind in dataset.columns if kind == "real"]
        layout["use_dictionary"] = sorted(_REPEATED)
        layout["use_byte_stream_split"] = [name for name in reals if name not in _REPEATED]
    with parquet.ParquetWriter(
        part_of(path), schema_of(dataset), compression=COMPRESSION, store_schema=True, **layout
    ) as writer:
        yield writer


@contextlib.contextmanager
def opened(path: Path, dataset: Dataset) -> Iterator[parquet.ParquetFile]:
    """A file to be read. Raises ColdStoreError, also for what goes wrong while it is read."""
    try:
        with parquet.ParquetFile(path) as file:
            check_schema(str(path), file.schema_arrow, dataset)
            yield file
    except (OSError, pa.ArrowException) as error:
        raise ColdStoreError(f"{path}: {error}") from error


def read_whole(path: Path, dataset: Dataset) -> pa.Table:
    """A small file as one table. Raises ColdStoreError."""
    with opened(path, dataset) as file:
        return file.read()


def lines_of(ledger: pa.Table) -> list[Line]:
    """Lines of the ledger, in the order of their file. Raises ColdStoreError."""
    columns = [
        ledger["ts"].cast(pa.int64()) if name == "ts" else ledger[name] for name in LEDGER.names
    ]
    return [line_of(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]


def snapshot_keys(underlying: str, snapshots: pa.Table) -> list[SnapshotKey]:
    """What snapshots are known by, in the order of their file."""
    columns = (
        snapshots["ts"].cast(pa.int64()),
        *(snapshots[n] for n in ("expiry", "provider", "rev")),
    )
    chains = {
        expiry: chain_symbol(underlying, expiry)
        for expiry in snapshots["expiry"].unique().to_pylist()
    }
    return [
        SnapshotKey(ts, chains[expiry], provider, rev)
        for ts, expiry, provider, rev in zip(*(c.to_pylist() for c in columns), strict=True)
    ]
