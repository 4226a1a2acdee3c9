"""Postgres: a pool, sessions, COPY, and what its errors mean.

The only room that knows psycopg; whatever goes wrong leaves it as a StoreError. It holds no SQL:
every statement is a named query (`pipeline/queries.py`). It never decides what is stored.
"""

import asyncio
import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
import psycopg_pool
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import DictRow, dict_row

from pipeline.errors import ConfigError, RowsRejected, StoreError, StoreUnavailable
from pipeline.queries import statement

Row = dict[str, Any]
Data = bytes | bytearray | memoryview
_Connection = psycopg.AsyncConnection[DictRow]

CONNECT_S = 5
WAIT_S = 3.0  # for a free connection; above it the store counts as away
RECONNECT_S = 2.0  # then the pool gives up and the next call tries anew, without a long back-off

PAGE_ROWS = 2_000  # of a stream: some megabytes as dicts, and a round trip a few milliseconds
_STREAM = "stream"

GATHER_S = 0.001  # that rows of a COPY gather before they are taken; some 100 kB
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension: no version sends any
_COPY_TRAILER = b"\xff\xff"

# Classes of SQLSTATE: the rows are wrong (22 data, 23 constraint, P0 raised by a function: none of
# ours does, a trigger of the user's may); the server cannot now (08 connection, 25006 read-only,
# 40 rolled back, 53 resources, 55 not in the right state, 57 operator, 58 system). What psycopg
# reports without one, a lost connection, is OperationalError.
_REJECTED_CLASSES = frozenset(("22", "23", "P0"))
_UNAVAILABLE_CLASSES = frozenset(("08", "40", "53", "55", "57", "58"))
_READ_ONLY = "25006"


class _LeftEarly(Exception):
    """There is more to come of a COPY that nobody reads on."""


