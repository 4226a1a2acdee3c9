"""How the server answers reads: by an index, and of the days that are asked for alone."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import date, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest

from pipeline import history
from pipeline.candles import contract_candles, refresh_candles
from pipeline.clock import SECOND_NS, to_ns
from pipeline.database import Database, Row, Session
from pipeline.newest import newest_of_chain, newest_of_underlying
from pipeline.queries import queries
from pipeline.series import chain_series, iv_history
from stockify.bench.storage.past import Past, fill
from tests.support.postgres import PostgresServer, open_database

PAST = Past(days=4, snapshots=300, strikes=8)
INDEXED = ("Index Scan", "Index Only Scan", "Bitmap Heap Scan")
MIDDLE = 2  # the day that is asked about
CHAIN = ("NIFTY", date(2026, 1, 27))
CALL = "NIFTY-20260127-25000-CE"
START_NS = to_ns(PAST.session_start(MIDDLE))
NOON_NS = START_NS + 11_000 * SECOND_NS
END_NS = START_NS + 30_000 * SECOND_NS

ROLLED_NS = 2_400 * SECOND_NS  # of each day; all of it would take the tests' time

Read = Callable[[Database], Awaitable[Any]]


class Scan(NamedTuple):
    """A table that a plan looks into: which one, how, how many rows it gave, and the condition."""

    table: str
    kind: str
    rows: float
    condition: str


class Asked(NamedTuple):
    """A named query as it was asked."""

    name: str
    parameters: dict[str, Any]


class Explaining:
    """Explains queries on one connection; `days_of` are the UTC days [from, to) of each partition
    or chunk."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._client = psycopg.ClientCursor(connection)
        self._server = connection
        self._server.prepared_max = 1
        self._server.prepare_threshold = 1_000_000  # only what is told to be
        self.days_of = self._days()

    def scans_of(self, query: Asked, mode: str = "force_custom_plan") -> list[Scan]:
        """The scans that came to be executed, in a plan for these parameters or for any."""
        text = queries()[query.name].text
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
        self._server.execute(f"SET plan_cache_mode = {mode}".encode())
        self._server.execute(text.encode(), query.parameters, prepare=True)
        ((prepared,),) = self._server.execute(
            "SELECT name FROM pg_prepared_statements ORDER BY prepare_time DESC LIMIT 1"
        ).fetchall()
        explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE {prepared}"
        if names:
            explain += f" ({', '.join(['%s'] * len(names))})"
        values = [query.parameters[name] for name in names]
        ((found,),) = self._client.execute(explain.encode(), values).fetchall()
        return [scan for scan in _scans(found[0]["Plan"]) if scan.table in self.days_of]

    @contextlib.contextmanager
    def without_indexes(self) -> Iterator[None]:
        """As if the tables had none."""
        kinds = ("indexscan", "indexonlyscan", "bitmapscan")
        for value in ("off", "on"):
            for kind in kinds:
                self._server.execute(f"SET enable_{kind} = {value}".encode())
            if value == "off":
                yield

    def _days(self) -> dict[str, tuple[date, date]]:
        chunks = self._server.execute("SELECT to_regclass('timescaledb_information.chunks')")
        if chunks.fetchone() != (None,):
            rows = self._server.execute(
                "SELECT chunk_name, (range_start AT TIME ZONE 'UTC')::date,"
                " (range_end AT TIME ZONE 'UTC')::date FROM timescaledb_information.chunks"
            ).fetchall()
            return {name: (starts, ends) for name, starts, ends in rows}
        parts = self._server.execute(
            "SELECT relname, right(relname, 8)::date FROM pg_class"
            " WHERE relispartition AND relkind = 'r'"
        ).fetchall()
        return {name: (day, day + timedelta(days=1)) for name, day in parts}


@pytest.fixture(scope="module", params=["plain", "timescale"])
def past_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with four days in it, on each kind of server in turn."""
    name = "wheel_server" if request.param == "plain" else "timescale_server"
    server: PostgresServer = request.getfixturevalue(name)
    with server.database() as url:
        fill(url, PAST, lambda said: None, beside=False)
        asyncio.run(rolled(url))
        yield url


async def rolled(url: str) -> None:
    async with open_database(url) as opened:
        for day in range(PAST.days):
            start_ns = to_ns(PAST.session_start(day))
            await refresh_candles(opened, start_ns, start_ns + ROLLED_NS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")


@pytest.fixture(scope="module")
def explaining(past_url: str) -> Iterator[Explaining]:
    """What explains queries there."""
    with psycopg.connect(past_url, autocommit=True) as connection:
        yield Explaining(connection)


@pytest.fixture
async def database(past_url: str) -> AsyncIterator[Database]:
    async with open_database(past_url) as opened:
        yield opened


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Every named query that is fetched from now on."""
    noted: list[Asked] = []
    fetch = Session.fetch

    async def noting(session: Session, name: str, /, **parameters: Any) -> list[Row]:
        noted.append(Asked(name, parameters))
        return await fetch(session, name, **parameters)

    monkeypatch.setattr(Session, "fetch", noting)
    return noted


