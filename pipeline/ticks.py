"""The stored updates of contracts, tick by tick. Instants are int ns UTC; rows are dicts, absent is
None. It writes nothing; the worker of a feed does. Raises StoreError.
"""

from pipeline.clock import to_datetime
from pipeline.database import Database, Row
from pipeline.errors import DecodeError
from pipeline.models import ContractId, parse_symbol

TICK_FIELDS = (
    *("ts_ingest", "ts_event", "place", "last", "last_size", "bid", "ask", "bid_size", "ask_size"),
    *("volume", "open_interest"),
)


async def contract_ticks(
    database: Database,
    symbol: str,
    start_ns: int,
    end_ns: int,
    limit: int,
    after: tuple[int, int, int] | None = None,
    newest_first: bool = False,
) -> list[Row] | None:
    """Ticks of a contract in [start_ns, end_ns): TICK_FIELDS and instrument_id. None where there is
    no such contract. `after` is ts_ingest, place and instrument_id of the last of the page before.
    Raises StoreError; DecodeError if the symbol is no contract's.
    """
    if not isinstance(parse_symbol(symbol), ContractId):
        raise DecodeError(f"not the symbol of a contract: {symbol!r}")
    async with database.session() as session:
        known = await session.fetch("instruments_of_symbol", symbol=symbol)
        if not known:
            return None
        return await session.fetch(
            "contract_ticks_newest_first" if newest_first else "contract_ticks",
            instrument_ids=[row["instrument_id"] for row in known],
            start=to_datetime(start_ns),
            end=to_datetime(end_ns),
            after=None if after is None else to_datetime(after[0]),
            after_place=None if after is None else after[1],
            after_instrument=None if after is None else after[2],
            limit=limit,
        )
