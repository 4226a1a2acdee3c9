"""The same rows loaded by drivers and by the server itself, a batch a transaction.

Every load begins with empty tables and ends with what it was told to load in them. What a driver
wants is made beforehand, off the clock. Never knows the storage worker.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from pipeline.queries import statement
from pipeline.rows import COPY_COLUMNS, LegEncoder
from stockify.bench.storage import chains
from stockify.bench.storage.chains import Batch


class Took(msgspec.Struct, frozen=True):
    """What a load took: seconds of wall, and of the client's CPU."""

    rows: int
    wall_s: float
    cpu_s: float

    @property
    def rows_per_s(self) -> float:
        """Rows by the clock on the wall."""
        return self.rows / self.wall_s

    @property
    def client_us(self) -> float:
        """The client's CPU, µs a row."""
        return self.cpu_s / self.rows * 1e6


class Clock:
    """Sums up what lies between `start` and `stop`."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._began = 0.0, 0.0

    def start(self) -> None:
        """From here on it counts."""
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Up to here it did."""
        self.wall_s += time.perf_counter() - self._began[0]
        self.cpu_s += time.process_time() - self._began[1]


def encoded(encoder: LegEncoder, batch: Batch) -> memoryview:
    """The binary COPY of a batch. Raises RuntimeError where a leg fits into no row."""
    buffer, misfits = encoder.encode(batch)
    if misfits.any():
        raise RuntimeError("a leg of the simulator's fits into no row")
    return buffer


class Tables:
    """One server's tables: emptied, counted, weighed; their rows written to files of the server."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def empty(self) -> None:
        """Take everything out, and let the server carry to the disk what there is."""
        self.run("bench_empty")
        self.run("bench_checkpoint")

    def check(self, rows: int) -> None:
        """Raises RuntimeError where the last load left another number of rows."""
        found = self.ask("bench_count")["rows"]
        if found != rows:
            raise RuntimeError(f"a load left {found} rows, not {rows}")

    def run(self, name: str) -> None:
        """Execute a named query."""
        self.connection.execute(statement(name))

    def ask(self, name: str) -> dict[str, Any]:
        """The one row of a named query."""
        row = self.connection.execute(statement(name)).fetchone()
        if row is None:
            raise RuntimeError(f"{name} gave nothing")
        return row

    def copy(self, buffer: memoryview) -> None:
        """Load a binary COPY as one transaction."""
        with self.connection.cursor().copy(statement("copy_option_contracts")) as copy:
            copy.write(buffer)

    def copy_chains(self, batch: Batch) -> None:
        """Load chains as one transaction."""
        self.copy(encoded(LegEncoder(), batch))

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class Loads:
    """Each way to load the batches, on one server's tables; gives what it took."""

    def __init__(self, url: str, batches: Sequence[Batch]) -> None:
        self._tables = Tables(url)
        self._files = psycopg.ClientCursor(self._tables.connection)  # COPY takes no parameters
        self._batches = batches
        self._counts = [chains.count(batch) for batch in batches]
        self._encoder = LegEncoder()
        self.paths: list[str] = []  # files of the server, by batch
        types = {row["name"]: row["type"] for row in self._types()}
        self._column_types = [types[name] for name in COPY_COLUMNS]

    @property
    def tables(self) -> Tables:
        """The tables they fill."""
        return self._tables

    def write_files(self) -> None:
        """Have the server write the batches where it can read them."""
        directory = self._tables.ask("bench_server_path")["directory"]
        for number, batch in enumerate(self._batches):
            self._tables.run("bench_empty")
            self._tables.copy(encoded(self._encoder, batch))
            path = f"{directory}/stockify-bench-{number}.copy"
            self._files.execute(statement("bench_write_file"), {"path": path})
            self.paths.append(path)

    def load_file(self, number: int) -> None:
        """The server loads the batch of that number by itself."""
        self._files.execute(statement("bench_copy_file"), {"path": self.paths[number]})

    def ceiling(self) -> Took:
        """The server loads files: no client."""
        clock = Clock()
        self._tables.empty()
        clock.start()
        for number in range(len(self.paths)):
            self.load_file(number)
        clock.stop()
        return self._took(clock)

    def encoder(self) -> Took:
        """Our encoder and one write a batch."""
        clock = Clock()
        self._tables.empty()
        clock.start()
        for batch in self._batches:
            self._tables.copy(encoded(self._encoder, batch))
        clock.stop()
        return self._took(clock)

    def encoding_us(self) -> float:
        """CPU of our encoder alone, µs a row."""
        began = time.thread_time()
        for batch in self._batches:
            encoded(self._encoder, batch)
        return (time.thread_time() - began) / sum(self._counts) * 1e6

    def write_row(self) -> Took:
        """psycopg's COPY row by row, told the types."""
        clock = Clock()
        self._tables.empty()
        for rows in self._records(len(self._batches)):
            clock.start()
            with self._tables.connection.cursor().copy(statement("copy_option_contracts")) as copy:
                copy.set_types(self._column_types)
                for row in rows:
                    copy.write_row(row)
            clock.stop()
        return self._took(clock)

    def executemany(self, batches: int) -> Took:
        """INSERT by psycopg's executemany, a transaction a batch; only the first batches."""
        clock = Clock()
        self._tables.empty()
        for rows in self._records(batches):
            clock.start()
            with self._tables.connection.transaction():
                self._tables.connection.cursor().executemany(statement("bench_insert"), rows)
            clock.stop()
        return self._took(clock, batches)

    def close(self) -> None:
        """Close the connection."""
        self._tables.close()

    def _records(self, batches: int) -> Iterator[list[tuple[Any, ...]]]:
        return (chains.records(batch) for batch in self._batches[:batches])

    def _took(self, clock: Clock, batches: int | None = None) -> Took:
        rows = sum(self._counts[:batches])
        self._tables.check(rows)
        return Took(rows, clock.wall_s, clock.cpu_s)

    def _types(self) -> list[dict[str, Any]]:
        return self._tables.connection.execute(statement("bench_column_types")).fetchall()
