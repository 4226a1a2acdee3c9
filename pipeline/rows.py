"""Enriched chains as rows of Postgres: which leg column stands where in COPY, and the snapshot row.

The orders here are those of `copy_option_contracts` and `copy_market_snapshots` in
`sql/queries.sql`. Opens nothing.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.clock import to_datetime
from pipeline.errors import RowsRejected
from pipeline.kernels import copyrows
from pipeline.models import EnrichedChain, Smile

# Leg columns by their width in Postgres; `ts`, `instrument_id` and `rev` come from elsewhere.
WIDES = ("volume",)
INTEGERS = ("bid_size", "ask_size", "open_interest", "previous_open_interest")
REALS = (
    *("last", "bid", "ask", "average", "previous_close"),
    *("iv", "delta", "gamma", "theta", "vega", "rho", "iv_fit"),
    *("iv_provider", "delta_provider", "gamma_provider", "theta_provider", "vega_provider"),
)
SHORTS = ("iv_status", "price_source", "greeks_source")
COPY_COLUMNS = ("ts", *WIDES, "instrument_id", *INTEGERS, *REALS, "rev", *SHORTS)

_EPOCH_US = 946_684_800_000_000  # 2000-01-01 UTC, where Postgres counts from, in µs since 1970
_NO_SMILE = (None,) * len(Smile.__struct_fields__)
_FIRST_ROOM = 4 * 1024 * 1024


class StoredChain(msgspec.Struct, frozen=True):
    """A chain to be stored: what came in its entry beside the frame, and its legs' instruments."""

    chain: EnrichedChain
    epoch: str
    seq: int
    ts_enrich: int | None
    instrument_ids: NDArray[np.int32]


class LegEncoder:
    """Writes legs as a binary COPY into a buffer that it keeps: use one result before the next."""

    def __init__(self) -> None:
        self._buffer = np.empty(_FIRST_ROOM, np.uint8)

    def encode(self, chains: Sequence[StoredChain]) -> memoryview:
        """The legs of chains, in order. Raises RowsRejected naming a leg that does not fit."""
        legs = [stored.chain.legs for stored in chains]
        counts = [len(stored.instrument_ids) for stored in chains]
        headers = [stored.chain.header for stored in chains]
        total = sum(counts)
        wides = np.empty((1 + len(WIDES), total), np.int64)
        wides[0] = np.repeat([h.ts_ingest // 1_000 - _EPOCH_US for h in headers], counts)
        integers = np.empty((1 + len(INTEGERS), total), np.int64)
        np.concatenate([stored.instrument_ids for stored in chains], out=integers[0])
        reals = np.empty((len(REALS), total), np.float32)
        shorts = np.empty((1 + len(SHORTS), total), np.int64)
        shorts[0] = np.repeat([h.rev for h in headers], counts)
        with np.errstate(over="ignore"):  # what a float4 cannot hold becomes infinite: a misfit
            for matrix, first, names in (
                (wides, 1, WIDES),
                (integers, 1, INTEGERS),
                (reals, 0, REALS),
                (shorts, 1, SHORTS),
            ):
                for line, name in enumerate(names, first):
                    np.concatenate(
                        [columns[name] for columns in legs], out=matrix[line], casting="same_kind"
                    )
        widths = (len(wides), len(integers), len(reals), len(shorts))
        needed = copyrows.room(total, *widths)
        if needed > len(self._buffer):
            self._buffer = np.empty(needed + needed // 4, np.uint8)
        length, misfit = copyrows.encode(self._buffer, wides, integers, reals, shorts)
        if misfit >= 0:
            raise RowsRejected(_misfit(chains, misfit))
        return self._buffer.data[:length]


def snapshot_row(stored: StoredChain) -> tuple[Any, ...]:
    """The row of a chain's snapshot in `market_snapshots`."""
    header = stored.chain.header
    totals = header.aggregates
    return (
        to_datetime(header.ts_ingest),
        None if header.ts_event is None else to_datetime(header.ts_event),
        None if stored.ts_enrich is None else to_datetime(stored.ts_enrich),
        stored.seq,
        totals.call_open_interest,
        totals.put_open_interest,
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
    matrices = (np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64))
    reals, shorts = np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64)
    buffer = np.empty(copyrows.room(1, 1, 1, 1, 1), np.uint8)
    copyrows.encode(buffer, *matrices, reals, shorts)


def _misfit(chains: Sequence[StoredChain], row: int) -> str:
    """Which leg of which chain a row is, and its values."""
    for stored in chains:
        if row < len(stored.instrument_ids):
            legs = stored.chain.legs
            strike, kind = legs["strike"][row], legs["kind"][row]
            values = {name: legs[name][row].item() for name in (*INTEGERS, *REALS)}
            return f"{stored.chain.header.chain} strike {strike} kind {kind}: {values}"
        row -= len(stored.instrument_ids)
    raise IndexError(row)
