"""How much of a range is stored, and why the rest is not: what every history is worth.

`upstream` and `us` gaps are read as ingest reported them; `closed` ones follow from the calendar
and are stored nowhere. Instants are int ns UTC. It judges nothing, and writes nothing.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pipeline import calendar
from pipeline.clock import SECOND_NS, expiry_ns, to_datetime
from pipeline.database import Database, Row, Session
from pipeline.models import ChainId, ContractId, chain_symbol, parse_symbol
from pipeline.polls import MINUTE_NS, missed_between

CLOSED = "closed"
LONGEST_CLOSED_NS = 366 * 86_400 * SECOND_NS  # so far back from its end a range tells closures
# A summary has as many gaps as an answer bears: the newest that are stored, and a quarter's nights.
GAPS_MAXIMUM = 100
CLOSED_TOLD_NS = 92 * 86_400 * SECOND_NS
# So much of an open range may lie before the first report or after the last: polls come that far
# apart where many chains share one budget.
EDGE_NS = 2 * MINUTE_NS
_LONGEST_CLOSURE_DAYS = 30


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


class Summary(msgspec.Struct, frozen=True):
    """What is worth of [starts, ends), which is what can be told of the range that was asked for.

    `is_complete` is False where a gap that is stored reaches into it, or fewer snapshots are here
    than were answered; None where no report speaks of its first or its last open minutes; True
    else, also where the exchange was closed throughout. `is_cut` says that older gaps are left out.
    """

    symbol: str | None
    starts: int
    ends: int
    counts: Counts
    gaps: tuple[Gap, ...]
    is_cut: bool
    is_complete: bool | None


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


async def summary(
    database: Database, symbol: str | None, start_ns: int, end_ns: int, now_ns: int
) -> Summary:
    """What is worth of a range of an underlying, a chain, a contract, or of all chains there are
    (None), by one query.

    The range is cut to what can be told of: it ends now, or when the chain has settled. Raises
    StoreError; DecodeError where the text is no symbol.
    """
    found = None if symbol is None else parse_symbol(symbol)
    closed = closed_summary(symbol, start_ns, end_ns, now_ns)
    until_ns = closed.ends
    if start_ns == until_ns:
        return closed
    (row,) = await database.fetch(
        "coverage_summary",
        symbols=[_chain(found)] if isinstance(found, ChainId | ContractId) else None,
        underlying=None if found is None else _underlying(found),
        since=to_datetime(start_ns),
        until=to_datetime(until_ns),
        most=GAPS_MAXIMUM + 1,
        **_minutes(start_ns, until_ns),
    )
    gaps = [_cut(gap, start_ns, until_ns) for gap in row["gaps"][:GAPS_MAXIMUM]]
    gaps += closed.gaps
    gaps.sort(key=lambda gap: (gap.starts, gap.symbol))
    return msgspec.structs.replace(
        closed,
        counts=_counts(row),
        gaps=tuple(gaps),
        is_cut=closed.is_cut or len(row["gaps"]) > GAPS_MAXIMUM,
        is_complete=_is_complete(row, start_ns, until_ns, _exchange_of(found)),
    )


def closed_summary(symbol: str | None, start_ns: int, end_ns: int, now_ns: int) -> Summary:
    """What the calendar alone says of a range; an empty one is complete, else nobody knows.

    Raises DecodeError where the text is no symbol.
    """
    found = None if symbol is None else parse_symbol(symbol)
    until_ns = min(end_ns, now_ns)
    if isinstance(found, ChainId | ContractId):
        until_ns = min(until_ns, expiry_ns(found.expiry))
    until_ns = max(start_ns, until_ns)
    told_from_ns = max(start_ns, until_ns - CLOSED_TOLD_NS)
    gaps = tuple(closed_gaps(told_from_ns, until_ns, _exchange_of(found)))
    is_complete = True if start_ns == until_ns else None
    return Summary(symbol, start_ns, until_ns, Counts(), gaps, told_from_ns > start_ns, is_complete)


async def gaps_page(
    database: Database,
    symbol: str | None,
    causes: Sequence[str],
    start_ns: int,
    end_ns: int,
    limit: int,
    after: tuple[int, str, str] | None = None,
    newest_first: bool = False,
) -> list[Row]:
    """Gaps that reach into [start_ns, end_ns), whole, by (starts, symbol, provider).

    `symbol` is of an underlying, a chain or a contract, or None for all of them. Closed hours are
    cut to the range, have neither symbol nor provider, and are told of its last
    LONGEST_CLOSED_NS. `after` is the position of the last one of the page before. Raises
    StoreError; DecodeError where the text is no symbol.
    """
    found = parse_symbol(symbol) if symbol is not None else None
    underlying = found.underlying if isinstance(found, ChainId | ContractId) else found
    rows: list[Row] = []
    stored = [cause for cause in causes if cause != CLOSED]
    if stored:
        rows = await database.fetch(
            "gaps_after_newest_first" if newest_first else "gaps_after",
            symbol=_chain(found) if isinstance(found, ChainId | ContractId) else None,
            underlying=underlying,
            causes=stored,
            start=to_datetime(start_ns),
            end=to_datetime(end_ns),
            after=None if after is None else to_datetime(after[0]),
            after_symbol=None if after is None else after[1],
            after_provider=None if after is None else after[2],
            limit=limit,
        )
    if CLOSED in causes:
        closed = closed_gaps(start_ns, end_ns, _exchange_of(found))
        rows += [msgspec.structs.asdict(gap) | {"provider": ""} for gap in closed]
    if after is not None:
        is_behind = operator.lt if newest_first else operator.gt
        rows = [row for row in rows if is_behind(gap_position(row), after)]
    return sorted(rows, key=gap_position, reverse=newest_first)[:limit]


def gap_position(row: Row) -> tuple[int, str, str]:
    """Where a gap stands among the others."""
    return row["starts"], row["symbol"], row["provider"]


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


def _is_complete(row: Row, start_ns: int, end_ns: int, exchange: str) -> bool | None:
    answered = row["expected"] - row["upstream"] - row["us"]
    if row["gaps"] or row["present"] < answered:
        return False
    first = next(calendar.open_between(start_ns, end_ns, exchange), None)
    if first is None:
        return True
    if row["first_minute"] is None or row["first_minute"] > first[0] + EDGE_NS:
        return None
    told_until_ns = row["last_minute"] + MINUTE_NS + EDGE_NS
    return True if told_until_ns >= _last_open(start_ns, end_ns, exchange) else None


def _last_open(start_ns: int, end_ns: int, exchange: str) -> int:
    """Until when the exchange was open last in a range; its end where that was long ago."""
    for days in range(1, _LONGEST_CLOSURE_DAYS):
        since_ns = max(start_ns, end_ns - days * 86_400 * SECOND_NS)
        intervals = list(calendar.open_between(since_ns, end_ns, exchange))
        if intervals:
            return intervals[-1][1]
    return end_ns


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


def _underlying(found: ContractId | ChainId | str) -> str:
    return found if isinstance(found, str) else found.underlying


def _chain(found: ContractId | ChainId) -> str:
    return chain_symbol(found.underlying, found.expiry)


def _exchange_of(found: ContractId | ChainId | str | None) -> str:
    return _exchange("" if found is None else _underlying(found))


def _exchange(underlying: str) -> str:
    try:
        return calendar.exchange_of(underlying)
    except KeyError:
        return "NSE"  # both exchanges keep the same days