async def streamed(database: Database) -> None:
    """The stream is no fetch, so what it asks is fetched beside."""
    parameters = {"start": PAST.session_start(MIDDLE), "end": PAST.instant(MIDDLE, 20, 0)}
    chain = {"underlying": CHAIN[0], "expiry": CHAIN[1], "rev": None}
    assert await database.fetch("legs_between", **parameters, **chain)


READS: dict[str, Read] = {
    "contract": lambda d: history.contract_history(d, CALL, START_NS, END_NS, 100),
    "contract newest first": lambda d: history.contract_history(
        d, CALL, START_NS, END_NS, 100, newest_first=True
    ),
    "chain": lambda d: history.underlying_history(d, *CHAIN, START_NS, END_NS, 100),
    "underlying": lambda d: history.underlying_history(d, CHAIN[0], None, START_NS, END_NS, 100),
    "underlying newest first": lambda d: history.underlying_history(
        d, CHAIN[0], None, START_NS, END_NS, 100, newest_first=True
    ),
    "chain as of": lambda d: history.chain_as_of(d, *CHAIN, NOON_NS),
    "newest of a chain": lambda d: newest_of_chain(d, *CHAIN, NOON_NS),
    "newest of an underlying": lambda d: newest_of_underlying(d, CHAIN[0], NOON_NS),
    "series": lambda d: chain_series(d, *CHAIN, START_NS, END_NS, 300),
    "iv": lambda d: iv_history(d, CALL, START_NS, END_NS, 300),
    "candles": lambda d: contract_candles(d, CALL, 60, START_NS, END_NS, 400),
    "candles of rows": lambda d: contract_candles(
        d, CALL, 30, START_NS, START_NS + 3_600 * SECOND_NS, 400
    ),
    "stream": streamed,
}


@pytest.mark.parametrize("name", READS)
async def test_read_uses_an_index_and_the_days_it_asks_for(
    explaining: Explaining, database: Database, asked: list[Asked], name: str
) -> None:
    """Also where the server has planned once for all parameters, as it may after five times."""
    await READS[name](database)
    for mode in ("force_custom_plan", "force_generic_plan"):
        scans = [scan for query in asked for scan in explaining.scans_of(query, mode)]
        assert scans
        for scan in scans:
            assert scan.kind in INDEXED, (mode, scan)
            assert "ts" in scan.condition, (mode, scan)
            first, end = explaining.days_of[scan.table]
            # What an exchange day traded before is asked from midnight in India on.
            assert PAST.day(MIDDLE - ("candles" in name)) <= first < end, (mode, scan)
            assert first <= PAST.day(MIDDLE), (mode, scan)


async def test_page_of_a_range_without_end_reads_a_page(
    explaining: Explaining, database: Database, asked: list[Asked]
) -> None:
    await history.contract_history(database, CALL, 0, 2**62, 50)
    await history.underlying_history(database, *CHAIN, 0, 2**62, 50)
    for query in asked:
        scans = explaining.scans_of(query)
        assert {explaining.days_of[scan.table][0] for scan in scans} <= {PAST.day(0)}
        assert sum(scan.rows for scan in scans) <= 100


async def test_legs_at_instants_are_one_scan_of_the_key(
    explaining: Explaining, database: Database, asked: list[Asked]
) -> None:
    await history.contract_history(database, CALL, START_NS, END_NS, 100)
    (query,) = [query for query in asked if query.name == "legs_at"]
    (scan,) = explaining.scans_of(query)
    assert "ts = ANY" in scan.condition
    assert "instrument_id = ANY" in scan.condition


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_candles_of_a_contract_are_found_by_it_and_not_by_the_time_alone(
    explaining: Explaining, database: Database, asked: list[Asked], mode: str
) -> None:
    await contract_candles(database, CALL, 60, START_NS, END_NS, 400)
    scans = [
        scan
        for query in asked
        if query.name == "contract_candles_1m_kept"
        for scan in explaining.scans_of(query, mode)
    ]
    assert scans
    for scan in scans:
        assert scan.condition.lstrip("(").startswith("instrument_id = "), scan


def test_scan_of_everything_is_noticed(explaining: Explaining) -> None:
    whole = {"start": PAST.session_start(0), "end": PAST.session_start(PAST.days)}
    with explaining.without_indexes():
        scans = explaining.scans_of(Asked("uneven_instants", whole))
    days = {PAST.day(number) for number in range(PAST.days)}
    assert {explaining.days_of[scan.table][0] for scan in scans} == days
    assert {scan.kind for scan in scans} == {"Seq Scan"}


def _scans(node: dict[str, Any]) -> Iterator[Scan]:
    if node.get("Relation Name") and node["Actual Loops"] and node["Node Type"] != "Custom Scan":
        condition = str(node.get("Index Cond", node.get("Recheck Cond", "")))
        rows = node["Actual Rows"] * node["Actual Loops"]
        yield Scan(node["Relation Name"], node["Node Type"], rows, condition)
    for child in node.get("Plans", ()):
        yield from _scans(child)
