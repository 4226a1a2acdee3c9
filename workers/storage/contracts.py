"""Contracts on their own: as the letters of legs set aside, and sent back, beside their chain.

The letter of a leg is a frame of its chain with that leg alone; its message id is that of the
chain, `#` and its symbol. Sent back it becomes a row beside the chain's, once.
"""

import msgspec

from pipeline.clock import to_datetime
from pipeline.database import Database
from pipeline.entries import NewEntry
from pipeline.errors import RowsRejected
from pipeline.frames import decode_column, encode_frame
from pipeline.instruments import Instruments
from pipeline.models import CONTRACT_LETTER_TYPE, LEG_COLUMNS, EnrichedChain
from pipeline.rows import LegEncoder, StoredChain, misfit_reason
from workers.storage.writer import Arrived, Refused

_MARK = "#"


def letter_of(refused: Refused) -> tuple[NewEntry, str]:
    """The letter of a leg, and its error."""
    arrived, leg = refused.arrived, refused.leg
    symbol, n = arrived.symbol(leg), arrived.header.n
    alone = {
        column.name: decode_column(arrived.columns.get(column.name), column.name, n)[leg : leg + 1]
        for column in LEG_COLUMNS
    }
    letter = NewEntry(
        id=f"{arrived.id}{_MARK}{symbol}",
        type=CONTRACT_LETTER_TYPE,
        key=symbol,
        ts=arrived.header.ts_ingest,
        data=encode_frame(EnrichedChain(msgspec.structs.replace(arrived.header, n=1), alone)),
    )
    return letter, f"{symbol}: {refused.reason}"


async def add_contract(database: Database, arrived: Arrived) -> bool:
    """Store a contract beside its chain; False where it is there already.

    Raises RowsRejected where it still cannot be stored, or its chain is not there;
    StoreUnavailable, and then the same call again settles it.
    """
    ids = await Instruments(database).of(arrived.header, arrived.columns)
    stored = StoredChain(
        *(arrived.header, arrived.columns, arrived.epoch, arrived.seq, arrived.ts_enrich, ids)
    )
    row, misfits = LegEncoder().encode([stored])
    if misfits.any():
        raise RowsRejected(misfit_reason(stored, 0))
    async with database.session() as session, session.transaction():
        there = await session.fetch(
            "stored_legs",
            ts=to_datetime(arrived.header.ts_ingest),
            rev=arrived.header.rev,
            instrument_ids=ids.tolist(),
        )
        if there:
            return False
        chain = arrived.id.rpartition(_MARK)[0]
        if not await session.fetch("move_from_rejected", id=chain):
            raise RowsRejected(f"no leg is missing from {chain!r}, or it is not stored")
        await session.copy_buffer("copy_option_contracts", row)
    return True
