"""How fast rows get into Postgres: the storage worker beside the server alone and other drivers.

All take turns in rounds, at the same rows, tables, indexes and batches; ratios are of turns in one
round, figures medians over the rounds.
"""

import asyncio
import contextlib
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline.config import Settings
from pipeline.database import Database
from pipeline.instruments import Instruments
from pipeline.rows import StoredChain
from stockify import plan
from stockify.bench.bus.children import Child
from stockify.bench.report import Column, Grid, Line, MissingPeer
from stockify.bench.storage import chains, servers
from stockify.bench.storage.chains import Batch, Sample
from stockify.bench.storage.loads import Loads, Tables, Took
from stockify.bench.storage.worker import Worker, storing

PEER_PYTHON = Path(__file__).resolve().parents[3] / ".venv-bench" / "bin" / "python"
PEER_S = 30.0
# The ways, as the grids call them; ratios are to the first.
CEILING, PATH, ENCODER, WRITE_ROW, ASYNCPG, MANY = (
    *("server-side COPY", "storage worker", "our encoder, copy.write"),
    *("psycopg write_row", "asyncpg records", "executemany"),
)


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 9
    batches: int = 12
    batch_rows: int = Settings().storage_batch_rows
    slow_batches: int = 1  # of executemany
    instants: int = 12  # of the market, eight chains each


QUICK = Size(rounds=2, batches=2, batch_rows=2_000, instants=1)


class _Peer(msgspec.Struct, frozen=True):
    missing: str = ""
    version: str = ""


class Round(msgspec.Struct, frozen=True):
    """The turns of one round on one server, and CPU of the encoder alone, µs a row."""

    turns: dict[str, Took]
    encoding_us: float

    def ratio(self, way: str) -> float:
        """Rows a second of a way to those of the server alone."""
        return self.turns[way].rows_per_s / self.turns[CEILING].rows_per_s


class Weights(msgspec.Struct, frozen=True):
    """Bytes a row: of the heap, of the indexes, and of the heap where hardly anything is NULL."""

    heap: float
    index: float
    heap_near: float


class Rates(msgspec.Struct, frozen=True):
    """What was measured on one server."""

    rounds: list[Round]
    weights: Weights


def measure_rates(
    say: Callable[[str], None], size: Size, kinds: tuple[str, ...]
) -> tuple[dict[str, Rates], Sample]:
    """All turns on the wanted kinds of servers, where they can be had. Raises MissingPeer."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(servers.open_directory())
        folder = directory / "batches"
        folder.mkdir()
        peer = stack.enter_context(_asyncpg(folder, directory))
        say("starting servers and making chains …")
        urls = stack.enter_context(servers.running(directory, kinds))
        sample = chains.make(size.batches, size.batch_rows, instants=size.instants)
        near = chains.make(1, size.batch_rows, instants=1, near=True)
        benches, weights = {}, {}
        for kind, url in urls.items():
            stored = asyncio.run(define(url, sample))
            weights[kind] = _weigh(url, stored, asyncio.run(define(url, near)))
            batches = chains.batches(stored, size.batch_rows)
            loads = Loads(url, batches)
            stack.callback(loads.close)
            loads.write_files()
            worker = stack.enter_context(
                storing(directory / f"storing-{kind}", url, batch_rows=size.batch_rows)
            )
            benches[kind] = Bench(url, loads, worker, sample, peer, size)
            _save(folder, batches)  # instruments have the same numbers everywhere
            benches[kind].round(with_peers=False)
        rounds: dict[str, list[Round]] = {kind: [] for kind in urls}
        for number in range(size.rounds):
            say(f"round {number + 1} of {size.rounds} …")
            for kind, bench in benches.items():
                rounds[kind].append(
                    bench.round(ceiling_first=number % 2 == 0, with_peers=number % 2 == 0)
                )
    return {kind: Rates(rounds[kind], weights[kind]) for kind in rounds}, sample


class Bench:
    """The turns on one server."""

    def __init__(
        self, url: str, loads: Loads, worker: Worker, sample: Sample, peer: Child, size: Size
    ) -> None:
        self._url, self._loads, self._worker = url, loads, worker
        self._sample, self._peer, self._size = sample, peer, size

    def round(self, *, with_peers: bool, ceiling_first: bool = True) -> Round:
        """One turn for everybody; without peers for those alone that have targets."""
        turns = {CEILING: self._loads.ceiling()} if ceiling_first else {}
        turns[PATH] = self._worker.load(self._sample.entries)
        turns[ENCODER] = self._loads.encoder()
        if not ceiling_first:
            turns[CEILING] = self._loads.ceiling()
        if with_peers:
            turns[WRITE_ROW] = self._loads.write_row()
            self._loads.tables.empty()
            turns[ASYNCPG] = self._peer.ask(Took, url=self._url)
            self._loads.tables.check(turns[ASYNCPG].rows)
            turns[MANY] = self._loads.executemany(self._size.slow_batches)
        return Round(turns, self._loads.encoding_us())


async def define(url: str, sample: Sample) -> list[StoredChain]:
    """The chains with their instruments, which are defined where they are not yet."""
    database = Database(url)
    await database.open()
    try:
        found = await chains.stored(sample, Instruments(database))
        days = {one.header.ts_ingest for one in found}
        await database.fetch("make_days", days=sorted({chains.day(ts) for ts in days}))
        return found
    finally:
        await database.close()


def _weigh(url: str, whole: Batch, near: Batch) -> Weights:
    """Bytes a row of both."""
    tables = Tables(url)
    with contextlib.closing(tables):
        sizes = []
        for batch in (near, whole):
            tables.run("bench_empty")
            tables.copy_chains(batch)
            sizes.append(tables.ask("bench_sizes"))
        near_size, size = sizes
    return Weights(
        heap=size["heap_bytes"] / size["rows"],
        index=size["index_bytes"] / size["rows"],
        heap_near=near_size["heap_bytes"] / near_size["rows"],
    )


def _save(folder: Path, batches: list[Batch]) -> None:
    for number, batch in enumerate(batches):
        columns: dict[str, Any] = dict(chains.columns(batch))
        np.savez(folder / f"{number:04}.npz", **columns)


@contextlib.contextmanager
def _asyncpg(folder: Path, directory: Path) -> Iterator[Child]:
    """asyncpg's process, which loads the batches of a folder. Raises MissingPeer."""
    if not PEER_PYTHON.exists():
        raise MissingPeer("asyncpg is not installed")
    script = str(Path(__file__).with_name("asyncpg_peer.py"))
    argv = (str(PEER_PYTHON), "-I", script, str(folder))
    environment = plan.environment(Settings(), "bench-peers")
    child = Child("asyncpg", argv, environment, directory / "asyncpg.log")
    try:
        hello = child.answer(_Peer)
        if hello.missing:
            raise MissingPeer(f"asyncpg: {hello.missing}")
        yield child
    finally:
        child.close()


