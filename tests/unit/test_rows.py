"""Chains as rows: the column orders of the code and of the SQL are one."""

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline import rows
from pipeline.errors import RowsRejected
from pipeline.kernels import copyrows
from pipeline.models import LEG_COLUMNS, EnrichedChain
from pipeline.queries import queries
from pipeline.rows import LegEncoder, StoredChain, snapshot_row
from tests.support import chains

OF_THE_INSTRUMENT = {"strike", "kind", "security_id"}


def copied_columns(query: str) -> tuple[str, ...]:
    listed = re.search(r"\(([^)]*)\)", queries()[query].text)
    assert listed is not None
    return tuple(re.findall(r"\w+", listed[1]))


def stored(chain: EnrichedChain) -> StoredChain:
    ids = np.arange(1, chain.header.n + 1, dtype=np.int32)
    return StoredChain(chain, "epoch", 7, chain.header.ts_ingest + 1_000, ids)


def with_column(chain: EnrichedChain, name: str, leg: int, value: float) -> EnrichedChain:
    column = chain.legs[name].copy()
    column[leg] = value
    return EnrichedChain(chain.header, {**chain.legs, name: column})


def test_legs_are_copied_in_the_order_of_the_query() -> None:
    assert copied_columns("copy_option_contracts") == rows.COPY_COLUMNS


def test_every_leg_column_is_stored_once() -> None:
    of_legs = [name for name in rows.COPY_COLUMNS if name not in ("ts", "instrument_id", "rev")]
    assert sorted(of_legs) == sorted({c.name for c in LEG_COLUMNS} - OF_THE_INSTRUMENT)


def named_row(chain: EnrichedChain) -> dict[str, Any]:
    return dict(
        zip(copied_columns("copy_market_snapshots"), snapshot_row(stored(chain)), strict=True)
    )


def test_snapshot_row_follows_the_order_of_the_query() -> None:
    chain = chains.enriched(5)
    row = named_row(chain)
    header = msgspec.structs.asdict(chain.header) | msgspec.structs.asdict(chain.header.aggregates)
    shared = row.keys() & header.keys() - {"ts_event"}
    assert len(shared) == 25
    assert {name: row[name] for name in shared} == {name: header[name] for name in shared}
    assert (row["seq"], row["epoch"]) == (7, "epoch")


def test_snapshot_row_has_the_smile_whole_or_not_at_all() -> None:
    fields = msgspec.structs.asdict(chains.SMILE)
    row = named_row(chains.with_smile(chains.enriched(5)))
    assert {name: row[f"smile_{name}"] for name in fields} == fields
    bare = named_row(chains.with_smile(chains.enriched(5), None))
    assert {bare[f"smile_{name}"] for name in fields} == {None}


def test_one_result_holds_the_legs_of_all_chains() -> None:
    one, other = stored(chains.enriched(5)), stored(chains.enriched(9))
    encoder = LegEncoder()
    apart = [bytes(encoder.encode([chain])) for chain in (one, other)]
    start, end = len(copyrows.HEADER), -len(copyrows.TRAILER)
    together = bytes(encoder.encode([one, other]))
    assert together[start:end] == apart[0][start:end] + apart[1][start:end]


def test_buffer_grows_with_the_batch() -> None:
    chain = stored(chains.enriched(101))
    encoder = LegEncoder()
    one = len(encoder.encode([chain]))
    frame = len(copyrows.HEADER) + len(copyrows.TRAILER)
    assert len(encoder.encode([chain] * 150)) == 150 * (one - frame) + frame


def test_chain_without_legs_is_an_empty_copy() -> None:
    chain = chains.enriched(5)
    header = msgspec.structs.replace(chain.header, n=0)
    empty = EnrichedChain(header, {name: column[:0] for name, column in chain.legs.items()})
    assert bytes(LegEncoder().encode([stored(empty)])) == copyrows.HEADER + copyrows.TRAILER


@pytest.mark.parametrize(
    ("name", "value"),
    [("open_interest", 2**31), ("last", 1e39), ("last", np.inf), ("vega_provider", -np.inf)],
)
def test_leg_that_does_not_fit_is_named(name: str, value: float) -> None:
    whole = chains.enriched(5)
    wrong = with_column(whole, name, 3, value)
    with pytest.raises(RowsRejected, match=r"NIFTY-20260127 strike 24950\.0 kind 0"):
        LegEncoder().encode([stored(whole), stored(wrong)])
