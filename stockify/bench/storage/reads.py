"""`stockify bench storage --only reads`: what reading the past takes, on twenty million rows.

Each read is asked as the gateway asks it, at random instants of random days, and right after it
with the same queries on the same rows in one heap without partitions (schema `unpartitioned`, same
key). So the two columns of a kind of server compare; two servers do not.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import date
from functools import partial

import msgspec
import numpy as np

from pipeline import history
from pipeline.candles import contract_candles, refresh_candles
from pipeline.clock import SECOND_NS, to_ns
from pipeline.database import Database
from pipeline.models import Kind, chain_symbol, contract_symbol
from pipeline.newest import newest_of_chain
from pipeline.series import chain_series, iv_history
from stockify.bench.report import Column, Grid, Line
from stockify.bench.storage import servers
from stockify.bench.storage.past import SESSION_S, UNDERLYINGS, UNPARTITIONED, Past, fill

ROUNDS, QUICK_ROUNDS = 150, 30
WARM_ROUNDS = 15  # plans are made once for all parameters after five
PAGE_ROWS = 500
TARGETS_MS = {"chain_as_of": 15.0, "candles_1m_day": 20.0}

_COLUMNS = (
    Column("p50_ms", "p50 ms", ",.1f"),
    Column("p95_ms", "p95 ms", ",.1f"),
    Column("heap_p50_ms", "in one heap, p50 ms", ",.1f"),
    Column("heap_p95_ms", "p95 ms", ",.1f"),
    Column("of_heap", "ours ÷ heap", ".2f"),
)

Times = dict[str, list[float]]


class Choice(msgspec.Struct, frozen=True):
    """What is asked about: a chain, one of its contracts, an instant, and the session around it."""

    underlying: str
    expiry: date
    symbol: str
    at_ns: int
    start_ns: int
    end_ns: int


Ask = Callable[[Database, Choice], Awaitable[object]]


async def _chain_as_of(database: Database, of: Choice) -> object:
    return await history.chain_as_of(database, of.underlying, of.expiry, of.at_ns)


async def _contract_page(database: Database, of: Choice) -> object:
    return await history.contract_history(
        database, of.symbol, of.at_ns, of.at_ns + 86_400 * SECOND_NS, PAGE_ROWS
    )


async def _snapshot_page(database: Database, of: Choice) -> object:
    return await history.underlying_history(
        database, of.underlying, None, of.at_ns, of.at_ns + 86_400 * SECOND_NS, PAGE_ROWS
    )


async def _newest(database: Database, of: Choice) -> object:
    return await newest_of_chain(database, of.underlying, of.expiry, of.at_ns)


async def _iv_day(database: Database, of: Choice) -> object:
    return await iv_history(database, of.symbol, of.start_ns, of.end_ns, 60)


async def _series_day(database: Database, of: Choice) -> object:
    return await chain_series(database, of.underlying, of.expiry, of.start_ns, of.end_ns, 60)


async def _candles_day(database: Database, of: Choice) -> object:
    return await contract_candles(database, of.symbol, 60, of.start_ns, of.end_ns, SESSION_S // 60)


READS: dict[str, tuple[str, Ask]] = {
    "chain_as_of": ("a chain as of an instant", _chain_as_of),
    "contract_page": (f"{PAGE_ROWS} rows of a contract", _contract_page),
    "snapshot_page": (f"{PAGE_ROWS} snapshots of an underlying", _snapshot_page),
    "newest": ("the newest row of each contract of a chain", _newest),
    "candles_1m_day": ("a contract's candles, a day by the minute", _candles_day),
    "iv_1m_day": ("a contract's volatility, a day by the minute", _iv_day),
    "series_1m_day": ("a chain's aggregates, a day by the minute", _series_day),
}


def measure_reads(say: Callable[[str], None], *, quick: bool) -> tuple[list[Line], list[Grid]]:
    """Fill a server of each kind in turn and ask it."""
    past = Past(snapshots=500) if quick else Past()
    rounds = QUICK_ROUNDS if quick else ROUNDS
    caption = f"{past.legs:,} contract rows, {past.days} days; {rounds} times each, in turns"
    lines: list[Line] = []
    grids: list[Grid] = []
    for kind in (servers.PLAIN, servers.HYPERTABLE):
        with servers.open_directory() as directory, servers.running(directory, (kind,)) as urls:
            if kind not in urls:
                say(servers.NO_TIMESCALE)
                continue
            fill(urls[kind], past, partial(_say_of, say, kind))
            asyncio.run(roll(urls[kind], past))
            say(f"{kind}: candles are rolled")
            taken = asyncio.run(_asked(urls[kind], past, rounds))
        lines += _lines(kind, taken[False])
        grids.append(_grid(kind, taken, caption))
    return lines, grids


def choose(past: Past, chosen: random.Random) -> Choice:
    """A contract, an instant in the first half of a session, and that session."""
    underlying, expiry = chosen.choice(past.chains)
    spot, step = next((spot, step) for name, spot, step in UNDERLYINGS if name == underlying)
    strike = spot + step * chosen.randrange(-past.strikes // 2, past.strikes // 2)
    symbol = contract_symbol(chain_symbol(underlying, expiry), strike, chosen.choice(list(Kind)))
    start = past.session_start(chosen.randrange(past.days))
    start_ns = to_ns(start)
    at_ns = start_ns + chosen.randrange(SECOND_NS, SESSION_S // 2 * SECOND_NS)
    return Choice(underlying, expiry, symbol, at_ns, start_ns, start_ns + SESSION_S * SECOND_NS)


async def roll(url: str, past: Past) -> None:
    """Make the candles of a past, and copy those of the minutes to a heap too."""
    database = Database(url)
    try:
        await database.open()
        for number in range(past.days):
            start_ns = to_ns(past.session_start(number))
            await refresh_candles(database, start_ns, start_ns + SESSION_S * SECOND_NS)
        async with database.session() as session:
            await session.execute("bench_make_heap_of_candles")
            await session.execute("bench_fill_heap_of_candles")
            await session.execute("bench_vacuum")
    finally:
        await database.close()


def heap_url(url: str) -> str:
    """Where the same queries find the heaps."""
    return f"{url}?options=-c%20search_path%3D{UNPARTITIONED}%2Cpublic"


def _say_of(say: Callable[[str], None], kind: str, said: str) -> None:
    say(f"{kind}: {said}")


def _grid(kind: str, taken: dict[bool, Times], caption: str) -> Grid:
    rows = {}
    for name, (title, _) in READS.items():
        ours, heap = np.array(taken[False][name]), np.array(taken[True][name])
        p50, p95 = np.percentile(ours, (50, 95)).tolist()
        heap_p50, heap_p95 = np.percentile(heap, (50, 95)).tolist()
        rows[title] = {
            "p50_ms": p50,
            "p95_ms": p95,
            "heap_p50_ms": heap_p50,
            "heap_p95_ms": heap_p95,
            "of_heap": float(np.median(ours / heap)),
        }
    return Grid(f"Reading the past, {kind}", _COLUMNS, rows, caption, f"reads_{kind}")


def _lines(kind: str, times: Times) -> list[Line]:
    return [
        Line(
            key=f"{name}_{kind}_p50_ms",
            name=f"{READS[name][0]}, {kind}, p50",
            value=float(np.median(times[name])),
            unit="ms",
            digits=1,
            target=f"≤ {target:.0f}",
        )
        for name, target in TARGETS_MS.items()
    ]


async def _asked(url: str, past: Past, rounds: int) -> dict[bool, Times]:
    """The ms each read took, by whether it asked the heap, and by name."""
    opened = {False: Database(url), True: Database(heap_url(url))}
    taken: dict[bool, Times] = {is_heap: {name: [] for name in READS} for is_heap in opened}
    chosen = random.Random(20260119)
    try:
        for database in opened.values():
            await database.open()
        for number in range(WARM_ROUNDS + rounds):
            for name, (_, ask) in READS.items():
                choice = choose(past, chosen)
                for is_heap, database in opened.items():
                    started = time.perf_counter()
                    answer = await ask(database, choice)
                    if number >= WARM_ROUNDS:
                        taken[is_heap][name].append((time.perf_counter() - started) * 1_000)
                    if not answer:
                        raise RuntimeError(f"{name} of {choice} found nothing")
    finally:
        for database in opened.values():
            await database.close()
    return taken
