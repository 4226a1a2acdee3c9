"""Lines of the ledger as the cold store sees them: which snapshot each one stands for.

A line that brought no rows is a report of polls. Opens nothing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pipeline.errors import ColdStoreError

_CHAIN_ID = re.compile(r"(?P<raw>(?P<provider>[^:]+):(?P<chain>[^:]+):.+):r(?P<rev>\d+)", re.DOTALL)
_REPORT_ID = re.compile(r".+:polls:r\d+", re.DOTALL)


class SnapshotKey(NamedTuple):
    """One snapshot: µs since 1970, chain, provider, calculation revision."""

    ts: int
    chain: str
    provider: str
    rev: int


class Line(NamedTuple):
    """A line of the ledger; `raw_id` is the same for all revisions, `key` None of a report."""

    id: str
    stream_id: str
    ts: int
    n: int
    rejected: int
    raw_id: str
    key: SnapshotKey | None


def line_of(id: str, stream_id: str, ts: int, n: int, rejected: int) -> Line:
    """A line from its columns, `ts` in µs. Raises ColdStoreError where the id names no chain."""
    if _REPORT_ID.fullmatch(id):
        return Line(id, stream_id, ts, n, rejected, id, None)
    found = _CHAIN_ID.fullmatch(id)
    if found is None:
        raise ColdStoreError(f"the message id {id!r} does not say of which chain it is")
    key = SnapshotKey(ts, found["chain"], found["provider"], int(found["rev"]))
    return Line(id, stream_id, ts, n, rejected, found["raw"], key)


def revisions_of(line: Line, highest: int) -> list[str]:
    """The ids that a line and its like by other revisions have."""
    if line.key is None:
        return [line.id]
    return [f"{line.raw_id}:r{rev}" for rev in range(1, max(highest, line.key.rev) + 1)]


def check_agreement(
    what: str, lines: Sequence[Line], snapshots: Iterable[SnapshotKey], contracts: int
) -> None:
    """Raise ColdStoreError unless lines, snapshots and the number of legs tell the same story."""
    told = Counter(line.key for line in lines if line.key is not None)
    there = Counter[Any](snapshots)
    if told != there:
        off = sum((told - there).values()), sum((there - told).values())
        raise ColdStoreError(
            f"{what}: the ledger and the snapshots do not tell the same: {off[0]} lines without a "
            f"snapshot, {off[1]} snapshots without a line"
        )
    wanted = sum(line.n for line in lines)
    if wanted != contracts:
        raise ColdStoreError(
            f"{what}: the ledger and the contracts do not tell the same: "
            f"{wanted:,} legs were stored, and {contracts:,} are here"
        )
