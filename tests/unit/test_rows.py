"""Chains as rows: the column orders of the code and of the SQL are one."""

import re
from importlib import resources
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline import rows
from pipeline.frames import encode_frame, open_frame
from pipeline.kernels import copyrows
from pipeline.models import LEG_COLUMNS, EnrichedChain
from pipeline.queries import queries
from pipeline.rows import NO_INSTRUMENT, LegEncoder, StoredChain, misfit_reason, snapshot_row
from tests.support import chains

OF_THE_INSTRUMENT = {"strike", "kind", "security_id"}


def copied_columns(query: str) -> tuple[str, ...]:
    listed = re.search(r"\(([^)]*)\)", queries()[query].text)
    assert listed is not None
    return tuple(re.findall(r"\w+", listed[1]))


def stored(chain: EnrichedChain) -> StoredChain:
    ids = np.arange(1, chain.header.n + 1, dtype=np.int32)
    header, columns = open_frame(encode_frame(chain))
    return StoredChain(header, columns, "epoch", 7, header.ts_ingest + 1_000, ids)


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
    apart = [bytes(encoder.encode([chain])[0]) for chain in (one, other)]
    start, end = len(copyrows.HEADER), -len(copyrows.TRAILER)
    together = bytes(encoder.encode([one, other])[0])
    assert together[start:end] == apart[0][start:end] + apart[1][start:end]


def test_buffer_grows_with_the_batch() -> None:
    chain = stored(chains.enriched(101))
    encoder = LegEncoder()
    one = len(encoder.encode([chain])[0])
    frame = len(copyrows.HEADER) + len(copyrows.TRAILER)
    assert len(encoder.encode([chain] * 150)[0]) == 150 * (one - frame) + frame


def test_chain_without_legs_is_an_empty_copy() -> None:
    chain = chains.enriched(5)
    header = msgspec.structs.replace(chain.header, n=0)
    empty = EnrichedChain(header, {name: column[:0] for name, column in chain.legs.items()})
    for batch in ([stored(empty)], []):
        assert bytes(LegEncoder().encode(batch)[0]) == copyrows.HEADER + copyrows.TRAILER


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("open_interest", 2**31),
        ("volume", -1),
        ("last", 1e39),
        ("last", np.inf),
        ("last", 0.0),
        ("iv", -0.2),
        ("vega_provider", -np.inf),
        ("iv_status", 10),
    ],
)
def test_leg_that_does_not_fit_is_left_out_and_said_why(name: str, value: float) -> None:
    whole = stored(chains.enriched(5))
    wrong = stored(with_column(chains.enriched(5), name, 3, value))
    _, misfits = LegEncoder().encode([whole, wrong])
    assert np.flatnonzero(misfits).tolist() == [13]
    assert misfit_reason(wrong, 3).startswith(f"no row can hold {name} ")


def test_leg_without_an_instrument_is_left_out() -> None:
    chain = stored(chains.enriched(5))
    chain.instrument_ids[2] = NO_INSTRUMENT
    _, misfits = LegEncoder().encode([chain])
    assert np.flatnonzero(misfits).tolist() == [2]
    assert "no contract" in misfit_reason(chain, 2)


def test_column_that_an_older_writer_did_not_know_is_absent() -> None:
    chain = stored(chains.enriched(5))
    older = {name: data for name, data in chain.columns.items() if name != "iv_fit"}
    legs, misfits = LegEncoder().encode([msgspec.structs.replace(chain, columns=older)])
    fits = chains.enriched(5).legs["iv_fit"]
    whole, _ = LegEncoder().encode([chain])
    assert not misfits.any()
    assert len(whole) - len(legs) == 4 * np.count_nonzero(~np.isnan(fits))


def test_bounds_are_those_of_the_tables_checks() -> None:
    text = resources.files("sql").joinpath("0003_snapshots.sql").read_text()
    checks = text[text.index("CREATE TABLE option_contracts") :]
    positive = set(re.findall(r"(\w+) > 0", checks[: checks.index("CREATE TABLE ledger")]))
    assert positive - {"rev"} == rows.POSITIVE
