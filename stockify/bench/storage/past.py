"""A past to read from: days of chains, made fast and loaded by COPY, and the same rows in one heap.

Every row stands at its place in the binary format already and has no NULL, so that a snapshot is a
copy of the one before with other instants, prices and volumes in it. Never measures anything.
"""

import datetime
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray

from pipeline.models import Kind, chain_symbol, contract_symbol
from pipeline.queries import statement

UNPARTITIONED = "unpartitioned"  # the schema in which the same tables stand as plain heaps
UNDERLYINGS = (("NIFTY", 25_000.0, 50.0), ("BANKNIFTY", 52_000.0, 100.0))
EXPIRIES = (datetime.date(2026, 1, 27), datetime.date(2026, 2, 24))
FIRST_DAY = datetime.date(2026, 1, 19)  # a Monday
SESSION_STARTS = datetime.time(3, 45, tzinfo=datetime.UTC)
SESSION_S = 22_500
PIECE = 100  # snapshots in one buffer
_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

# Columns as `copy_option_contracts` has them.
_COLUMNS = (
    *((name, ">i8") for name in ("ts", "volume")),
    ("instrument_id", ">i4"),
    *((n, ">i4") for n in ("bid_size", "ask_size", "open_interest", "previous_open_interest")),
    *((name, ">f4") for name in ("last", "bid", "ask", "average", "previous_close")),
    *((name, ">f4") for name in ("iv", "delta", "gamma", "theta", "vega", "rho", "iv_fit")),
    *((f"{n}_provider", ">f4") for n in ("iv", "delta", "gamma", "theta", "vega")),
    *((name, ">i2") for name in ("rev", "iv_status", "price_source", "greeks_source")),
)
_ROW = np.dtype(
    [("fields", ">i2")]
    + [pair for n, kind in _COLUMNS for pair in ((f"width_{n}", ">i4"), (n, kind))]
)

Rows = NDArray[np.void]


class Past(msgspec.Struct, frozen=True):
    """How much there is: `days` days, each of `snapshots` of every chain, of `strikes` strikes."""

    days: int = 5
    snapshots: int = 5_000
    strikes: int = 100

    @property
    def chains(self) -> list[tuple[str, datetime.date]]:
        """Underlying and expiry of every chain."""
        return [(name, expiry) for name, _, _ in UNDERLYINGS for expiry in EXPIRIES]

    @property
    def legs(self) -> int:
        """Rows in option_contracts."""
        return self.days * self.snapshots * len(self.chains) * self.strikes * 2

    @property
    def step(self) -> datetime.timedelta:
        """Between two snapshots of a chain."""
        return datetime.timedelta(seconds=SESSION_S / self.snapshots)

    def day(self, number: int) -> datetime.date:
        """A day of it, from 0."""
        return FIRST_DAY + datetime.timedelta(days=number)

    def session_start(self, number: int) -> datetime.datetime:
        """When the session of a day began."""
        return datetime.datetime.combine(self.day(number), SESSION_STARTS)

    def instant(self, day: int, snapshot: int, chain: int) -> datetime.datetime:
        """When a snapshot was received: one chain a tenth of a second after the other."""
        at = self.session_start(day) + self.step * snapshot
        return at + datetime.timedelta(milliseconds=100 * chain)


def fill(url: str, past: Past, say: Callable[[str], None], *, beside: bool = True) -> None:
    """Load a migrated, empty database; `beside`: the same rows into heaps of a schema too."""
    with psycopg.connect(url, autocommit=True) as connection:
        days = [past.day(number) for number in range(past.days)]
        connection.execute(statement("make_days"), {"days": days})
        ids = [_instruments(connection, past, *named) for named in UNDERLYINGS]
        _load(connection, past, np.concatenate(ids, axis=None))
        say(f"{past.legs:,} contract rows are loaded")
        if beside:
            connection.execute(statement("bench_make_unpartitioned"))
            connection.execute(statement("bench_make_heap_of_snapshots"))
            connection.execute(statement("bench_make_heap_of_contracts"))
            connection.execute(statement("bench_read_unpartitioned"))
            _load(connection, past, np.concatenate(ids, axis=None))
            say("and once more in one heap")
        connection.execute(statement("bench_vacuum"))


