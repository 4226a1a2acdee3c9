"""The storage's bench runs as its user runs it, on rows that are the same for everybody."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.entries import NewEntry
from pipeline.frames import open_frame
from pipeline.rows import COPY_COLUMNS, StoredChain
from stockify.bench.report import MissingPeer
from stockify.bench.storage import chains, rates
from tests.support.postgres import open_directory

ASKED = {
    *("ceiling_fraction", "client_us_per_row", "encoder_us_per_row", "bytes_per_row"),
    *("rows_per_s", "batch_rows"),
}
WAYS = {
    *("server-side COPY", "storage worker", "our encoder, copy.write"),
    *("psycopg write_row", "asyncpg records", "executemany"),
}


def test_quick_run_prints_the_figures_asked_for() -> None:
    has_peer = (str(rates.PEER_PYTHON), "-c", "import asyncpg")
    if not rates.PEER_PYTHON.exists() or subprocess.run(has_peer, check=False).returncode:
        pytest.skip("what the bench compares with is not installed; make setup-bench does it")
    with open_directory() as folder:
        done = subprocess.run(
            (
                *(sys.executable, "-m", "stockify", "bench", "storage"),
                *("--quick", "--only", "plain", "--json"),
            ),
            env=os.environ | {"TMPDIR": str(folder)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert list(folder.iterdir()) == []
    figures = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert set(figures) >= ASKED
    assert "ceiling_fraction_hypertable" not in figures
    assert all(figures[key] > 0.0 for key in ASKED)
    assert set(figures["plain"]) == WAYS
    # Whatever the machine does: the encoder is a part of the worker, rows with fewer NULLs
    # are longer, and one INSERT a row is slower than COPY.
    assert figures["client_us_per_row"] > figures["encoder_us_per_row"]
    assert 90 < figures["bytes_per_row"] < figures["bytes_per_row_near"] < 160
    assert figures["plain"]["executemany"]["ratio"] < figures["plain"]["storage worker"]["ratio"]


def test_batches_end_as_the_workers_do_and_all_are_full() -> None:
    sample = chains.make(3, 1_000, instants=1)
    batches = chains.batches([_stored(entry) for entry in sample.entries], 1_000)
    assert len(batches) == 3
    for batch in batches:
        assert chains.count(batch) >= 1_000
        assert chains.count(batch[:-1]) < 1_000
    assert len({entry.id for entry in sample.entries}) == len(sample.entries)
    assert len({entry.ts for entry in sample.entries}) == len(sample.entries)


def test_objects_of_drivers_are_the_rows_of_the_encoder() -> None:
    sample = chains.make(1, 1, instants=1, near=True)
    (batch,) = chains.batches([_stored(entry) for entry in sample.entries], 1)
    records, columns = chains.records(batch), chains.columns(batch)
    assert list(columns) == list(COPY_COLUMNS)
    assert len(records) == chains.NEAR_LEGS
    assert {len(record) for record in records} == {len(COPY_COLUMNS)}
    at = COPY_COLUMNS.index("iv")
    for record, iv in zip(records, columns["iv"].tolist(), strict=True):
        assert record[at] == iv or (record[at] is None and np.isnan(iv))
    assert any(None in record for record in chains.records(_whole()))


def test_missing_peer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "PEER_PYTHON", tmp_path / "python")
    with pytest.raises(MissingPeer, match="asyncpg"):
        rates.measure_rates(lambda _: None, rates.QUICK, ("plain",))


def _whole() -> list[StoredChain]:
    return [_stored(entry) for entry in chains.make(1, 1, instants=1).entries]


def _stored(entry: NewEntry) -> StoredChain:
    header, columns = open_frame(entry.data)
    return StoredChain(header, columns, "epoch", 1, entry.te, np.arange(header.n, dtype=np.int32))
