"""The first enriched chain of a fresh process, and nothing else; `stockify bench kernels` times it.

Run by its path, so that the packages above it are not loaded: only what a worker needs to enrich.
"""

from datetime import date

import numpy as np

from pipeline import enrich
from pipeline.clock import expiry_ns
from pipeline.models import ChainSnapshot, Kind

EXPIRY = date(2026, 1, 27)
FORWARD = 25_000.0


def snapshot() -> ChainSnapshot:
    """A chain of 200 legs a month before its expiry, quoted half a rupee wide."""
    strikes = np.repeat(FORWARD + 50.0 * np.arange(-50, 50), 2)
    distance = (strikes - FORWARD) / 1_000.0
    time_value = 400.0 * np.exp(-0.5 * distance * distance) + 1.0
    is_call = np.tile([True, False], 100)
    intrinsic = np.maximum(np.where(is_call, FORWARD - strikes, strikes - FORWARD), 0.0)
    return ChainSnapshot(
        underlying="NIFTY",
        expiry=EXPIRY,
        provider="bench",
        ts_event=None,
        ts_ingest=expiry_ns(date(2025, 12, 27)),
        spot=FORWARD,
        lot=None,
        legs={
            "strike": strikes,
            "kind": np.where(is_call, Kind.CALL, Kind.PUT).astype(np.uint8),
            "bid": intrinsic + time_value - 0.25,
            "ask": intrinsic + time_value + 0.25,
        },
    )


if __name__ == "__main__":
    enriched = enrich.enrich(snapshot(), rate=0.065)
    print(int(np.isfinite(enriched.legs["iv"]).sum()), flush=True)
