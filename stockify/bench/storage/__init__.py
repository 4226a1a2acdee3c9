"""What storing rows costs, and what reading them does: the storage worker beside other ways.

Servers of the bench's own, set up as `stockify up` does it, durable, plain and with TimescaleDB.
`plain` and `hypertable` are the rates on one of the two alone; the other parts are no part of a run
without `--only`.
"""

from collections.abc import Callable

from pipeline.errors import ConfigError
from stockify.bench.report import Line, Report
from stockify.bench.storage import columnstore, indexes, rates, reads, scale, servers

TAKES_TIMESCALE = True
PARTS = (servers.PLAIN, servers.HYPERTABLE, "indexes", "reads", "scale")


def measure(
    say: Callable[[str], None], *, quick: bool = False, only: str = "", timescale_url: str = ""
) -> Report:
    """Run one part, or the rates on both kinds of servers. Raises MissingPeer, ConfigError."""
    if only == "indexes":
        grids = indexes.measure_indexes(say, quick=quick)
        return Report("Keys and indexes of option_contracts", "", [], grids)
    if only == "reads":
        lines, grids = reads.measure_reads(say, quick=quick)
        return Report("Reads of the past", "", lines, grids)
    if only == "scale":
        return Report("Storage workers side by side", "", scale.measure_scale(say, quick=quick))
    return _rates(say, rates.QUICK if quick else rates.Size(), only, timescale_url)


def _rates(say: Callable[[str], None], size: rates.Size, only: str, timescale_url: str) -> Report:
    kinds = (only,) if only else (servers.PLAIN, servers.HYPERTABLE)
    measured, sample = rates.measure_rates(say, size, kinds)
    if not measured:
        raise ConfigError(servers.NO_TIMESCALE)
    lines = rates.lines(measured, sample, size)
    captions = [f"{len(sample.chains):,} chains in a turn, batches of {size.batch_rows:,} rows"]
    if servers.HYPERTABLE in kinds and servers.HYPERTABLE not in measured:
        captions.append(f"a hypertable: not measured; {servers.NO_TIMESCALE}")
    if timescale_url:
        ratio = columnstore.measure_columnstore(timescale_url, sample, size.batch_rows)
        lines.append(Line("columnstore_ratio", "bytes as rows to bytes as columns", ratio, "×", 2))
    else:
        captions.append(columnstore.NOT_MEASURED)
    return Report("Rows into Postgres", "\n".join(captions), lines, rates.grids(measured))
