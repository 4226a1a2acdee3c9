"""Which legs of a chain the server refuses, found by trial: each is rolled back.

A row that the encoder lets through and a check of the database does not is rare, and says nothing
but that it is one of many. Halving finds it in some dozen trials.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline import rows
from pipeline.database import Database
from pipeline.errors import RowsRejected
from pipeline.rows import LegEncoder, StoredChain, snapshot_row

MOST_TRIALS = 128  # then the chain as a whole is given up

Indexes = NDArray[np.intp]


async def find_refused(database: Database, stored: StoredChain) -> dict[int, str]:
    """The legs that the server refuses, and why.

    Raises RowsRejected where it refuses the chain itself, or more legs than are worth a trial.
    """
    trials = _Trials(database, stored)
    if (error := await trials.refuses(np.empty(0, np.intp))) is not None:
        raise RowsRejected(error)
    found: dict[int, str] = {}
    suspects = [np.arange(stored.header.n)]
    while suspects:
        some = suspects.pop()
        error = await trials.refuses(some)
        if error is None:
            continue
        if len(some) == 1:
            found[int(some[0])] = error
        elif trials.made >= MOST_TRIALS:
            raise RowsRejected(error)
        else:
            suspects += np.array_split(some, 2)
    return found


class _Trials:
    def __init__(self, database: Database, stored: StoredChain) -> None:
        self._database, self._stored = database, stored
        self._encoder = LegEncoder()
        self.made = 0

    async def refuses(self, some: Indexes) -> str | None:
        """Why the server does not take the chain with only those legs; None where it does."""
        self.made += 1
        left_out = np.ones(self._stored.header.n, np.bool_)
        left_out[some] = False
        legs, _ = self._encoder.encode([self._stored], left_out)
        snapshot = rows.snapshots.pack([snapshot_row(self._stored)])
        try:
            async with (
                self._database.session() as session,
                session.transaction(is_trial=True),
            ):
                await session.copy_buffer("copy_market_snapshots", snapshot)
                await session.copy_buffer("copy_option_contracts", legs)
        except RowsRejected as error:
            return str(error)
        return None
