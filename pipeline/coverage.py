"""How much of a range is stored, and why the rest is not: what every history is worth.

`upstream` and `us` gaps are read as ingest reported them; `closed` ones follow from the calendar
and are stored nowhere. Instants are int ns UTC. It judges nothing, and writes nothing.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pipeline import calendar
from pipeline.clock import SECOND_NS, to_datetime
from pipeline.database import Database, Row, Session
from pipeline.models import ChainId, ContractId, chain_symbol, parse_symbol
from pipeline.polls import MINUTE_NS, missed_between

CLOSED = "closed"
LONGEST_CLOSED_NS = 366 * 86_400 * SECOND_NS  # so far back from its end a range tells closures


class Gap(msgspec.Struct, frozen=True):
    """Time [starts, ends) without snapshots: `cause` is `closed`, `upstream` or `us`.

    `symbol` is the chain it is of, `detail` a word of what happened (`docs/data-model.md`), both
    empty where the exchange was closed; `missed` polls were due in it.
    """

    starts: int
    ends: int
    cause: str
    symbol: str = ""
    detail: str = ""
    missed: int = 0


class Counts(msgspec.Struct, frozen=True):
    """Snapshots expected and present, and polls missed by cause; those were expected too."""

    expected: int = 0
    present: int = 0
    upstream: int = 0
    us: int = 0


class Coverage(msgspec.Struct, frozen=True):
    """What a symbol has of the minutes that touch a range, and its gaps within it, oldest first.

    `chains` has the counts of each chain behind the symbol: of a contract its own.
    """

    symbol: str
    counts: Counts
    chains: dict[str, Counts]
    gaps: tuple[Gap, ...]


async def coverage(database: Database, symbol: str, start_ns: int, end_ns: int) -> Coverage:
    """The coverage of an underlying, a chain or a contract over [start_ns, end_ns).

    Raises StoreError; DecodeError where the text is no symbol.
    """
    found = parse_symbol(symbol)
    async with database.session() as session:
        if isinstance(found, str):
            underlying = found
            rows = await session.fetch(
                "coverage_chains", underlying=underlying, **_minutes(start_ns, end_ns)
            )
        else:
            underlying, chain = found.underlying, _chain(found)
            minutes = await session.fetch(
                "coverage_minutes", symbol=chain, **_minutes(start_ns, end_ns)
            )
            rows = [{"symbol": chain, **row} for row in minutes]
        chains = _by_chain(rows)
        symbols = [*chains] if isinstance(found, str) else [_chain(found)]
        gaps = await read_gaps(session, symbols, start_ns, end_ns)
    gaps += closed_gaps(start_ns, end_ns, _exchange(underlying))
    gaps.sort(key=lambda gap: (gap.starts, gap.symbol))
    return Coverage(symbol, total(chains.values()), chains, tuple(gaps))


async def minutes_of(
    database: Database, chain: str, start_ns: int, end_ns: int
) -> list[tuple[int, Counts]]:
    """The minutes of a chain that touch [start_ns, end_ns) and of which anything is known."""
    rows = await database.fetch("coverage_minutes", symbol=chain, **_minutes(start_ns, end_ns))
    return [(row["minute"], _counts(row)) for row in rows]


async def read_gaps(
    session: Session | Database, symbols: Sequence[str] | None, start_ns: int, end_ns: int
) -> list[Gap]:
    """The gaps that these chains, or all, have within [start_ns, end_ns), cut to it."""
    rows = await session.fetch(
        "coverage_gaps",
        symbols=None if symbols is None else list(symbols),
        start=to_datetime(start_ns),
        end=to_datetime(end_ns),
    )
    return [_cut(row, start_ns, end_ns) for row in rows]


def closed_gaps(start_ns: int, end_ns: int, exchange: str) -> Iterator[Gap]:
    """When the exchange was closed in the last LONGEST_CLOSED_NS of [start_ns, end_ns)."""
    at_ns = max(start_ns, end_ns - LONGEST_CLOSED_NS)
    for opens_ns, closes_ns in calendar.open_between(at_ns, end_ns, exchange):
        if at_ns < opens_ns:
            yield Gap(at_ns, opens_ns, CLOSED)
        at_ns = closes_ns
    if at_ns < end_ns:
        yield Gap(at_ns, end_ns, CLOSED)


def total(counts: Iterable[Counts]) -> Counts:
    """All of them together."""
    each = [msgspec.structs.astuple(one) for one in counts]
    return Counts(*map(sum, zip(*each, strict=True))) if each else Counts()


def _by_chain(rows: Iterable[Row]) -> dict[str, Counts]:
    chains: dict[str, list[Counts]] = {}
    for row in rows:
        chains.setdefault(row["symbol"], []).append(_counts(row))
    return {symbol: total(counts) for symbol, counts in chains.items()}


def _counts(row: Row) -> Counts:
    return Counts(row["expected"], row["present"], row["upstream"], row["us"])


def _cut(row: Row, start_ns: int, end_ns: int) -> Gap:
    starts, ends = max(row["starts"], start_ns), min(row["ends"], end_ns)
    whole = (row["starts"], row["ends"], row["missed"])
    missed = missed_between(*whole, starts, ends)
    return Gap(starts, ends, row["cause"], row["symbol"], row["detail"], missed)


def _minutes(start_ns: int, end_ns: int) -> Row:
    """The whole minutes that touch a range."""
    return {
        "start": to_datetime(start_ns - start_ns % MINUTE_NS),
        "end": to_datetime(end_ns + -end_ns % MINUTE_NS),
    }


def _chain(found: ContractId | ChainId) -> str:
    return chain_symbol(found.underlying, found.expiry)


def _exchange(underlying: str) -> str:
    try:
        return calendar.exchange_of(underlying)
    except KeyError:
        return "NSE"  # both exchanges keep the same days
