"""Enriched chains as bytes: the frame on the bus, and the JSON that clients get.

A frame is a msgpack map `{"h": header, "c": {column: bytes}}`; a column is its raw little-endian
elements in the dtype that `LEG_COLUMNS` declares. Columns a reader does not know are kept out of
its way; columns an older writer did not know come back absent. The same chain always encodes to
the same bytes.
"""

import functools
from collections.abc import Iterator
from itertools import starmap
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from pipeline.errors import DecodeError
from pipeline.models import (
    LEG_COLUMNS,
    NULL_INTEGER,
    ChainHeader,
    Column,
    EnrichedChain,
    Expiries,
    Kind,
    MarketSnapshot,
    contract_symbols,
    empty_column,
)


class _Frame(msgspec.Struct, frozen=True):
    h: ChainHeader
    # Copies, since views would be objects that the garbage collector looks after: 28 a frame cost
    # a reader three times what the copying does.
    c: dict[str, bytes]


_pack = msgspec.msgpack.Encoder()
_unpack_frame = msgspec.msgpack.Decoder(_Frame)
_unpack_expiries = msgspec.msgpack.Decoder(Expiries)
_json = msgspec.json.Encoder()

_SPECS = {spec.name: spec for spec in LEG_COLUMNS}
_DTYPES = {spec.name: np.dtype(spec.dtype) for spec in LEG_COLUMNS}
_BYTES_PER_LEG = {name: dtype.itemsize for name, dtype in _DTYPES.items()}
_NAMES = tuple(_DTYPES)
# How an enumerated column reads in client JSON.
_KIND_WORDS = {int(Kind.CALL): "call", int(Kind.PUT): "put"}
ROW_FIELDS: tuple[str, ...] = ("symbol", *(column.name for column in LEG_COLUMNS))
_FIELD_TYPES = {"f": float | None, "i": int | None, "u": int | None}

if TYPE_CHECKING:

    class Leg(msgspec.Struct, frozen=True):
        """For type checkers: the fields come from `LEG_COLUMNS`, which they cannot read."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Leg = msgspec.defstruct(
        "Leg",
        [("symbol", str), ("strike", float), ("kind", str)]
        + [
            (spec.name, _FIELD_TYPES[_DTYPES[spec.name].kind], None)
            for spec in LEG_COLUMNS
            if spec.name not in ("strike", "kind")
        ],
        frozen=True,
        gc=False,
        module=__name__,
        namespace={
            "__doc__": "One leg: `symbol` and the columns of `LEG_COLUMNS`; absent is None, kind is"
            " `call` or `put`."
        },
    )

# A percentage printed in full reads well to seven digits of its decimal; Greeks come with five.
_PROVIDER_DIGITS = {"iv_provider": 7} | dict.fromkeys(
    ("delta_provider", "gamma_provider", "theta_provider", "vega_provider"), 5
)


def encode_frame(chain: EnrichedChain) -> bytes:
    """The chain as a frame."""
    columns = {spec.name: _column_bytes(chain.legs[spec.name], spec.dtype) for spec in LEG_COLUMNS}
    return _pack.encode(_Frame(chain.header, columns))


def decode_frame(data: bytes) -> EnrichedChain:
    """The chain in a frame; its columns are read-only views. Raises DecodeError."""
    header, columns = open_frame(data)
    legs = {  # as `decode_column`, whose calls would cost as much as a fifth of this
        name: np.frombuffer(columns[name], dtype)
        if name in columns
        else empty_column(_SPECS[name], header.n)
        for name, dtype in _DTYPES.items()
    }
    return EnrichedChain(header, legs)


def open_frame(data: bytes) -> tuple[ChainHeader, dict[str, bytes]]:
    """The header of a frame and the bytes of its columns, each as long as it must be.

    Raises DecodeError.
    """
    try:
        frame = _unpack_frame.decode(data)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a chain frame: {error}") from error
    n = frame.h.n
    if (*frame.c,) == _NAMES and [*map(len, frame.c.values())] == _lengths(n):
        return frame.h, frame.c
    for name, column in frame.c.items():
        width = _BYTES_PER_LEG.get(name)
        if width is not None and len(column) != n * width:
            raise DecodeError(f"column {name}: {len(column)} bytes for {n} legs")
    return frame.h, frame.c


@functools.lru_cache(64)
def _lengths(legs: int) -> list[int]:
    """How long the columns are that we write, in their order."""
    return [legs * width for width in _BYTES_PER_LEG.values()]


def decode_column(column: bytes | None, name: str, length: int) -> Column:
    """A column of an open frame; absent in every leg where the frame does not have it.

    Raises KeyError for a name that `LEG_COLUMNS` does not have.
    """
    if column is None:
        return empty_column(_SPECS[name], length)
    return np.frombuffer(column, _DTYPES[name])


def encode_expiries(expiries: Expiries) -> bytes:
    """The listed expiries as msgpack."""
    return _pack.encode(expiries)


def decode_expiries(data: bytes) -> Expiries:
    """The listed expiries of an entry. Raises DecodeError."""
    try:
        return _unpack_expiries.decode(data)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a list of expiries: {error}") from error


def leg_rows(chain: EnrichedChain) -> list[dict[str, Any]]:
    """One dict a leg, keys as `ROW_FIELDS`: absent is None, kind is `call` or `put`."""
    return [
        dict(zip(ROW_FIELDS, values, strict=True)) for values in _row_values(chain, _symbols(chain))
    ]


def legs_of(chain: EnrichedChain) -> list[Leg]:
    """One struct a leg, its fields as `ROW_FIELDS`; absent is None."""
    return list(starmap(Leg, _row_values(chain, _symbols(chain))))


class ChainJson(msgspec.Struct, frozen=True):
    """The client JSON of a chain: under its own id, and a text for each contract."""

    chain: bytes
    underlying: bytes
    contracts: dict[str, bytes]


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where in the enriched stream a value comes from; orders and links updates.

    `prev` is the `seq` of the symbol's update before; 0 where that is not known, None where nobody
    says.
    """

    epoch: str
    seq: int
    ts_enrich: int
    prev: int | None = None


