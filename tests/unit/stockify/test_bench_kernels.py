"""What the kernels' bench solves is what it says, and what it compares stands beside each other."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from stockify import cli
from stockify.bench import kernels, peers, regions
from stockify.bench.peers import Region
from stockify.bench.turns import Solver, SolverGone, Turn, Turns
from tests.support import recordings

CHAINS = 20


@pytest.fixture(scope="module")
def made() -> dict[str, Region]:
    return regions.make(CHAINS)


class Scripted(Solver):
    """A solver whose turns are given, without a process."""

    def __init__(self, name: str, taken: Sequence[float]) -> None:
        self.name = name
        self._left = list(taken)

    def turn(self, job: str, region: str, budget_ns: int) -> Turn | None:
        if job not in ("fused", "iv"):
            return None
        taken = self._left.pop(0)
        return Turn(least=taken / 2.0, median=taken)


def spread(region: Region) -> np.ndarray:
    """Quantiles of the volatility over the whole life."""
    quantiles: np.ndarray = np.quantile(
        region.truth * np.sqrt(region.years), [0.05, 0.25, 0.5, 0.75, 0.95]
    )
    return quantiles


def test_regions_are_the_same_every_time(made: dict[str, Region]) -> None:
    for name, again in regions.make(CHAINS).items():
        for column, values in vars(again).items():
            assert np.array_equal(values, getattr(made[name], column)), (name, column)


def test_large_regions_have_as_many_legs_as_asked(made: dict[str, Region]) -> None:
    for name in ("index_exact", "index_ticks", "one_chain", "random", "high_vol"):
        assert len(made[name].prices) == CHAINS * regions.LEGS_PER_CHAIN
        assert made[name].is_call.mean() == 0.5


def test_index_chains_are_ladders_of_one_forward_and_life(made: dict[str, Region]) -> None:
    exact = made["index_exact"]
    for chain in exact.chains():
        assert np.ptp(exact.forward[chain]) == np.ptp(exact.years[chain]) == 0.0
        strikes = exact.strikes[chain].reshape(-1, 2)
        assert np.array_equal(strikes[:, 0], strikes[:, 1])
        assert set(np.diff(strikes[:, 0])) == {50.0}
        assert exact.is_call[chain][::2].all()
        assert not exact.is_call[chain][1::2].any()


def test_tick_prices_are_what_an_exchange_could_print(made: dict[str, Region]) -> None:
    exact, ticks = made["index_exact"].prices, made["index_ticks"].prices
    steps = ticks / regions.TICK
    assert np.allclose(steps, np.round(steps), atol=1e-6)
    assert ticks.min() >= regions.TICK
    assert np.abs(ticks - exact)[exact > regions.TICK].max() <= regions.TICK / 2 + 1e-9


def test_prices_of_a_call_and_its_put_keep_parity(made: dict[str, Region]) -> None:
    for name in ("index_exact", "random", "high_vol"):
        one = made[name]
        apart = (one.prices[::2] - one.prices[1::2]) / one.discount[::2]
        expected = (one.forward - one.strikes)[::2]
        scale = one.forward[::2] + one.strikes[::2]
        assert np.abs(apart - expected).max() <= 1e-14 * scale.max()


def test_high_volatilities_reach_where_one_step_is_not_enough(made: dict[str, Region]) -> None:
    assert spread(made["index_exact"])[-1] < 0.4
    assert np.all(spread(made["high_vol"])[1:] > 0.4)
    narrow, *_, wide = spread(made["random"])
    assert narrow < 0.01
    assert wide > 0.4


@pytest.mark.parametrize("name", ["random", "high_vol"])
def test_spread_is_that_of_the_reference(name: str, made: dict[str, Region]) -> None:
    folder = recordings.shared_dir()
    if folder is None:
        pytest.skip("the kernels' reference is not beside this checkout")
    with open(folder / "data" / "greeks" / "reference.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == name]
    volatility = np.array([float(row["sigma"]) for row in rows])
    years = np.array([float(row["T_years"]) for row in rows])
    theirs = np.quantile(volatility * np.sqrt(years), [0.05, 0.25, 0.5, 0.75, 0.95])
    assert np.all(np.abs(np.log(spread(made[name]) / theirs)) < 0.5)


def test_region_survives_its_file(tmp_path: Path, made: dict[str, Region]) -> None:
    made["chain_ticks"].save(tmp_path / "one.npz")
    again = Region.load(tmp_path / "one.npz")
    assert len(again.chains()) == 1
    assert again.is_call.dtype == np.bool_
    assert np.array_equal(again.prices, made["chain_ticks"].prices)


def test_ratio_is_not_moved_by_a_machine_that_slows_down() -> None:
    moods = [1.0, 1.0, 2.7, 2.7, 1.0]
    ours = Scripted("ours", [100.0 * mood for mood in moods])
    theirs = Scripted("theirs", [1_500.0 * mood for mood in moods])
    turns = Turns({"chain": 10}, 1)
    for _ in moods:
        turns.round([(ours, "fused"), (theirs, "fused")], "chain")
    assert turns.ratio("theirs", "ours", "fused", "chain") == pytest.approx(15.0)
    assert turns.median("ours", "fused", "chain") == 10.0
    assert turns.least("ours", "fused", "chain") == 5.0


def test_what_the_greeks_add_is_taken_within_a_round() -> None:
    ours = Scripted("ours", [120.0, 100.0, 240.0, 200.0, 125.0, 100.0])
    turns = Turns({"chain": 10}, 1)
    for _ in range(3):
        turns.round([(ours, "fused"), (ours, "iv")], "chain")
    assert turns.added("ours", "fused", "iv", "chain") == pytest.approx(2.5)


def test_solver_that_cannot_do_a_job_is_left_out() -> None:
    turns = Turns({"chain": 10}, 1)
    turns.round([(Scripted("one", [1.0]), "price")], "chain")
    assert not turns.has("one", "price", "chain")


def test_peer_that_is_not_installed_says_so(tmp_path: Path) -> None:
    script = (sys.executable, "-I", peers.__file__, "lbriv", str(tmp_path), "0")
    solver = Solver("lbriv", script, {}, tmp_path / "log")
    try:
        with pytest.raises(SolverGone, match="lbriv: No module named"):
            solver.ready()
    finally:
        solver.close()


def test_without_the_needed_peer_the_bench_names_it_and_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "PEER_PYTHON", tmp_path / "python")
    result = CliRunner().invoke(cli.commands, ["bench", "kernels"])
    assert result.exit_code == 2
    assert "lbriv is not installed; run make setup-bench" in result.output
