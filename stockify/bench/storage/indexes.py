"""Which key and indexes option_contracts should have: what each costs a load, and what reads cost.

Tables that differ in nothing else are loaded in turns, a batch each, by the server itself; then the
same reads go to all of them. A read of one contract is asked in both ways, through the instants of
its chain and by the contract itself, and the faster one counts.

Checkpoints come as the server makes them: the first change of a page after one is written
twice, so one after each batch would punish those keys that touch every page in every batch.
"""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import psycopg

from pipeline import rows
from pipeline.clock import to_datetime
from pipeline.queries import statement
from pipeline.rows import StoredChain, snapshot_row
from stockify.bench.report import Column, Grid
from stockify.bench.storage import chains, rates, servers
from stockify.bench.storage.loads import Loads, Tables

# By what each is called: how its table gets its indexes. Ratios are to the first, which is shipped.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "(ts, contract, rev)": ("bench_key_by_instant",),
    "and (contract, ts)": ("bench_key_by_instant", "bench_index_by_contract"),
    "(contract, ts, rev)": ("bench_key_by_contract",),
    "and BRIN (ts)": ("bench_key_by_contract", "bench_index_of_blocks"),
    "BRIN (ts) alone": ("bench_index_of_blocks",),
    "no index": (),
}
PAGE = 200  # instants of a page of history
ONE_OF_EACH = 4_000  # rows of every chain that is polled, at one instant or a few more
EVER = 1_000_000
_OUTLINE = (("chain", "chain as of"), ("page", "page of a contract"), ("day", "day of a contract"))


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    batches: int = 50
    batch_rows: int = 20_000
    instants: int = 12
    reads: int = 30
    slow_s: float = 0.5  # a read that takes longer is not repeated as often


QUICK = Size(batches=3, batch_rows=5_000, instants=1, reads=3)


def measure_indexes(say: Callable[[str], None], *, quick: bool) -> list[Grid]:
    """The candidates on both kinds of servers, where they can be had."""
    size = QUICK if quick else Size()
    grids = []
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(servers.open_directory())
        urls = stack.enter_context(servers.running(directory, (servers.PLAIN, servers.HYPERTABLE)))
        for kind, url in urls.items():
            say(f"{kind}: {len(CANDIDATES)} tables of {size.batches * size.batch_rows:,} rows …")
            measured = _measure(url, size)
            grids.append(
                Grid(
                    title=f"Keys and indexes, {kind}",
                    columns=(
                        Column("load", "load, to the shipped", ".2f"),
                        Column("rows_per_s", "rows/s"),
                        Column("index_bytes", "index bytes a row", ".0f"),
                        *(Column(f"{key}_ms", f"{head}, ms", ".2f") for key, head in _OUTLINE),
                    ),
                    rows=measured,
                    caption=f"{size.batches * size.batch_rows:,} rows of a day each; p50 of reads",
                    key=f"indexes_{kind}",
                )
            )
    return grids


def _measure(url: str, size: Size) -> dict[str, dict[str, float]]:
    sample = asyncio.run(rates.define(url, chains.make(1, ONE_OF_EACH, instants=size.instants)))
    stored = list(_repeated(sample, size.batches * size.batch_rows))
    batches = chains.batches(stored, size.batch_rows)
    loads = Loads(url, batches)
    with contextlib.closing(loads):
        loads.write_files()
        tables = loads.tables
        tables.empty()
        with tables.connection.cursor().copy(statement("copy_market_snapshots")) as copy:
            copy.write(rows.snapshots.pack(map(snapshot_row, stored)))
        for name, queries in CANDIDATES.items():
            _use(tables, name)
            for query in ("bench_make_candidate", *queries):
                tables.run(query)
        tables.run("bench_checkpoint")
        taken = _load(loads)
        found = {name: _loaded(taken, name, batches) for name in CANDIDATES}
        for name, values in found.items():
            _use(tables, name)
            tables.run("bench_analyze")
            index_bytes = tables.ask("bench_index_bytes")["index_bytes"]
            values["index_bytes"] = index_bytes / sum(map(chains.count, batches))
        for name, reads in _read(tables.connection, stored, size).items():
            found[name] |= reads
    return found


