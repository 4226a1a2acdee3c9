"""Enriched chains as bytes: the frame on the bus, and the JSON that clients get.

A frame is a msgpack map `{"h": header, "c": {column: bytes}}`; a column is its raw little-endian
elements in the dtype that `LEG_COLUMNS` declares. Columns a reader does not know are kept out of
its way; columns an older writer did not know come back absent. The same chain always encodes to
the same bytes.
"""

import math
from typing import Any

import msgspec
import numpy as np

from pipeline.errors import DecodeError
from pipeline.models import (
    LEG_COLUMNS,
    NULL_INTEGER,
    ChainHeader,
    EnrichedChain,
    Expiries,
    Kind,
    Legs,
    MarketSnapshot,
    contract_symbols,
    empty_column,
)


class _Frame(msgspec.Struct, frozen=True):
    h: ChainHeader
    c: dict[str, bytes]


_pack = msgspec.msgpack.Encoder()
_unpack_frame = msgspec.msgpack.Decoder(_Frame)
_unpack_expiries = msgspec.msgpack.Decoder(Expiries)
_json = msgspec.json.Encoder()

# How an enumerated column reads in client JSON.
_KIND_WORDS = {int(Kind.CALL): "call", int(Kind.PUT): "put"}
ROW_FIELDS: tuple[str, ...] = ("symbol", *(column.name for column in LEG_COLUMNS))


def encode_frame(chain: EnrichedChain) -> bytes:
    """The chain as a frame."""
    columns = {spec.name: _column_bytes(chain.legs[spec.name], spec.dtype) for spec in LEG_COLUMNS}
    return _pack.encode(_Frame(chain.header, columns))


def decode_frame(data: bytes) -> EnrichedChain:
    """The chain in a frame; its columns are read-only views. Raises DecodeError."""
    try:
        frame = _unpack_frame.decode(data)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a chain frame: {error}") from error
    n = frame.h.n
    legs: dict[str, np.ndarray[Any, Any]] = {}
    for spec in LEG_COLUMNS:
        column = frame.c.get(spec.name)
        if column is None:
            legs[spec.name] = empty_column(spec, n)
            continue
        if len(column) != n * np.dtype(spec.dtype).itemsize:
            raise DecodeError(f"column {spec.name}: {len(column)} bytes for {n} legs")
        legs[spec.name] = np.frombuffer(column, spec.dtype)
    return EnrichedChain(frame.h, legs)


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
    columns = [_client_values(chain.legs, spec.name) for spec in LEG_COLUMNS]
    symbols = contract_symbols(chain.header.chain, chain.legs)
    return [
        dict(zip(ROW_FIELDS, values, strict=True)) for values in zip(symbols, *columns, strict=True)
    ]


class ChainJson(msgspec.Struct, frozen=True):
    """The client JSON of a chain: under its own id, and a text for each contract."""

    chain: bytes
    underlying: bytes
    contracts: dict[str, bytes]


class Position(msgspec.Struct, frozen=True):
    """Where in the enriched stream a value comes from; orders and links updates."""

    epoch: str
    seq: int
    ts_enrich: int


class LatestChain(msgspec.Struct, frozen=True):
    """What `latest:<chain>` holds; `rows` stays encoded so that it can be served as it is."""

    type: str
    symbol: str
    position: Position
    header: ChainHeader
    rows: msgspec.Raw


class LatestContract(msgspec.Struct, frozen=True):
    """What `latest:<contract>` holds: one leg, with what holds for its whole chain."""

    type: str
    symbol: str
    position: Position
    chain: str
    ts_ingest: int
    ts_event: int | None
    spot: float | None
    forward: float | None
    row: msgspec.Raw


class LatestUnderlying(msgspec.Struct, frozen=True):
    """What `latest:<underlying>` holds."""

    type: str
    symbol: str
    position: Position
    snapshot: MarketSnapshot


def encode_client_json(
    chain: EnrichedChain, snapshot: MarketSnapshot, position: Position
) -> ChainJson:
    """Every client text of a chain snapshot, each leg encoded once."""
    header = chain.header
    rows = leg_rows(chain)
    encoded = [_json.encode(row) for row in rows]
    whole = LatestChain(
        "chain", header.chain, position, header, msgspec.Raw(b"[" + b",".join(encoded) + b"]")
    )
    contracts = {}
    for row, text in zip(rows, encoded, strict=True):
        contracts[row["symbol"]] = _json.encode(
            LatestContract(
                "contract",
                row["symbol"],
                position,
                header.chain,
                header.ts_ingest,
                header.ts_event,
                header.spot,
                header.forward,
                msgspec.Raw(text),
            )
        )
    underlying = LatestUnderlying("underlying", header.underlying, position, snapshot)
    return ChainJson(_json.encode(whole), _json.encode(underlying), contracts)


def _column_bytes(column: np.ndarray[Any, Any], dtype: str) -> bytes:
    return np.ascontiguousarray(column, dtype).tobytes()


def _client_values(legs: Legs, name: str) -> list[Any]:
    column = legs[name]
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        if column.dtype.itemsize == 4:  # the provider's five printed digits, not their f4 tail
            values = [float(f"{value:.7g}") for value in values]
        return [value if math.isfinite(value) else None for value in values]
    if name == "kind":
        return [_KIND_WORDS.get(value) for value in values]
    if column.dtype.itemsize == 8:
        return [None if value == NULL_INTEGER else value for value in values]
    return values
