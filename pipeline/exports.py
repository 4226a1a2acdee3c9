"""Stored rows of a range, of any number, as Arrow record batches, one of them in memory at a time.

Legs and ticks come as COPY sends them: their rows are all of one length, so that a block of them
is a numpy array as it stands. The other datasets have few rows and come as rows. All of an export
is one state of the database. Writes nothing, and knows no format of files.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.clock import to_datetime
from pipeline.database import Database, Row, Session
from pipeline.errors import DecodeError
from pipeline.units import unit_metadata

BATCH_ROWS = 32_768  # of a batch: some 7 MB as the server sends them
BLOCK_BYTES = 128 * 1024  # taken in one go: about a millisecond
EPOCH_US = 946_684_800_000_000  # 2000-01-01 UTC, where Postgres counts from, in µs since 1970
_NO_INSTANT = -(2**63)  # -infinity

TYPES: dict[str, pa.DataType] = {
    "timestamptz": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "smallint": pa.int16(),
    "double precision": pa.float64(),
    "real": pa.float32(),
    "text": pa.string(),
    "words": pa.dictionary(pa.int32(), pa.string()),  # a few different texts of many rows
}
_SENT = {"timestamptz": ">i8", "bigint": ">i8", "integer": ">i4", "smallint": ">i2", "real": ">f4"}

Columns = tuple[tuple[str, str], ...]
OF_INSTRUMENT: Columns = (
    ("symbol", "words"),
    ("expiry", "date"),
    ("strike", "double precision"),
    ("kind", "words"),
    ("provider", "words"),
)


class Dataset(NamedTuple):
    """What can be exported: `columns` are names and SQL types, `says` is for people.

    `sent` are the columns of a COPY whose rows have one length; those of the instrument are put to
    them. None: it comes as rows.
    """

    name: str
    columns: Columns
    says: str
    sent: Columns | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _ in self.columns)


class Asked(NamedTuple):
    """Which rows and columns are wanted: of [start_ns, end_ns), of an underlying, of an expiry."""

    start_ns: int
    end_ns: int
    underlying: str | None
    expiry: date | None
    fields: tuple[str, ...]


def _named(kind: str, *names: str) -> Columns:
    return tuple((name, kind) for name in names)


_LEGS: Columns = (
    ("ts_ingest", "timestamptz"),
    ("instrument_id", "integer"),
    ("rev", "smallint"),
    *_named("real", "last", "bid", "ask", "average", "previous_close"),
    *_named("integer", "bid_size", "ask_size"),
    ("volume", "bigint"),
    *_named("integer", "open_interest", "previous_open_interest"),
    *_named("real", "iv", "delta", "gamma", "theta", "vega", "rho", "iv_fit", "iv_provider"),
    *_named("real", "delta_provider", "gamma_provider", "theta_provider", "vega_provider"),
    *_named("smallint", "iv_status", "price_source", "greeks_source"),
)
_TICKS: Columns = (
    *_named("timestamptz", "ts_ingest", "ts_event"),
    ("instrument_id", "integer"),
    ("place", "smallint"),
    ("last", "real"),
    ("last_size", "integer"),
    *_named("real", "bid", "ask"),
    *_named("integer", "bid_size", "ask_size"),
    ("volume", "bigint"),
    ("open_interest", "integer"),
)
_SNAPSHOTS: Columns = (
    *_named("timestamptz", "ts_ingest", "ts_event", "ts_enrich"),
    ("epoch", "text"),
    ("seq", "bigint"),
    *_named("text", "underlying", "chain"),
    ("expiry", "date"),
    ("provider", "text"),
    ("rev", "smallint"),
    ("model", "text"),
    *_named("double precision", "rate", "years", "spot", "forward", "discount"),
    ("forward_source", "text"),
    ("forward_pairs", "integer"),
    ("forward_residual", "double precision"),
    *_named("integer", "lot", "n"),
    *_named("double precision", "atm_strike", "atm_iv"),
    *_named("double precision", "put_call_ratio_open_interest", "put_call_ratio_volume"),
    *_named("bigint", "call_open_interest", "put_open_interest"),
    *_named("double precision", "max_pain", "skew_25_delta", "gamma_exposure", "expected_move"),
    *_named("double precision", "smile_a", "smile_b", "smile_rho", "smile_m", "smile_sigma"),
    ("smile_error", "double precision"),
    ("smile_points", "integer"),
    ("smile_status", "text"),
)
_DEFINITIONS: Columns = (
    ("instrument_id", "integer"),
    *_named("text", "symbol", "underlying"),
    ("expiry", "date"),
    ("strike", "double precision"),
    *_named("text", "kind", "provider"),
    ("security_id", "bigint"),
    ("lot", "integer"),
    *_named("timestamptz", "valid_from", "valid_to"),
)


def _with_instrument(sent: Columns) -> Columns:
    rest = [column for column in sent if column[0] not in ("ts_ingest", "instrument_id")]
    return (("ts_ingest", "timestamptz"), *OF_INSTRUMENT, *rest, ("instrument_id", "integer"))


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "option_contracts", _with_instrument(_LEGS), "a row a leg of every snapshot", _LEGS
        ),
        Dataset("market_snapshots", _SNAPSHOTS, "a row a snapshot of a chain"),
        Dataset("instruments", _DEFINITIONS, "definitions of contracts that held in the range"),
        Dataset("ticks", _with_instrument(_TICKS), "a row an update from a live feed", _TICKS),
        Dataset(
            "gaps",
            (
                *_named("timestamptz", "starts", "ends"),
                ("missed", "integer"),
                *_named("text", "symbol", "provider", "cause", "detail"),
            ),
            "time in which snapshots were due and none came, and why",
        ),
        Dataset(
            "coverage",
            (
                ("minute", "timestamptz"),
                *_named("text", "symbol", "provider"),
                *_named("integer", "expected", "present", "missed_upstream", "missed_us"),
            ),
            "snapshots by minute and chain: how many were to come, and how many came",
        ),
    )
}


class Export:
    """The rows of one dataset. `chunks` are read one after the other; `batch` makes of each a
    record batch of `schema`, which takes its time and may be done in a thread."""

    def __init__(
        self, session: Session, dataset: Dataset, asked: Asked, batch_rows: int = BATCH_ROWS
    ) -> None:
        types = dict(dataset.columns)
        self._names = asked.fields or dataset.names
        self.schema = pa.schema(
            [
                pa.field(name, TYPES[types[name]], metadata=unit_metadata(name))
                for name in self._names
            ]
        )
        self._session, self._dataset, self._batch_rows = session, dataset, batch_rows
        self._parameters: Row = {
            "start": to_datetime(asked.start_ns),
            "end": to_datetime(asked.end_ns),
            "underlying": asked.underlying,
            "expiry": asked.expiry,
        }
        self._instruments: _Instruments | None = None

    async def chunks(self) -> AsyncGenerator[Any, None]:
        """What the server sends, some `batch_rows` rows at a time. Raises StoreError."""
        if self._dataset.sent is None:
            query = f"export_{self._dataset.name}"
            async with self._session.stream(query, **self._parameters) as pages:
                async for page in pages:
                    yield page
            return
        self._instruments = await self._defined()
        wide = _layout(self._dataset.sent).itemsize
        asked = self._parameters | {"is_everything": self._is_everything}
        held: list[bytes] = []
        async with self._session.copy_blocks(
            f"export_{self._dataset.name}", block_bytes=BLOCK_BYTES, **asked
        ) as blocks:
            async for block in blocks:
                held.append(block)
                if sum(map(len, held)) >= self._batch_rows * wide:
                    yield held
                    held = []
        if held:
            yield held

    def batch(self, chunk: Any) -> pa.RecordBatch:
        """A chunk as columns. Raises DecodeError where its rows are not what was asked for."""
        if self._instruments is None or self._dataset.sent is None:
            return _of_rows(chunk, self.schema)
        rows = _rows(b"".join(chunk), self._dataset.sent)
        sent = dict(self._dataset.sent)
        places = self._instruments.places(rows["instrument_id"])
        arrays = [
            _column(rows[name], sent[name]) if name in sent else self._instruments.of(name, places)
            for name in self._names
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    @property
    def _is_everything(self) -> bool:
        return self._parameters["underlying"] is None and self._parameters["expiry"] is None

    async def _defined(self) -> "_Instruments":
        """The instruments that rows may have, page by page, as there may be many."""
        names = ("instrument_id", *(name for name, _ in OF_INSTRUMENT))
        types = dict(_DEFINITIONS)
        schema = pa.schema([pa.field(name, TYPES[types[name]]) for name in names])
        async with self._session.stream("instruments_of_export", **self._parameters) as found:
            pages = [_of_rows(page, schema) async for page in found]
        return _Instruments(pa.Table.from_batches(pages, schema))


@contextlib.asynccontextmanager
async def opened(
    database: Database, dataset: Dataset, asked: Asked, batch_rows: int = BATCH_ROWS
) -> AsyncIterator[Export]:
    """An export, for as long as the block lasts; it keeps a connection. Raises StoreError."""
    async with database.session() as session, session.transaction():
        await session.execute("read_one_state")
        yield Export(session, dataset, asked, batch_rows)


class _Instruments:
    """What rows of a number have of their instrument; one that none has defined has nulls."""

    def __init__(self, table: pa.Table) -> None:
        ids = table["instrument_id"].to_numpy()
        self._places = np.full(int(ids.max(initial=0)) + 2, -1, np.int32)
        self._places[ids] = np.arange(len(ids), dtype=np.int32)
        self._words: dict[str, tuple[NDArray[np.int32], pa.Array]] = {}
        self._values: dict[str, tuple[NDArray[Any], Any]] = {}
        for name, kind in OF_INSTRUMENT:
            column = table[name].combine_chunks()
            if kind == "words":
                encoded = column.dictionary_encode()
                codes = np.append(encoded.indices.to_numpy(), np.int32(0))
                self._words[name] = codes, encoded.dictionary
            else:
                held = column.cast(pa.int32()) if kind == "date" else column
                values = held.to_numpy()
                self._values[name] = np.append(values, values.dtype.type(0)), TYPES[kind]

    def places(self, ids: NDArray[Any]) -> NDArray[np.int32]:
        """Where the instruments of these numbers stand, -1 for one that is not known."""
        return self._places[np.minimum(ids.astype(np.int32), len(self._places) - 1)]

    def of(self, name: str, places: NDArray[np.int32]) -> pa.Array:
        """A column of the instruments at these places."""
        is_null = places < 0
        if name in self._words:
            codes, words = self._words[name]
            return pa.DictionaryArray.from_arrays(
                _array(codes[places], is_null, pa.int32()), words, safe=False
            )
        values, kind = self._values[name]
        return _array(values[places], is_null, kind)


def _layout(sent: Columns) -> np.dtype[Any]:
    """A row as COPY sends it: how many columns, and each behind its length in bytes."""
    fields: list[tuple[str, str]] = [("columns", ">i2")]
    for name, kind in sent:
        fields += [(f"{name} bytes", ">i4"), (name, _SENT[kind])]
    return np.dtype(fields)


def _rows(data: bytes, sent: Columns) -> NDArray[Any]:
    layout = _layout(sent)
    if len(data) % layout.itemsize:
        raise DecodeError("rows of an export are not of one length")
    rows = np.frombuffer(data, layout)
    last = f"{sent[-1][0]} bytes"  # a NULL before it would have moved it
    if (rows["columns"] != len(sent)).any() or (rows[last] != layout[sent[-1][0]].itemsize).any():
        raise DecodeError("rows of an export are not what was asked for")
    return rows


def _of_rows(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(sent: NDArray[Any], kind: str) -> pa.Array:
    """A column of rows: its bytes turned round, what stands for NULL made null."""
    values = sent.astype(sent.dtype.newbyteorder("<"))
    if kind == "real":
        return _array(values, np.isnan(values), TYPES[kind])
    if kind == "timestamptz":
        is_null = values == _NO_INSTANT
        return _array(values + EPOCH_US, is_null, TYPES[kind])
    return _array(values, values < 0, TYPES[kind])


def _array(values: NDArray[Any], is_null: NDArray[np.bool_], kind: Any) -> pa.Array:
    nulls = int(np.count_nonzero(is_null))
    validity = pa.py_buffer(np.packbits(~is_null, bitorder="little")) if nulls else None
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(values)], nulls)