def _repeated(sample: Sequence[StoredChain], least: int) -> Iterator[StoredChain]:
    """The chains again and again, each at a later instant, until there are so many rows."""
    made = 0
    for place, one in enumerate(itertools.cycle(sample)):
        if made >= least:
            return
        ts = chains.OPENS_NS + place * chains.APART_NS
        header = msgspec.structs.replace(one.header, ts_ingest=ts)
        yield msgspec.structs.replace(one, header=header)
        made += header.n


def _use(tables: Tables, name: str) -> None:
    schema = f"candidate_{list(CANDIDATES).index(name)}"
    tables.connection.execute(statement("bench_use"), {"schema": schema})


def _load(loads: Loads) -> list[dict[str, float]]:
    """Seconds of each batch in each table; who is first changes with every batch."""
    names = list(CANDIDATES)
    taken = []
    for number in range(len(loads.paths)):
        at = number % len(names)
        took = {}
        for name in (*names[at:], *names[:at]):
            _use(loads.tables, name)
            began = time.perf_counter()
            loads.load_file(number)
            took[name] = time.perf_counter() - began
        taken.append(took)
    return taken


def _loaded(
    taken: list[dict[str, float]], name: str, batches: Sequence[chains.Batch]
) -> dict[str, float]:
    shipped = next(iter(CANDIDATES))
    pairs = [(chains.count(batch), took[name]) for batch, took in zip(batches, taken, strict=True)]
    return {
        "load": statistics.median(took[shipped] / took[name] for took in taken),
        "rows_per_s": statistics.median(count / seconds for count, seconds in pairs),
    }


def _read(
    connection: psycopg.Connection[dict[str, object]], stored: Sequence[StoredChain], size: Size
) -> dict[str, dict[str, float]]:
    """p50 of each read from each table, in ms, in turns."""
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in CANDIDATES}
    slow: set[tuple[str, str]] = set()
    for turn in range(size.reads):
        one = stored[(len(stored) * (2 * turn + 1)) // (2 * size.reads)]
        for number, name in enumerate(CANDIDATES):
            connection.execute(statement("bench_use"), {"schema": f"candidate_{number}"})
            for read, run in _reads(connection, one).items():
                if (name, read) in slow and turn % 10:
                    continue
                began = time.perf_counter()
                if not run():
                    raise RuntimeError(f"{read} gave nothing from {name}")
                seconds = time.perf_counter() - began
                taken[name].setdefault(read, []).append(seconds * 1e3)
                if seconds > size.slow_s:
                    slow.add((name, read))
    medians = {
        name: {read: statistics.median(times) for read, times in reads.items()}
        for name, reads in taken.items()
    }
    return {
        name: {
            "chain_ms": reads["chain"],
            "page_ms": min(reads["page by instants"], reads["page by contract"]),
            "day_ms": min(reads["day by instants"], reads["day by contract"]),
        }
        for name, reads in medians.items()
    }


def _reads(
    connection: psycopg.Connection[dict[str, object]], one: StoredChain
) -> dict[str, Callable[[], int]]:
    """The reads around a stored chain; each gives how many legs it read."""
    header = one.header
    ts = to_datetime(header.ts_ingest)
    day = ts.replace(hour=0, minute=0, second=0, microsecond=0)
    around = {"end": to_datetime(header.ts_ingest + 86_400 * 10**9), "start": day}
    ids = one.instrument_ids[header.n // 2 : header.n // 2 + 1].tolist()

    def ask(name: str, **values: object) -> int:
        return len(connection.execute(statement(name), values).fetchall())

    def by_instants(limit: int) -> int:
        found = connection.execute(
            statement("chain_instants"),
            {
                "underlying": header.underlying,
                "expiry": header.expiry,
                "providers": [header.provider],
                "rev": None,
                "limit": limit,
                **around,
            },
        ).fetchall()
        instants = [row["ts"] for row in found]
        first, last = instants[0], instants[-1]
        return ask("legs_at", instants=instants, first=first, last=last, instrument_ids=ids)

    def by_contract(limit: int) -> int:
        return ask("bench_legs_in_range", instrument_ids=ids, limit=limit, **around)

    chain = {"underlying": header.underlying, "expiry": header.expiry, "provider": header.provider}
    return {
        "chain": lambda: ask("chain_legs", ts=ts, rev=header.rev, **chain),
        "page by instants": lambda: by_instants(PAGE),
        "page by contract": lambda: by_contract(PAGE),
        "day by instants": lambda: by_instants(EVER),
        "day by contract": lambda: by_contract(EVER),
    }