class LatestChain(msgspec.Struct, frozen=True):
    """What `latest:<chain>` holds; `rows` stays encoded so that it can be served as it is."""

    type: str
    symbol: str
    position: Position
    header: ChainHeader
    rows: msgspec.Raw


class LatestContract(msgspec.Struct, frozen=True, kw_only=True):
    """What `latest:<contract>` holds: one leg, with what holds for its whole chain."""

    type: str
    chain: str
    position: Position
    ts_ingest: int
    ts_event: int | None
    spot: float | None
    forward: float | None
    symbol: str
    row: msgspec.Raw


class LatestUnderlying(msgspec.Struct, frozen=True):
    """What `latest:<underlying>` holds."""

    type: str
    symbol: str
    position: Position
    snapshot: MarketSnapshot


def encode_client_json(
    chain: EnrichedChain,
    snapshot: MarketSnapshot,
    position: Position,
    underlying_prev: int | None = None,
) -> ChainJson:
    """Every client text of a chain snapshot, each leg encoded once.

    `position` is that of the chain and its contracts; the update of the underlying before this one
    may have been another.
    """
    header = chain.header
    symbols = _symbols(chain)
    rows = [_json.encode(row) for row in starmap(Leg, _row_values(chain, symbols))]
    shared = LatestContract(
        type="contract",
        chain=header.chain,
        position=position,
        ts_ingest=header.ts_ingest,
        ts_event=header.ts_event,
        spot=header.spot,
        forward=header.forward,
        symbol="",
        row=msgspec.Raw(b"null"),
    )
    # Five hundred texts that differ in two places: encoded once, and put together for each.
    before, between, after = _json.encode(shared).rpartition(b'"","row":null')
    if not between or after != b"}":
        raise AssertionError("symbol and row must be the last fields of LatestContract")
    contracts = {
        symbol: b'%s"%s","row":%s}' % (before, symbol.encode(), row)
        for symbol, row in zip(symbols, rows, strict=True)
    }
    whole = LatestChain(
        "chain", header.chain, position, header, msgspec.Raw(b"[" + b",".join(rows) + b"]")
    )
    spoken = msgspec.structs.replace(position, prev=underlying_prev)
    underlying = LatestUnderlying("underlying", header.underlying, spoken, snapshot)
    return ChainJson(_json.encode(whole), _json.encode(underlying), contracts)


def _symbols(chain: EnrichedChain) -> list[str]:
    return contract_symbols(chain.header.chain, chain.legs)


def _row_values(chain: EnrichedChain, symbols: list[str]) -> Iterator[tuple[Any, ...]]:
    columns = [_client_values(chain.legs[spec.name], spec.name) for spec in LEG_COLUMNS]
    return zip(symbols, *columns, strict=True)


def _column_bytes(column: np.ndarray[Any, Any], dtype: str) -> bytes:
    return np.ascontiguousarray(column, dtype).tobytes()


def _client_values(column: Column, name: str) -> list[Any]:
    if column.dtype.kind == "f":
        if column.dtype.itemsize == 4:  # the digits the provider printed, not their f4 tail
            column = np.round(column.astype(np.float64), _PROVIDER_DIGITS[name])
        values: list[Any] = column.tolist()
        if np.isfinite(column).all():
            return values
        return [value if -inf < value < inf else None for value in values]
    values = column.tolist()
    if name == "kind":
        return [_KIND_WORDS.get(value) for value in values]
    if column.dtype.itemsize == 8 and NULL_INTEGER in values:
        return [None if value == NULL_INTEGER else value for value in values]
    return values
