"""How much smaller a day gets as columns, on somebody's server of TimescaleDB's Community edition.

The database must be empty; it is migrated, and empty again afterwards. The settings of the
columnstore are those of the migrations.
"""

import asyncio
import contextlib

from pipeline import migrations
from pipeline.errors import ConfigError
from stockify.bench.storage import chains
from stockify.bench.storage.chains import Sample
from stockify.bench.storage.loads import Tables
from stockify.bench.storage.rates import define

NOT_MEASURED = "columnstore ratio: not measured; it needs --timescale-url of a Community edition"


def measure_columnstore(url: str, sample: Sample, batch_rows: int) -> float:
    """Bytes as rows to bytes as columns, indexes included. Raises ConfigError, StoreError."""
    edition = asyncio.run(migrations.server_edition(url))
    if edition != "community":
        raise ConfigError(
            f"the columnstore needs the Community edition of TimescaleDB, not {edition}"
        )
    asyncio.run(migrations.migrate(url))
    tables = Tables(url)
    with contextlib.closing(tables):
        if tables.ask("bench_count")["rows"]:
            raise ConfigError("the database has rows; the bench would take them out")
        try:
            for batch in chains.batches(asyncio.run(define(url, sample)), batch_rows):
                tables.copy_chains(batch)
            tables.run("bench_to_columns")
            sizes = tables.ask("bench_column_bytes")
        finally:
            tables.run("bench_empty_hypertable")
    return float(sizes["row_bytes"]) / float(sizes["column_bytes"])
