"""The gateway's bench runs as its user runs it, and its clients count what they are sent."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from stockify.bench.gateway import rig
from stockify.bench.report import MissingPeer
from tests.support.postgres import open_directory

ASKED = {
    *("ratio_fastapi", "fraction_bare", "p99_ms_100k", "chain_get_fraction"),
    *("export_fraction", "export_rss_mb"),
}


def test_quick_run_prints_the_figures_asked_for() -> None:
    try:
        rig.check_peers()
    except MissingPeer:
        pytest.skip("what the bench compares with is not installed; make setup-bench does it")
    with open_directory() as folder:
        done = subprocess.run(
            (sys.executable, "-m", "stockify", "bench", "gateway", "--quick", "--json"),
            env=os.environ | {"TMPDIR": str(folder)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert list(folder.iterdir()) == []
    figures = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert set(figures) >= ASKED
    assert all(figures[key] > 0.0 for key in ASKED)
    # Whatever the machine does: a frame a message costs more than twenty messages a frame.
    rows = figures["fan_out"]
    assert rows["gateway, batched, 50"]["a_frame"] >= 10 > rows["fastapi, batched, 50"]["a_frame"]
    assert rows["gateway, batched, 50"]["cpu_us"] < rows["gateway, single, 50"]["cpu_us"]


def test_missing_peer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig, "PEER_PYTHON", tmp_path / "python")
    with pytest.raises(MissingPeer, match="FastAPI"):
        rig.check_peers()
