"""Volatility and Greeks, in ns a contract on one core, beside other people's solvers.

The contracts are those of `regions`; every solver runs in a process of its own, and `turns` lets
them alternate. Ours runs twice: as compiled for this machine, and with AVX-512 left out where the
machine has it. The first result is that of a fresh process with warm kernels, from its start.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from pipeline.config import Settings
from stockify import plan, warm
from stockify.bench import kernel_tables
from stockify.bench.kernel_tables import CHAINS, LARGE, NEEDED_PEER, ONE_CHAIN, OURS, OURS_AVX2
from stockify.bench.peers import PEERS, Region
from stockify.bench.report import MissingPeer, Report
from stockify.bench.turns import Solver, SolverGone, Turns

PEER_PYTHON = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin" / "python"
# Intel's first with AVX2; no feature beyond those it had.
_AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}
# Peers may start threads of their own, which would say nothing about one core.
_ONE_THREAD = {"NUMBA_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}

_HERE = Path(__file__).resolve().parent


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    chains: int = 500
    rounds: int = 15  # of ours and the needed peer, whose ratio is asked for
    rounds_of_others: int = 3
    budget_ns: int = 25_000_000
    first_results: int = 5
    peers: tuple[str, ...] = tuple(PEERS)


QUICK = Size(chains=50, rounds=3, rounds_of_others=1, first_results=1, peers=(NEEDED_PEER,))


def measure(say: Callable[[str], None], *, quick: bool = False) -> Report:
    """Run everything. Raises MissingPeer where the peer that ratios are taken to is missing."""
    size = QUICK if quick else Size()
    if not PEER_PYTHON.exists():
        raise MissingPeer(f"{NEEDED_PEER} is not installed")
    with tempfile.TemporaryDirectory(prefix="stockify-bench-") as directory:
        folder = Path(directory)
        codes = _codes()
        for name, environment in codes.items():
            say(f"warming the kernels of {name} …")
            _run(("-m", "stockify.warm", _role(name)), environment)
        _run(("-m", "stockify.bench.regions", str(folder), str(size.chains)), codes[OURS])
        regions = {path.stem: Region.load(path) for path in folder.glob("*.npz")}
        say("waiting for the peers to be ready …")
        with _solvers(codes, size.peers, folder, say) as solvers:
            turns = Turns({name: len(one.prices) for name, one in regions.items()}, size.budget_ns)
            _take_turns(turns, solvers, size, say)
            accuracy = _accuracy(solvers, regions[LARGE[0]])
            versions = {solver.name: solver for solver in solvers}
        say("starting fresh processes …")
        first_s = [first_result_s() for _ in range(size.first_results)]
    return kernel_tables.report(turns, versions, accuracy, statistics.median(first_s))


def first_result_s() -> float:
    """Seconds from the start of a fresh process to its first enriched chain, kernels being warm."""
    environment = plan.environment(Settings(), "processor")
    if "processor" in warm.cold_roles():
        _run(("-m", "stockify.warm", "processor"), environment)
    began = time.perf_counter()
    with subprocess.Popen(
        (sys.executable, "-I", str(_HERE / "first_result.py")),
        env=environment,
        stdout=subprocess.PIPE,
    ) as process:
        line = process.stdout.readline() if process.stdout else b""
        taken = time.perf_counter() - began
    if not line.strip().isdigit():
        raise RuntimeError("a fresh process gave no result")
    return taken


def _codes() -> dict[str, dict[str, str]]:
    """The environments of our processes, by the code that numba makes in them."""
    codes = {OURS: plan.environment(Settings(), _role(OURS))}
    flags = warm.processor_flags().split()
    if "avx512f" in flags and "avx2" in flags:
        codes[OURS_AVX2] = plan.environment(Settings(), _role(OURS_AVX2)) | _AVX2
    return codes


def _role(name: str) -> str:
    return {OURS: "bench", OURS_AVX2: "bench-avx2"}[name]


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    subprocess.run((sys.executable, *arguments), env=environment, cwd="/", check=True)


@contextlib.contextmanager
def _solvers(
    codes: Mapping[str, Mapping[str, str]],
    peers: Sequence[str],
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[list[Solver]]:
    """Every solver that is there, ready; raises MissingPeer where the needed one is not."""
    core = str(max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0)
    ours = (sys.executable, "-m", "stockify.bench.ours", str(folder), core)
    with contextlib.ExitStack() as stack:

        def start(name: str, argv: Sequence[str], environment: Mapping[str, str]) -> Solver:
            solver = Solver(name, argv, environment, folder / f"{name}.log")
            stack.callback(solver.close)
            return solver

        started = [start(name, ours, environment) for name, environment in codes.items()]
        # Defaults, so that no token of the user's settings reaches other people's code.
        environment = plan.environment(Settings(), "bench-peers") | _ONE_THREAD
        for name in peers:
            script = (str(PEER_PYTHON), "-I", str(_HERE / "peers.py"), name, str(folder), core)
            started.append(start(name, script, environment))
        ready = []
        for solver in started:
            try:
                solver.ready()
            except SolverGone as gone:
                if solver.name in codes:
                    raise
                if solver.name == NEEDED_PEER:
                    raise MissingPeer(str(gone)) from gone
                say(f"left out: {gone}")
            else:
                ready.append(solver)
        yield ready


def _take_turns(
    turns: Turns, solvers: list[Solver], size: Size, say: Callable[[str], None]
) -> None:
    """Round after round through all regions, so that each has its share of the machine's moods."""
    ours = [solver for solver in solvers if solver.name in (OURS, OURS_AVX2)]
    needed = next(solver for solver in solvers if solver.name == NEEDED_PEER)
    others = [solver for solver in solvers if solver not in (*ours, needed)]
    always = [(ours[0], "fused"), (needed, "fused"), (ours[0], "iv")]
    always += [(solver, job) for solver in ours[1:] for job in ("fused", "iv")]
    for number in range(size.rounds):
        say(f"round {number + 1} of {size.rounds} …")
        for region in (*LARGE, *CHAINS, ONE_CHAIN):
            turns.round(always, region)
            if number < size.rounds_of_others:
                turns.round([(solver, "price") for solver in ours], region)
                if region in LARGE:
                    turns.round([(solver, "fused") for solver in others], region)
                if region == LARGE[0]:
                    turns.round([(solver, "iv") for solver in (needed, *others)], region)
    for solver in solvers:
        for failure in solver.failures[:1]:
            say(f"left out: {failure}")


def _accuracy(solvers: list[Solver], region: Region) -> dict[str, dict[str, float]]:
    """The largest relative error of IV out of the money, and the share of legs answered."""
    is_out = region.is_call == (region.strikes >= region.forward)
    found: dict[str, dict[str, float]] = {}
    for solver in solvers:
        volatilities = solver.volatilities(LARGE[0])
        if volatilities is None:
            continue
        errors = np.abs(volatilities / region.truth - 1.0)
        found[solver.name] = {
            "worst_error": float(np.nanmax(errors[is_out])),
            "answered": float(np.isfinite(volatilities).mean()),
        }
    return found
