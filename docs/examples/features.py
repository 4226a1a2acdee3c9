"""A feature writer: a row of numbers for each chain, in a file a model is trained from.

`stockify run features:write` from the folder of this file, one process of it. A row is written
once, also when that is killed; `np.fromfile("features/0.rows", features.ROW)` reads them back.
"""

import asyncio
import os
from pathlib import Path

import numpy as np

from pipeline.runtime import Context
from pipeline.streams import Chain, consume

FOLDER = Path("features")
ROW = np.dtype(
    [
        *(("seq", "<i8"), ("ts_ingest", "<i8"), ("chain", "S32"), ("forward", "<f8")),
        *(("atm_iv", "<f8"), ("skew", "<f8"), ("spread", "<f8"), ("puts_over_calls", "<f8")),
    ]
)


def features(chain: Chain) -> tuple[object, ...]:
    """The row of a chain; NaN where it does not tell."""
    header, columns = chain.header, chain.columns
    aggregates = header.aggregates
    quoted = columns["ask"] > columns["bid"]
    middle = (columns["ask"] + columns["bid"])[quoted] / 2
    spread = np.median((columns["ask"] - columns["bid"])[quoted] / middle) if quoted.any() else None
    size = np.maximum(columns["bid_size"] + columns["ask_size"], 0)
    calls = size[columns["kind"] == 1].sum()
    return (
        *(chain.entry.seq, header.ts_ingest, header.chain.encode(), header.forward),
        *(aggregates.atm_iv, aggregates.skew_25_delta, spread),
        size[columns["kind"] == 0].sum() / calls if calls else None,
    )


class Rows:
    """The file of one shard; what stands in it is not written again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        whole = path.stat().st_size // ROW.itemsize * ROW.itemsize
        os.truncate(path, whole)  # a crash may have left half a row
        newest = np.fromfile(path, ROW, offset=max(0, whole - ROW.itemsize))
        self._path = path
        self._last_seq = int(newest["seq"][-1]) if len(newest) else 0

    def write(self, rows: np.ndarray) -> None:
        """Add rows; they are on the disk when it returns."""
        fresh = rows[rows["seq"] > self._last_seq]
        if len(fresh):
            with open(self._path, "ab") as file:
                file.write(fresh.tobytes())
                file.flush()
                os.fsync(file.fileno())
            self._last_seq = int(fresh["seq"][-1])


async def write(context: Context) -> None:
    """Until stopping; a batch is acknowledged when its rows are on the disk."""
    files: dict[int, Rows] = {}
    async with consume(
        "my-features",
        context=context,
        band_percent=5.0,
        critical=True,
        start="earliest",
        manual_ack=True,
    ) as batches:
        async for batch in batches:
            if batch.shard not in files:
                files[batch.shard] = Rows(FOLDER / f"{batch.shard}.rows")
            rows = np.array([features(chain) for chain in batch], ROW)
            await asyncio.to_thread(files[batch.shard].write, rows)
            await batch.ack()
