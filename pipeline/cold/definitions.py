"""Instruments of the cold store as instruments of a database, which numbers them its own way.

Definitions are brought in as a provider would give them, each from the instant on from which it
held. Never touches the rows of snapshots.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.clock import to_ns
from pipeline.database import Session
from pipeline.errors import ColdStoreError
from pipeline.instruments import Definition, Source, define


class Numbers:
    """The database's number of each instrument of a file."""

    def __init__(self, numbers: Mapping[int, int]) -> None:
        self._theirs = np.array(sorted(numbers), np.int64)
        self._ours = np.array([numbers[theirs] for theirs in sorted(numbers)], np.int64)

    def of(self, theirs: NDArray[Any]) -> NDArray[np.int64]:
        """The numbers of legs. Raises ColdStoreError where a leg has an unknown instrument."""
        places = np.searchsorted(self._theirs, theirs)
        places = np.minimum(places, max(len(self._theirs) - 1, 0))
        if len(theirs) and not (len(self._theirs) and (self._theirs[places] == theirs).all()):
            raise ColdStoreError("a leg has an instrument that the file of instruments lacks")
        return self._ours[places] if len(theirs) else np.zeros(0, np.int64)


async def adopt(session: Session, underlying: str, instruments: pa.Table) -> Numbers:
    """Make sure that the database has these definitions, in a transaction of the caller's."""
    numbers: dict[int, int] = {}
    for source, valid_from, rows in _at_once(underlying, instruments):
        wanted = [_definition(row) for row in rows]
        held = await define(session, source, wanted, valid_from)
        for row in rows:
            numbers[row["instrument_id"]] = held[row["symbol"]].instrument_id
    return Numbers(numbers)


def _at_once(
    underlying: str, instruments: pa.Table
) -> Iterator[tuple[Source, int, list[dict[str, Any]]]]:
    """Definitions that one source gave from one instant (ns) on, by time."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["expiry"], row["provider"], row["valid_from"]

    for (expiry, provider, valid_from), rows in groupby(
        sorted(instruments.to_pylist(), key=key), key=key
    ):
        yield Source(underlying, expiry, provider), to_ns(valid_from), list(rows)


def _definition(row: Mapping[str, Any]) -> Definition:
    said = (row[name] for name in ("symbol", "strike", "kind", "security_id", "lot"))
    return Definition(*said)
