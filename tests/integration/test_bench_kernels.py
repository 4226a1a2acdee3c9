"""The kernels' bench runs as its user runs it, and its solvers answer what they are asked."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from stockify.bench import first_result, kernels, regions
from stockify.bench.turns import Solver

ASKED = {
    *("fused_ns", "fused_min_ns", "ratio_lbriv", "ratio_random", "ratio_high_vol"),
    *("n200_us", "first_result_s"),
}


def test_quick_run_prints_the_figures_asked_for() -> None:
    has_peer = (str(kernels.PEER_PYTHON), "-c", "import lbriv")
    if not kernels.PEER_PYTHON.exists() or subprocess.run(has_peer, check=False).returncode:
        pytest.skip("what the bench compares with is not installed; make setup-bench does it")
    done = subprocess.run(
        (sys.executable, "-m", "stockify", "bench", "kernels", "--quick", "--json"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    figures = msgspec.json.decode(done.stdout, type=dict[str, float])
    assert set(figures) >= ASKED
    assert all(value > 0.0 for key, value in figures.items() if not key.endswith("greeks_ns"))
    assert figures["stockify_worst_error"] < 1e-14


def test_our_solver_answers_in_turns(tmp_path: Path) -> None:
    made = regions.make(2)
    for name, region in made.items():
        region.save(tmp_path / f"{name}.npz")
    core = str(min(os.sched_getaffinity(0)))
    argv = (sys.executable, "-m", "stockify.bench.ours", str(tmp_path), core)
    solver = Solver("ours", argv, os.environ, tmp_path / "log")
    try:
        solver.ready()
        turn = solver.turn("fused", "index_exact", 1_000_000)
        assert turn is not None
        assert 0.0 < turn.least <= turn.median
        assert solver.turn("nonsense", "index_exact", 1) is None
        assert solver.turn("fused", "nowhere", 1) is None
        assert "nowhere" in solver.failures[0]
        found = solver.volatilities("chain_exact")
    finally:
        solver.close()
    assert found is not None
    assert np.abs(found / made["chain_exact"].truth - 1.0).max() < 1e-9


def test_fresh_process_solves_every_leg_of_its_first_chain() -> None:
    script = (sys.executable, "-I", first_result.__file__)
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(first_result.snapshot().legs["strike"])
