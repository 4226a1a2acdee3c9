"""Columns of a COPY as Arrow tables, and the schemas of the files.

A value is never changed on its way, only its epoch: Postgres counts from 2000, Arrow from 1970.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.cold.datasets import CONTRACTS, OF_INSTRUMENT, SCHEMA_VERSION, SENT_LEGS, Dataset
from pipeline.columns import values
from pipeline.errors import ColdStoreError
from pipeline.kernels.copyread import Field
from pipeline.packing import EPOCH_US

EPOCH_DAYS = EPOCH_US // 86_400_000_000

_TYPES: dict[str, pa.DataType] = {
    "timestamptz": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "smallint": pa.int16(),
    "double precision": pa.float64(),
    "real": pa.float32(),
    "text": pa.string(),
}
_WORDS = pa.dictionary(pa.int32(), pa.string())  # the few different texts of many legs


def schema_of(dataset: Dataset) -> pa.Schema:
    """The schema of a dataset's files."""
    return pa.schema(
        [
            pa.field(name, _WORDS if dataset is CONTRACTS and kind == "text" else _TYPES[kind])
            for name, kind in dataset.columns
        ],
        metadata={"stockify.dataset": dataset.name, "stockify.schema_version": str(SCHEMA_VERSION)},
    )


def table_of(dataset: Dataset, rows: int, fields: Sequence[Field]) -> pa.Table:
    """Rows of a dataset as the server sent them."""
    columns = [_array(field, kind, rows) for field, kind in zip(fields, dataset.types, strict=True)]
    return pa.table(columns, schema=schema_of(dataset))


class Legs:
    """Turns legs as the server sends them into rows that can be read alone."""

    def __init__(self, instruments: pa.Table) -> None:
        self._instruments = instruments
        ids = instruments["instrument_id"].to_numpy()
        self._order = np.argsort(ids)
        self._sorted = ids[self._order]
        self._is_used = np.zeros(len(ids), np.bool_)

    def table(self, rows: int, fields: Sequence[Field]) -> pa.Table:
        """The legs of this underlying, in the order of their file; those of others are left out."""
        sent = {
            name: _array(field, kind, rows)
            for (name, kind), field in zip(SENT_LEGS, fields, strict=True)
        }
        place, is_ours = self._places(sent["instrument_id"].to_numpy())
        self._is_used[place[is_ours]] = True
        if not is_ours.all():
            mask = pa.array(is_ours)
            sent = {name: column.filter(mask) for name, column in sent.items()}
            place = place[is_ours]
        # Only the words that occur: a file's dictionaries are written anew for every row group.
        used, codes = np.unique(place, return_inverse=True)
        indexes = pa.array(codes.astype(np.int32))
        for name, kind in OF_INSTRUMENT:
            words = self._instruments[name].take(pa.array(used)).combine_chunks()
            if kind == "text":
                sent[name] = _words(words, indexes)
            else:
                sent[name] = words.take(indexes)
        return pa.table([sent[name] for name in CONTRACTS.names], schema=schema_of(CONTRACTS))

    def definitions(self) -> pa.Table:
        """Every definition of those contracts of which a leg was seen."""
        names = [f"{name}@{of}" for name, of in _symbols(self._instruments)]
        seen = {
            name for name, is_used in zip(names, self._is_used.tolist(), strict=True) if is_used
        }
        return self._instruments.filter(pa.array([name in seen for name in names], pa.bool_()))

    def _places(self, ids: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """For each leg the line of its instrument, and whether it is one of this underlying."""
        if not len(self._sorted):
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), np.bool_)
        found = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        return self._order[found], self._sorted[found] == ids


def check_schema(what: str, found: pa.Schema, dataset: Dataset) -> None:
    """Raise ColdStoreError unless a file has the columns of its dataset."""
    if not found.equals(schema_of(dataset)):
        raise ColdStoreError(f"{what} has not the columns of {dataset.name}")


def _symbols(instruments: pa.Table) -> list[tuple[str, str]]:
    return list(
        zip(instruments["symbol"].to_pylist(), instruments["provider"].to_pylist(), strict=True)
    )


def _words(words: pa.Array, indexes: pa.Array) -> pa.Array:
    """A column of texts of which each stands once in memory."""
    encoded = words.dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(indexes), encoded.dictionary)


def _array(field: Field, kind: str, rows: int) -> pa.Array:
    """A column, without a copy of its values."""
    is_null = field.is_null
    nulls = int(np.count_nonzero(is_null))
    validity = pa.py_buffer(np.packbits(~is_null, bitorder="little")) if nulls else None
    buffers: list[Any] = [validity]
    if field.offsets is not None:
        buffers += [pa.py_buffer(field.offsets), pa.py_buffer(field.values)]
    else:
        column = values(field, kind)
        if kind == "timestamptz":
            column += EPOCH_US
        elif kind == "date":
            column += np.int32(EPOCH_DAYS)
        buffers.append(pa.py_buffer(column))
    return pa.Array.from_buffers(_TYPES[kind], rows, buffers, nulls)