class Session:
    """One connection while somebody holds it. Every method raises a StoreError."""

    def __init__(
        self, connection: psycopg.AsyncConnection[DictRow], silent_s: float | None = None
    ) -> None:
        self._connection, self._silent_s = connection, silent_s

    async def fetch(self, name: str, /, **parameters: Any) -> list[Row]:
        """The rows of a named query, keyed by column."""
        with _mapped():
            cursor = await self._connection.execute(statement(name), parameters)
            return await cursor.fetchall()

    async def execute(self, name: str, /, **parameters: Any) -> int:
        """Run a named query that gives no rows; the number of rows it touched."""
        with _mapped():
            cursor = await self._connection.execute(statement(name), parameters)
            return cursor.rowcount

    async def run_script(self, text: str) -> None:
        """Run the statements of a migration."""
        with _mapped():
            await self._connection.execute(text.encode())

    async def copy_buffer(self, name: str, buffer: Data) -> None:
        """Send a whole binary COPY, header and trailer included."""
        with _mapped():
            async with (
                self._connection.cursor() as cursor,
                cursor.copy(statement(name)) as copy,
            ):
                await copy.write(buffer)

    async def copy_rows(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
        """Send rows one by one; for tables with few of them."""
        with _mapped():
            async with (
                self._connection.cursor() as cursor,
                cursor.copy(statement(name)) as copy,
            ):
                for row in rows:
                    await copy.write_row(row)

    @contextlib.asynccontextmanager
    async def stream(
        self, name: str, /, *, page_rows: int = PAGE_ROWS, **parameters: Any
    ) -> AsyncIterator[AsyncIterator[list[Row]]]:
        """The rows of a named query in pages of at most `page_rows`, from a cursor on the server.

        One page is in memory at a time, and all of them show one state of the database. The
        session does nothing else until the block is left, which may be before the last page.
        """
        with _mapped():
            async with (
                self._connection.transaction(),
                self._connection.cursor(_STREAM) as cursor,
            ):
                await cursor.execute(statement(name), parameters)
                yield _pages(cursor, page_rows, self._silent_s)

    @contextlib.asynccontextmanager
    async def copy_out(self, name: str, /, **parameters: Any) -> AsyncIterator[AsyncIterator[Data]]:
        """What a named `COPY (…) TO STDOUT` sends, buffer by buffer as it arrives.

        COPY takes no parameters, so the driver writes them into the statement, quoted. Leaving the
        block before the end cancels the COPY.
        """
        with _mapped(), contextlib.suppress(_LeftEarly):
            async with (
                self._connection.cursor() as cursor,
                cursor.copy(statement(name), parameters) as copy,
            ):
                yield aiter(copy)
                if self._connection.info.transaction_status is TransactionStatus.ACTIVE:
                    raise _LeftEarly  # the driver cancels what ends by an exception only

    @contextlib.asynccontextmanager
    async def copy_blocks(
        self, name: str, /, *, block_bytes: int, **parameters: Any
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The rows of a named binary COPY, whole ones, some `block_bytes` at a time.

        Its header and trailer are left out. Taken as they are, rows come one by one, which costs
        more than they do; here a block is taken in one go. Otherwise as `copy_out`.
        """
        with _mapped(), contextlib.suppress(_LeftEarly):
            async with (
                self._connection.cursor() as cursor,
                cursor.copy(statement(name), parameters) as copy,
            ):
                async with contextlib.aclosing(
                    _blocks(copy, self._connection, block_bytes, self._silent_s)
                ) as blocks:
                    yield blocks
                if self._connection.info.transaction_status is TransactionStatus.ACTIVE:
                    raise _LeftEarly

    @contextlib.asynccontextmanager
    async def transaction(self, *, is_trial: bool = False) -> AsyncIterator[None]:
        """What is done inside is committed together, or not at all: never where it is a trial."""
        with _mapped():
            async with self._connection.transaction(force_rollback=is_trial):
                yield


class Database:
    """A pool of connections to one server.

    Opening does not wait for the server; a call made while it is away raises StoreUnavailable
    within `wait_s`. A connection that has rested for `check_after_s` is tried before it is given
    out. A session that lasts longer than `session_s` is cut off: whoever waits in it gets
    StoreUnavailable, however silent the server is; None lets sessions last. `statement_s` is how
    long the server works at one statement, also where nobody waits for it any more; the caller gets
    StoreUnavailable. A stream of which nothing comes for `silent_s` is cut off like a session. Rows
    are dicts; absent is None. Raises ConfigError if the URL is no Postgres URL.
    """

    def __init__(
        self,
        url: str,
        *,
        max_size: int = 4,
        wait_s: float = WAIT_S,
        check_after_s: float = 0.0,
        session_s: float | None = None,
        statement_s: float | None = None,
        silent_s: float | None = None,
    ) -> None:
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # our callers tell of outages
        self._pool: psycopg_pool.AsyncConnectionPool[_Connection]
        self._pool = psycopg_pool.AsyncConnectionPool(
            _checked(url),
            connection_class=psycopg.AsyncConnection[DictRow],
            kwargs={"autocommit": True, "row_factory": dict_row, "connect_timeout": CONNECT_S},
            min_size=0,
            max_size=max_size,
            open=False,
            timeout=wait_s,
            reconnect_timeout=RECONNECT_S,
            check=self._check,
            configure=self._begin,
        )
        self._check_after_s, self._session_s = check_after_s, session_s
        self._statement_s, self._silent_s = statement_s, silent_s
        self._check_s = min(CONNECT_S, wait_s / 3)  # so that whoever waits gets a new one in time
        self._drained = -math.inf
        self.connections = 0  # made so far; each may lead to another server than those before
        self._used: WeakKeyDictionary[_Connection, float] = WeakKeyDictionary()

    async def open(self) -> None:
        """Start the pool; connections are made when they are needed."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection for as long as the block lasts. Raises StoreUnavailable.

        One to a server that writes nothing any more is not used again: of several hosts the one
        that does is looked for anew.
        """
        with _mapped():
            async with self._pool.connection() as connection:
                try:
                    with _cut_after(connection, self._session_s):
                        yield Session(connection, self._silent_s)
                except StoreUnavailable as error:
                    if getattr(error.__cause__, "sqlstate", None) == _READ_ONLY:
                        await connection.close()
                    raise
                self._used[connection] = time.monotonic()

    async def fetch(self, name: str, /, **parameters: Any) -> list[Row]:
        """The rows of a named query, keyed by column. Raises StoreError."""
        async with self.session() as session:
            return await session.fetch(name, **parameters)

    async def ping(self) -> None:
        """Return if the server answers. Raises StoreUnavailable."""
        await self.fetch("ping")

    async def _check(self, connection: _Connection) -> None:
        rested_s = time.monotonic() - self._used.get(connection, 0.0)
        if rested_s >= self._check_after_s:
            try:
                with _cut_after(connection, self._check_s):
                    await psycopg_pool.AsyncConnectionPool.check_connection(connection)
            except psycopg.Error:
                await self._renew()
                raise

    async def _renew(self) -> None:
        """Make all resting connections anew: where one is lost, the others are too."""
        if time.monotonic() - self._drained > self._check_s:
            self._drained = time.monotonic()
            await self._pool.drain()

    async def _begin(self, connection: _Connection) -> None:
        self.connections += 1
        # What the server still holds for a session that we have cut off, it lets go of too.
        limits = {
            "limit_idle_transactions": self._session_s,
            "limit_statements": self._statement_s,
        }
        with _cut_after(connection, CONNECT_S):
            for name, seconds in limits.items():
                if seconds is not None:
                    await connection.execute(statement(name), {"ms": str(int(seconds * 1_000))})


def _checked(url: str) -> str:
    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        # The driver's message repeats the text, password and all.
        raise ConfigError("the database URL is not one that Postgres understands") from None
    if not url:
        raise ConfigError("STOCKIFY_DATABASE_URL is not set, and no instance is running")
    return url


async def _pages(
    cursor: psycopg.AsyncServerCursor[DictRow], page_rows: int, silent_s: float | None
) -> AsyncIterator[list[Row]]:
    while True:
        with _cut_after(cursor.connection, silent_s):
            page = await cursor.fetchmany(page_rows)
        if page:
            yield page
        if len(page) < page_rows:
            return


async def _blocks(
    copy: psycopg.AsyncCopy, connection: _Connection, block_bytes: int, silent_s: float | None
) -> AsyncGenerator[bytes, None]:
    """Whole rows of a binary COPY, joined.

    The driver is asked for one row, which waits; the rows that are here by then follow at once.
    Behind the trailer it is asked alone, as it closes the COPY.
    """
    pieces: list[Data] = []
    held, has_begun = 0, False
    while True:
        with _cut_after(connection, silent_s):
            data = await copy.read()
        if not data:
            break
        if not has_begun:
            data = data[len(_COPY_HEADER) :]  # which comes with the first row
            has_begun = True
        while len(data) > len(_COPY_TRAILER):  # as every row is
            pieces.append(data)
            held += len(data)
            if held >= block_bytes:
                yield b"".join(pieces)
                pieces, held = [], 0
                await asyncio.sleep(0)  # a server that is ahead of us leaves nobody else a turn
            data = _row_at_hand(connection.pgconn)
        if not data:
            await asyncio.sleep(GATHER_S)
    if pieces:
        yield b"".join(pieces)


def _row_at_hand(link: psycopg.pq.abc.PGconn) -> Data:
    """The next row of a COPY, if it came already. Raises psycopg.Error."""
    size, data = link.get_copy_data(1)
    if size == 0:
        link.consume_input()
        size, data = link.get_copy_data(1)
    if size < 0:
        raise _broken_off(link)
    return data if size else b""


def _broken_off(link: psycopg.pq.abc.PGconn) -> psycopg.Error:
    """Why the server ended a COPY; the link is ready for what comes next."""
    error: psycopg.Error = psycopg.OperationalError("the COPY broke off")
    while (result := link.get_result()) is not None and result.status != ExecStatus.COPY_OUT:
        if result.status == ExecStatus.FATAL_ERROR:
            error = psycopg.errors.error_from_result(result)
    return error


@contextlib.contextmanager
def _cut_after(connection: _Connection, seconds: float | None) -> Iterator[None]:
    """Shut the connection's socket if the block lasts longer: the driver then finds it lost.

    To cancel whoever waits would not do, for the driver asks the server then and waits on.
    """
    if seconds is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(seconds, _shut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: _Connection) -> None:
    with (
        contextlib.suppress(psycopg.Error, OSError),
        # A socket object of its own: closing it leaves the driver's descriptor open.
        socket.socket(fileno=os.dup(connection.fileno())) as own,
    ):
        own.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Let what psycopg raises leave as a StoreError that says whether to try again."""
    try:
        yield
    except (psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed) as error:
        raise StoreUnavailable(f"no connection to Postgres: {error}") from error
    except psycopg.Error as error:
        raise _store_error(error) from error


def _store_error(error: psycopg.Error) -> StoreError:
    state = error.sqlstate or ""
    text = error.diag.message_primary or str(error)
    message = f"{state} {text}".strip()
    if state[:2] in _REJECTED_CLASSES:
        return RowsRejected(message)
    if state[:2] in _UNAVAILABLE_CLASSES or state == _READ_ONLY:
        return StoreUnavailable(message)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return StoreUnavailable(message)
    return RowsRejected(message) if isinstance(error, psycopg.DataError) else StoreError(message)