def _load(connection: psycopg.Connection, past: Past, ids: NDArray[np.int32]) -> None:
    _add_snapshots(connection, past)
    _copy_contracts(connection, past, ids)


def _instruments(
    connection: psycopg.Connection, past: Past, underlying: str, spot: float, step: float
) -> NDArray[np.int32]:
    """Define the contracts of an underlying's chains; their ids by expiry, strike and kind."""
    strikes = [spot + step * (number - past.strikes // 2) for number in range(past.strikes)]
    found = []
    for expiry in EXPIRIES:
        chain = chain_symbol(underlying, expiry)
        legs = [(strike, kind) for strike in strikes for kind in (Kind.CALL, Kind.PUT)]
        added = {
            "symbols": [contract_symbol(chain, strike, kind) for strike, kind in legs],
            "strikes": [strike for strike, _ in legs],
            "kinds": [kind.name.lower() for _, kind in legs],
            "security_ids": [None for _ in legs],
            "lots": [65 for _ in legs],
            "valid_to": [None for _ in legs],
        }
        names = {"underlying": underlying, "expiry": expiry, "provider": "simulator"}
        valid_from = past.session_start(0)
        connection.execute(statement("add_instruments"), added | names | {"valid_from": valid_from})
        rows = connection.execute(statement("instruments_of_chain"), names).fetchall()
        found.append([row[0] for row in rows])
    return np.array(found, np.int32)


def _add_snapshots(connection: psycopg.Connection, past: Past) -> None:
    for day in range(past.days):
        for number, (underlying, expiry) in enumerate(past.chains):
            spot = next(spot for name, spot, _ in UNDERLYINGS if name == underlying)
            connection.execute(
                statement("bench_add_snapshots"),
                {
                    "first": past.instant(day, 0, number),
                    "step": past.step,
                    "snapshots": past.snapshots,
                    "underlying": underlying,
                    "expiry": expiry,
                    "spot": spot,
                    "n": past.strikes * 2,
                },
            )


def _copy_contracts(connection: psycopg.Connection, past: Past, ids: NDArray[np.int32]) -> None:
    for day in range(past.days):
        with connection.cursor().copy(statement("copy_option_contracts")) as copy:
            copy.write(_HEADER)
            for rows in _pieces(past, day, ids):
                copy.write(rows.reshape(-1).view(np.uint8).data)
            copy.write(_TRAILER)


def _pieces(past: Past, day: int, ids: NDArray[np.int32]) -> Iterator[Rows]:
    """The rows of a day, a hundred snapshots of all chains at a time, as they would have come."""
    legs, chains = past.strikes * 2, len(past.chains)
    rows = np.zeros((PIECE, chains * legs), _ROW)
    rows["fields"] = len(_COLUMNS)
    for name, kind in _COLUMNS:
        rows[f"width_{name}"] = np.dtype(kind).itemsize
        rows[name] = 1
    rows["instrument_id"] = ids
    base = 50 + 10 * np.abs(np.arange(chains * legs) % 40 - 20)
    start_us = round((past.session_start(day) - _EPOCH).total_seconds() * 1e6)
    step_us = round(past.step.total_seconds() * 1e6)
    after_us = np.repeat(np.arange(chains) * 100_000, legs)
    for first in range(0, past.snapshots, PIECE):
        number = np.arange(first, min(first + PIECE, past.snapshots))[:, np.newaxis]
        piece = rows[: len(number)]
        piece["ts"] = start_us + number * step_us + after_us
        piece["volume"] = number * (base // 10)
        piece["last"] = base * (1 + 0.1 * np.sin(number / 300))
        piece["iv"] = 0.12 + 0.02 * np.cos(number / 300)
        yield np.ascontiguousarray(piece)
