"""Enriched chains as rows of Postgres: which leg column stands where in COPY, and the other rows.

The orders here are those of the `copy_…` queries in `sql/queries.sql`, and the bounds those of the
tables' checks. Opens nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.frames import decode_column
from pipeline.kernels import copyrows
from pipeline.kernels.copyrows import Bounds, Columns
from pipeline.models import (
    NULL_INTEGER,
    ChainHeader,
    GreeksSource,
    IvStatus,
    PriceSource,
    Smile,
)
from pipeline.packing import EPOCH_US, RowPacker

# Leg columns by their width in Postgres; `ts`, `instrument_id` and `rev` come from elsewhere.
WIDES = ("volume",)
INTEGERS = ("bid_size", "ask_size", "open_interest", "previous_open_interest")
DOUBLES = (
    *("last", "bid", "ask", "average", "previous_close"),
    *("iv", "delta", "gamma", "theta", "vega", "rho", "iv_fit"),
)
SINGLES = ("iv_provider", "delta_provider", "gamma_provider", "theta_provider", "vega_provider")
SHORTS = ("iv_status", "price_source", "greeks_source")
COPY_COLUMNS = ("ts", *WIDES, "instrument_id", *INTEGERS, *DOUBLES, *SINGLES, "rev", *SHORTS)
NO_INSTRUMENT = -1  # of a leg that is no contract

POSITIVE = frozenset(
    ("last", "bid", "ask", "average", "previous_close", "iv", "iv_fit", "iv_provider")
)
_ANY_INSTANT = NULL_INTEGER + 1
_BOUNDS = Bounds(
    least_wides=np.array([_ANY_INSTANT, *(0 for _ in WIDES)], np.int64),
    least_integers=np.array([NO_INSTRUMENT + 1, *(0 for _ in INTEGERS)], np.int64),
    positive_doubles=np.array([name in POSITIVE for name in DOUBLES]),
    positive_singles=np.array([name in POSITIVE for name in SINGLES]),
    most_shorts=np.array([2**15 - 1, max(IvStatus), max(PriceSource), max(GreeksSource)], np.int16),
)
_FIRST_ROOM = 4 * 1024 * 1024
_NO_SMILE = (None,) * len(Smile.__struct_fields__)

_SNAPSHOT_TYPES = (
    *("timestamptz", "timestamptz", "timestamptz", "bigint", "bigint", "bigint"),
    *("double precision",) * 11,
    *("date", "integer", "integer", "integer", "smallint"),
    *("text",) * 5,
    *("double precision",) * 9,
    *("integer", "text"),
)
_LEDGER_TYPES = ("text", "text", "timestamptz", "integer", "smallint")
snapshots = RowPacker(_SNAPSHOT_TYPES)
ledger = RowPacker(_LEDGER_TYPES)


class StoredChain(msgspec.Struct, frozen=True):
    """A chain to be stored: its frame, what came in its entry beside it, its legs' instruments.

    `instrument_ids` is NO_INSTRUMENT for a leg that is no contract; `columns` are the frame's.
    """

    header: ChainHeader
    columns: Mapping[str, bytes]
    epoch: str
    seq: int
    ts_enrich: int | None
    instrument_ids: NDArray[np.int32]


class LegEncoder:
    """Writes legs as a binary COPY into a buffer that it keeps: use one result before the next."""

    def __init__(self) -> None:
        self._buffer = np.empty(_FIRST_ROOM, np.uint8)

    def encode(
        self, chains: Sequence[StoredChain], left_out: NDArray[np.bool_] | None = None
    ) -> tuple[memoryview, NDArray[np.bool_]]:
        """The legs of chains, in order, and for each leg whether it was left out.

        Those are `left_out` and what no row can hold.
        """
        if not chains:
            return memoryview(copyrows.HEADER + copyrows.TRAILER), np.zeros(0, np.bool_)
        columns = _columns(chains)
        total = columns.wides.shape[1]
        misfits = np.zeros(total, np.bool_) if left_out is None else left_out.copy()
        needed = copyrows.room(total, columns)
        if needed > len(self._buffer):
            self._buffer = np.empty(needed + needed // 4, np.uint8)
        length = copyrows.encode(self._buffer, columns, _BOUNDS, misfits)
        return self._buffer.data[:length], misfits


def _columns(chains: Sequence[StoredChain]) -> Columns:
    """The columns of all legs: those of one dtype are joined as they came and read in one piece."""
    headers = [chain.header for chain in chains]
    counts = [header.n for header in headers]
    total = sum(counts)
    integers = _joined(chains, (*WIDES, *INTEGERS), np.dtype("<i8"), total)
    wides = np.empty((1 + len(WIDES), total), np.int64)
    wides[0] = np.repeat([header.ts_ingest // 1_000 - EPOCH_US for header in headers], counts)
    wides[1:] = integers[: len(WIDES)]
    narrow = np.empty((1 + len(INTEGERS), total), np.int64)
    np.concatenate([chain.instrument_ids for chain in chains], out=narrow[0])
    narrow[1:] = integers[len(WIDES) :]
    shorts = np.empty((1 + len(SHORTS), total), np.int16)
    shorts[0] = np.repeat([header.rev for header in headers], counts)
    shorts[1:] = _joined(chains, SHORTS, np.dtype("|u1"), total)
    return Columns(
        wides=wides,
        integers=narrow,
        doubles=_joined(chains, DOUBLES, np.dtype("<f8"), total),
        singles=_joined(chains, SINGLES, np.dtype("<f4"), total),
        shorts=shorts,
    )


def _joined(
    chains: Sequence[StoredChain], names: Sequence[str], dtype: np.dtype[Any], total: int
) -> NDArray[Any]:
    """Columns of one dtype as a matrix (columns, legs)."""
    pieces = [
        chain.columns[name] if name in chain.columns else _absent(name, chain.header.n)
        for name in names
        for chain in chains
    ]
    return np.frombuffer(b"".join(pieces), dtype).reshape(len(names), total)


def _absent(name: str, length: int) -> bytes:
    """A column that an older writer did not know."""
    return decode_column(None, name, length).tobytes()


def misfit_reason(chain: StoredChain, leg: int) -> str:
    """Why no row can hold a leg, which was left out."""
    if chain.instrument_ids[leg] == NO_INSTRUMENT:
        return "its strike and kind are no contract's, or stand in the chain twice"
    wrong = []
    for name in (*WIDES, *INTEGERS, *DOUBLES, *SINGLES, *SHORTS):
        column = decode_column(chain.columns.get(name), name, chain.header.n)
        value = column[leg].item()
        if not _fits(name, value):
            wrong.append(f"{name} {value}")
    return f"no row can hold {', '.join(wrong)}" if wrong else "Postgres refused it"


def _fits(name: str, value: float) -> bool:
    if name in SHORTS:
        return value <= int(_BOUNDS.most_shorts[1 + SHORTS.index(name)])
    if name in DOUBLES or name in SINGLES:
        with np.errstate(over="ignore", under="ignore"):
            stored = float(np.float32(value))
        is_held = abs(stored) < np.inf and (name not in POSITIVE or stored > 0)
        return is_held or math.isnan(stored)
    return value == NULL_INTEGER or 0 <= value < (2**63 if name in WIDES else 2**31)


def snapshot_row(stored: StoredChain) -> tuple[Any, ...]:
    """The row of a chain's snapshot in `market_snapshots`; instants are ns."""
    header = stored.header
    totals = header.aggregates
    return (
        *(header.ts_ingest, header.ts_event, stored.ts_enrich, stored.seq),
        *(totals.call_open_interest, totals.put_open_interest),
        *(header.spot, header.forward, header.discount, header.years, header.rate),
        *(header.forward_residual, totals.atm_strike, totals.atm_iv),
        *(totals.put_call_ratio_open_interest, totals.put_call_ratio_volume, totals.max_pain),
        *(header.expiry, header.lot, header.forward_pairs, header.n, header.rev),
        *(header.underlying, header.provider, stored.epoch, header.model, header.forward_source),
        *(totals.skew_25_delta, totals.gamma_exposure, totals.expected_move),
        *(_NO_SMILE if header.smile is None else msgspec.structs.astuple(header.smile)),
    )


def warmup() -> None:
    """Compile the encoder, or load it from its cache, so that the first batch need not wait."""
    columns = Columns(
        wides=np.zeros((1 + len(WIDES), 1), np.int64),
        integers=np.zeros((1 + len(INTEGERS), 1), np.int64),
        doubles=np.zeros((len(DOUBLES), 1), np.float64),
        singles=np.zeros((len(SINGLES), 1), np.float32),
        shorts=np.zeros((1 + len(SHORTS), 1), np.int16),
    )
    # Columns that were joined are read-only, which is another type to the compiler.
    columns.doubles.flags.writeable = columns.singles.flags.writeable = False
    buffer = np.empty(copyrows.room(1, columns), np.uint8)
    copyrows.encode(buffer, columns, _BOUNDS, np.zeros(1, np.bool_))
