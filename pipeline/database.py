"""Postgres: a pool, the named queries of `sql/`, COPY, and the reads of the gateway.

The only room that knows psycopg; whatever goes wrong leaves it as a StoreError. It holds no SQL:
every statement is a named query of `sql/queries.sql`. It never decides what is stored.
"""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from importlib import resources
from typing import Any

import psycopg
import psycopg_pool
from psycopg.rows import DictRow, dict_row

from pipeline.clock import to_datetime
from pipeline.errors import ConfigError, DecodeError, RowsRejected, StoreError, StoreUnavailable
from pipeline.models import ContractId, parse_symbol

Row = dict[str, Any]

CONNECT_S = 5
WAIT_S = 3.0  # for a free connection; above it the store counts as away
RECONNECT_S = 2.0  # then the pool gives up and the next call tries anew, without a long back-off
# Where the last snapshot of a chain is looked for first, so that a question about now does not
# plan over every day there is.
AS_OF_WINDOWS = (timedelta(days=7), None)
_FIRST_NS = 0

_BLOCK = re.compile(r"^-- (name|fragment): (\w+)[ \t]*\n", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*--.*\n?", re.MULTILINE)

# Classes of SQLSTATE: the rows are wrong (22 data, 23 constraint); the server cannot now (08
# connection, 25006 read-only, 40 rolled back, 53 resources, 55 not in the right state, 57 operator,
# 58 system). What psycopg reports without one, a lost connection, is OperationalError.
_REJECTED_CLASSES = frozenset(("22", "23"))
_UNAVAILABLE_CLASSES = frozenset(("08", "40", "53", "55", "57", "58"))
_READ_ONLY = "25006"


class Query:
    """A named query: its text, and what the comment under its name says of it."""

    __slots__ = ("description", "name", "text")

    def __init__(self, name: str, text: str, description: str) -> None:
        self.name, self.text, self.description = name, text, description


@cache
def queries() -> Mapping[str, Query]:
    """The queries of `sql/queries.sql` by name. Raises ConfigError if the file is malformed."""
    return parse_queries(resources.files("sql").joinpath("queries.sql").read_text())


def parse_queries(text: str) -> dict[str, Query]:
    """The named queries in a text, fragments put in. Raises ConfigError."""
    parts = _BLOCK.split(text)
    fragments: dict[str, str] = {}
    found: dict[str, Query] = {}
    for kind, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if name in fragments or name in found:
            raise ConfigError(f"queries.sql: {name} stands there twice")
        statement = _COMMENT.sub("", body).strip()
        for other, piece in fragments.items():
            statement = statement.replace(f"{{{other}}}", piece)
        if "{" in statement or not statement:
            raise ConfigError(f"queries.sql: {name} is empty or names an unknown fragment")
        if kind == "fragment":
            fragments[name] = statement
            continue
        lines = [line for line in body.splitlines() if line.startswith("-- ")]
        found[name] = Query(name, statement, " ".join(line[3:] for line in lines))
    return found


class Session:
    """One connection while somebody holds it. Every method raises a StoreError."""

    def __init__(self, connection: psycopg.AsyncConnection[DictRow]) -> None:
        self._connection = connection

    async def fetch(self, name: str, /, **parameters: Any) -> list[Row]:
        """The rows of a named query, keyed by column."""
        with _mapped():
            cursor = await self._connection.execute(_statement(name), parameters)
            return await cursor.fetchall()

    async def execute(self, name: str, /, **parameters: Any) -> int:
        """Run a named query that gives no rows; the number of rows it touched."""
        with _mapped():
            cursor = await self._connection.execute(_statement(name), parameters)
            return cursor.rowcount

    async def run_script(self, text: str) -> None:
        """Run the statements of a migration."""
        with _mapped():
            await self._connection.execute(text.encode())

    async def copy_buffer(self, name: str, buffer: bytes | bytearray | memoryview) -> None:
        """Send a whole binary COPY, header and trailer included."""
        with _mapped():
            async with (
                self._connection.cursor() as cursor,
                cursor.copy(_statement(name)) as copy,
            ):
                await copy.write(buffer)

    async def copy_rows(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
        """Send rows one by one; for tables with few of them."""
        with _mapped():
            async with (
                self._connection.cursor() as cursor,
                cursor.copy(_statement(name)) as copy,
            ):
                for row in rows:
                    await copy.write_row(row)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """What is done inside is committed together, or not at all."""
        with _mapped():
            async with self._connection.transaction():
                yield


class Database:
    """A pool of connections to one server, and what the gateway reads there.

    Opening does not wait for the server; a call made while it is away raises StoreUnavailable
    within `wait_s`. Instants are int ns UTC and ranges half-open, `[start_ns, end_ns)`. Rows are
    dicts; absent is None. Raises ConfigError if the URL is no Postgres URL.
    """

    def __init__(self, url: str, *, max_size: int = 4, wait_s: float = WAIT_S) -> None:
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # our callers tell of outages
        self._pool: psycopg_pool.AsyncConnectionPool[psycopg.AsyncConnection[DictRow]]
        self._pool = psycopg_pool.AsyncConnectionPool(
            _checked(url),
            connection_class=psycopg.AsyncConnection[DictRow],
            kwargs={"autocommit": True, "row_factory": dict_row, "connect_timeout": CONNECT_S},
            min_size=0,
            max_size=max_size,
            open=False,
            timeout=wait_s,
            reconnect_timeout=RECONNECT_S,
            check=psycopg_pool.AsyncConnectionPool.check_connection,
        )

    async def open(self) -> None:
        """Start the pool; connections are made when they are needed."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection for as long as the block lasts. Raises StoreUnavailable."""
        with _mapped():
            async with self._pool.connection() as connection:
                yield Session(connection)

    async def fetch(self, name: str, /, **parameters: Any) -> list[Row]:
        """The rows of a named query, keyed by column. Raises StoreError."""
        async with self.session() as session:
            return await session.fetch(name, **parameters)

    async def ping(self) -> None:
        """Return if the server answers. Raises StoreUnavailable."""
        await self.fetch("ping")

    async def contract_history(
        self,
        symbol: str,
        start_ns: int,
        end_ns: int,
        limit: int,
        after_ns: int | None = None,
        newest_first: bool = False,
    ) -> list[Row]:
        """Rows of a contract: ts_ingest, ts_event, provider, rev, spot, forward and the leg's
        values (strike, kind and security_id are the instrument's). `after_ns` is the `ts_ingest`
        of the last row of the page before. An unknown contract has none. Raises StoreError;
        DecodeError if the symbol is no contract's.
        """
        contract = parse_symbol(symbol)
        if not isinstance(contract, ContractId):
            raise DecodeError(f"not the symbol of a contract: {symbol!r}")
        if after_ns is not None:
            start_ns, end_ns = _behind(start_ns, end_ns, after_ns, newest_first)
        async with self.session() as session:
            known = await session.fetch("instruments_of_symbol", symbol=symbol)
            if not known or start_ns >= end_ns:
                return []
            return await session.fetch(
                _directed("contract_history", newest_first),
                underlying=contract.underlying,
                expiry=contract.expiry,
                instrument_ids=[row["instrument_id"] for row in known],
                providers=sorted({row["provider"] for row in known}),
                start=to_datetime(start_ns),
                end=to_datetime(end_ns),
                limit=limit,
            )

    async def underlying_history(
        self,
        underlying: str,
        expiry: date | None,
        start_ns: int,
        end_ns: int,
        limit: int,
        after: tuple[int, str] | None = None,
        newest_first: bool = False,
    ) -> list[Row]:
        """Snapshots of an underlying, through one chain or all: ts_ingest, ts_event, chain and the
        header's and the aggregates' fields. `after` is `ts_ingest` and `chain` of the last row of
        the page before. Raises StoreError; DecodeError if `after` names no chain.
        """
        parameters: Row = {"underlying": underlying, "limit": limit}
        if expiry is not None:
            if after is not None:
                start_ns, end_ns = _behind(start_ns, end_ns, after[0], newest_first)
            name = _directed("chain_history", newest_first)
            parameters["expiry"] = expiry
        else:
            name = _directed("underlying_history", newest_first)
            after_ns, after_expiry = _position(after, start_ns, end_ns, newest_first)
            parameters |= {"after_ts": to_datetime(after_ns), "after_expiry": after_expiry}
        if start_ns >= end_ns:
            return []
        parameters |= {"start": to_datetime(start_ns), "end": to_datetime(end_ns)}
        return await self.fetch(name, **parameters)

    async def chain_as_of(
        self, underlying: str, expiry: date, at_ns: int
    ) -> tuple[Row, list[Row]] | None:
        """The last snapshot of a chain at or before an instant: its header, as
        `underlying_history` gives it, and its legs by strike, the call before the put: symbol and
        every field of the leg layout. None if there is none. Raises StoreError.
        """
        at = to_datetime(at_ns)
        async with self.session() as session:
            for window in AS_OF_WINDOWS:
                since = at - window if window else to_datetime(_FIRST_NS)
                found = await session.fetch(
                    "chain_snapshot_as_of", underlying=underlying, expiry=expiry, since=since, at=at
                )
                if found:
                    break
            else:
                return None
            header = found[0]
            legs = await session.fetch(
                "chain_legs",
                underlying=underlying,
                expiry=expiry,
                provider=header["provider"],
                ts=to_datetime(header["ts_ingest"]),
                rev=header["rev"],
            )
        return header, legs

    async def underlyings(self) -> list[Row]:
        """Underlyings that have contracts: underlying, and expiries as dates, ascending."""
        return await self.fetch("underlyings")

    async def instrument(self, symbol: str) -> list[Row]:
        """Every definition of a contract, oldest first; `valid_to` is None while it holds."""
        return await self.fetch("instruments_of_symbol", symbol=symbol)

    async def instruments(self, underlying: str, expiry: date) -> list[Row]:
        """Every definition of a chain's contracts, by strike, the call before the put."""
        return await self.fetch("instruments_of_chain", underlying=underlying, expiry=expiry)


def _statement(name: str) -> bytes:
    return queries()[name].text.encode()


def _directed(name: str, newest_first: bool) -> str:
    return f"{name}_newest_first" if newest_first else name


def _behind(start_ns: int, end_ns: int, after_ns: int, newest_first: bool) -> tuple[int, int]:
    """The part of a range that lies behind a row already seen."""
    if newest_first:
        return start_ns, min(end_ns, after_ns)
    return max(start_ns, after_ns + 1_000), end_ns  # Postgres keeps whole microseconds


def _position(
    after: tuple[int, str] | None, start_ns: int, end_ns: int, newest_first: bool
) -> tuple[int, date]:
    """The instant and expiry behind which a page of all chains begins."""
    if after is None:
        return (end_ns, date.max) if newest_first else (start_ns, date.min)
    chain = parse_symbol(after[1])
    if isinstance(chain, str):
        raise DecodeError(f"not the symbol of a chain: {after[1]!r}")
    return after[0], chain.expiry


def _checked(url: str) -> str:
    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        # The driver's message repeats the text, password and all.
        raise ConfigError("the database URL is not one that Postgres understands") from None
    if not url:
        raise ConfigError("STOCKIFY_DATABASE_URL is not set, and no instance is running")
    return url


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