def lines(rates: dict[str, Rates], sample: Sample, size: Size) -> list[Line]:
    """The figures of a run."""
    first = rates.get(servers.PLAIN) or rates[servers.HYPERTABLE]
    found = []
    if servers.PLAIN in rates:
        found.append(_fraction("ceiling_fraction", "plain", rates[servers.PLAIN], "≥ 0.90"))
    if servers.HYPERTABLE in rates:
        found.append(
            _fraction(
                "ceiling_fraction_hypertable", "a hypertable", rates[servers.HYPERTABLE], "≥ 0.80"
            )
        )
    weights = first.weights
    return [
        *found,
        Line("rows_per_s", "rows committed", _rate(first, PATH), "rows/s"),
        Line("ceiling_rows_per_s", "rows by the server alone", _rate(first, CEILING), "rows/s"),
        Line("client_us_per_row", "CPU of the worker", _client(first, PATH), "µs/row", 2, "≤ 0.60"),
        Line(
            "encoder_us_per_row",
            "CPU of the encoder alone",
            statistics.median(one.encoding_us for one in first.rounds),
            "µs/row",
            3,
            "≤ 0.10",
        ),
        Line("bytes_per_row", "heap of whole chains", weights.heap, "bytes/row", 1, "≤ 140"),
        Line("bytes_per_row_near", "of legs near the money", weights.heap_near, "bytes/row", 1),
        Line("index_bytes_per_row", "indexes", weights.index, "bytes/row", 1),
        Line("batch_rows", "rows in a batch", size.batch_rows, "rows"),
        Line("rows", "rows in a turn", sample.rows, "rows"),
    ]


def grids(rates: dict[str, Rates]) -> list[Grid]:
    """Every way on every server."""
    return [
        Grid(
            title=f"Rows into {'plain PostgreSQL' if kind == servers.PLAIN else 'a hypertable'}",
            columns=(
                Column("rows_per_s", "rows/s"),
                Column("ratio", "to the server alone", ".2f"),
                Column("client_us", "client, µs/row", ".2f"),
            ),
            rows={
                way: {
                    "rows_per_s": _rate(one, way),
                    "ratio": _ratio(one, way),
                    "client_us": _client(one, way),
                }
                for way in (CEILING, PATH, ENCODER, WRITE_ROW, ASYNCPG, MANY)
            },
            key=kind,
        )
        for kind, one in rates.items()
    ]


def _fraction(key: str, where: str, rates: Rates, target: str) -> Line:
    name = f"the worker's whole path to server-side COPY, {where}"
    return Line(key, name, _ratio(rates, PATH), "", 2, target)


def _ratio(rates: Rates, way: str) -> float:
    return _median(rates, way, lambda one: one.ratio(way))


def _rate(rates: Rates, way: str) -> float:
    return _median(rates, way, lambda one: one.turns[way].rows_per_s)


def _client(rates: Rates, way: str) -> float:
    return _median(rates, way, lambda one: one.turns[way].client_us)


def _median(rates: Rates, way: str, of: Callable[[Round], float]) -> float:
    """Over the rounds in which that way had a turn."""
    return statistics.median(of(one) for one in rates.rounds if way in one.turns)
