"""The bus's bench runs as its user runs it, and its peers do the work they are measured by."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from stockify.bench.bus import PEER_PYTHON, frames, server
from stockify.bench.report import MissingPeer

ASKED = {"ceiling_fraction", "consume_contracts_per_s", "ratio_faststream"}


def test_quick_run_prints_the_figures_asked_for(tmp_path: Path) -> None:
    has_peer = (str(PEER_PYTHON), "-c", "import faststream.redis, msgspec, pydantic, uvloop")
    if not PEER_PYTHON.exists() or subprocess.run(has_peer, check=False).returncode:
        pytest.skip("what the bench compares with is not installed; make setup-bench does it")
    try:
        server.redis_benchmark()
    except MissingPeer as missing:
        pytest.skip(f"{missing}; make setup-bench fetches it")
    done = subprocess.run(
        (sys.executable, "-m", "stockify", "bench", "bus", "--quick", "--json"),
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    figures = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert set(figures) >= ASKED
    assert all(figures[key] > 0.0 for key in ASKED)
    # Structs cost a Python object a field on both sides; columns do not, whatever the machine does.
    assert figures["ratio_faststream"] > figures["ratio_faststream_structs"] > 0.0
    assert set(figures["faststream"]) == {"dicts", "pydantic", "msgspec"}
    assert list(tmp_path.iterdir()) == []


def test_frames_are_as_large_as_they_are_said_to_be(tmp_path: Path) -> None:
    sample = frames.make(tmp_path / "entries", tmp_path / "chains")
    assert frames.load(tmp_path / "entries") == sample
    assert {round(len(entry.data) / 1e3) for entry in sample.entries} == {33}
    assert {entry.contracts for entry in sample.entries} == {frames.LEGS}
    assert len({entry.data for entry in sample.entries}) == frames.INSTANTS
    chains = msgspec.json.decode((tmp_path / "chains").read_bytes())
    assert [len(chain["contracts"]) for chain in chains] == [frames.LEGS] * frames.INSTANTS


def test_missing_peer_is_named_and_the_bench_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingPeer, match="redis-benchmark"):
        server.redis_benchmark()
