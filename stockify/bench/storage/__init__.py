"""What storing rows costs, and what reading them does: the storage worker beside other ways.

Servers of the bench's own, set up as `stockify up` does it, durable, plain and with TimescaleDB.
`plain` and `hypertable` are the rates on one of the two alone; the other parts are no part of a run
without `--only`.
"""

from collections.abc import Callable

from stockify.bench.report import Report
from stockify.bench.storage import indexes, rates, reads, scale, servers

PARTS = (servers.PLAIN, servers.HYPERTABLE, "indexes", "reads", "scale")


def measure(say: Callable[[str], None], *, quick: bool = False, only: str = "") -> Report:
    """Run one part, or the rates on both kinds of servers. Raises MissingPeer."""
    if only == "indexes":
        grids = indexes.measure_indexes(say, quick=quick)
        return Report("Keys and indexes of option_contracts", "", [], grids)
    if only == "reads":
        lines, grids = reads.measure_reads(say, quick=quick)
        return Report("Reads of the past", "", lines, grids)
    if only == "scale":
        return Report("Storage workers side by side", "", scale.measure_scale(say, quick=quick))
    kinds = (only,) if only else (servers.PLAIN, servers.HYPERTABLE)
    size = rates.QUICK if quick else rates.Size()
    measured, sample = rates.measure_rates(say, size, kinds)
    if not measured:
        raise RuntimeError(servers.NO_TIMESCALE)
    caption = f"{len(sample.chains):,} chains in a turn, batches of {size.batch_rows:,} rows"
    if servers.HYPERTABLE in kinds and servers.HYPERTABLE not in measured:
        caption += f"; {servers.NO_TIMESCALE}"
    return Report(
        title="Rows into Postgres",
        caption=caption
        + "\ncolumnstore ratio: not measured, it needs a server of the Community edition",
        lines=rates.lines(measured, sample, size),
        grids=rates.grids(measured),
    )
