"""Other people's solvers behind one interface, and the loop in which a process runs one of them.

Started by its path with the Python of `.venv-bench`, which has none of this project's packages;
so it imports numpy and one peer, and nothing of ours. Each peer gets its own best batch call, and
its inputs in the form it likes best, prepared beforehand. Never compares: `turns` asks, one
question a line, and divides.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WARM = "warm"  # the region on which a solver compiles what it needs, before it says it is ready


@dataclass(frozen=True)
class Region:
    """Contracts to be solved: arrays of n legs, prices discounted, and the truth beside them.

    Legs stand chain by chain where `legs_per_chain` is not 0, a call before the put of its strike.
    """

    forward: Floats
    discount: Floats
    years: Floats
    rate: Floats
    strikes: Floats
    is_call: NDArray[np.bool_]
    prices: Floats
    truth: Floats
    legs_per_chain: int

    def save(self, path: Path) -> None:
        """Write it where other processes find it."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Region":
        """Read what `save` wrote."""
        with np.load(path) as stored:
            columns: dict[str, Any] = {name: stored[name] for name in stored.files}
        return cls(**columns | {"legs_per_chain": int(columns["legs_per_chain"])})

    def chains(self) -> list[slice]:
        """Where each chain stands; none where the region has no chains."""
        step = self.legs_per_chain
        return [slice(at, at + step) for at in range(0, len(self.prices), step)] if step else []


class Jobs(NamedTuple):
    """What a solver can do with a region: timed calls by name, and its volatilities, untimed."""

    timed: Mapping[str, Callable[[], object]]
    volatilities: Callable[[], Floats]


class Peer(NamedTuple):
    """What a solver's fused call computes beside IV, and how the solver is loaded."""

    fused: str
    load: Callable[[], Callable[[Region], Jobs]]


def lbriv() -> Callable[[Region], Jobs]:
    """Cython; undiscounted prices, volatility over the whole life, one q a call for IV alone."""
    module: Any = importlib.import_module("lbriv")

    def prepare(region: Region) -> Jobs:
        undiscounted = region.prices / region.discount
        is_call = region.is_call.astype(np.int8)
        outs = [np.empty(len(undiscounted)) for _ in range(4)]
        asked = (undiscounted, region.forward, region.strikes, is_call, region.discount)
        sides = [
            (
                np.ascontiguousarray(undiscounted[chain][side]),
                float(region.forward[chain.start]),
                np.ascontiguousarray(region.strikes[chain][side]),
                q,
            )
            for chain in region.chains()
            for side, q in ((region.is_call[chain], 1), (~region.is_call[chain], -1))
        ]

        def fused() -> None:
            module.compute_trades_greeks(*asked, *outs)

        def iv() -> None:
            for side in sides:
                module.vectorized_implied_vol_strikes(*side)

        def volatilities() -> Floats:
            fused()
            return np.where(outs[0] > 0.0, outs[0], np.nan) / np.sqrt(region.years)

        return Jobs({"fused": fused} | ({"iv": iv} if sides else {}), volatilities)

    return prepare


def iv_engine() -> Callable[[Region], Jobs]:
    """Rust; undiscounted prices, calls and puts in calls of their own."""
    module: Any = importlib.import_module("iv_engine")

    def prepare(region: Region) -> Jobs:
        columns = (region.prices / region.discount, region.forward, region.strikes, region.years)
        sides = [
            (*(np.ascontiguousarray(column[side]) for column in columns), is_call)
            for side, is_call in ((region.is_call, True), (~region.is_call, False))
        ]

        def iv() -> list[Floats]:
            return [module.implied_volatilities(*side, False) for side in sides]

        def fused() -> None:
            for (_price, *legs, is_call), found in zip(sides, iv(), strict=True):
                module.deltas(*legs, found, is_call, False)
                module.gammas(*legs, found, False)
                module.vegas(*legs, found, False)

        def volatilities() -> Floats:
            found = np.empty(len(region.prices))
            found[region.is_call], found[~region.is_call] = iv()
            return found

        return Jobs({"iv": iv, "fused": fused}, volatilities)

    return prepare


def pyvolr() -> Callable[[Region], Jobs]:
    """Rust; all five Greeks."""
    module: Any = importlib.import_module("pyvolr.black76")

    def prepare(region: Region) -> Jobs:
        flags = np.where(region.is_call, 1, -1).astype(np.int8)
        legs = (flags, region.forward, region.strikes, region.years, region.rate)

        def iv() -> Floats:
            found: Floats = module.implied_vol(region.prices, *legs, on_error="ignore")
            return found

        return Jobs({"iv": iv, "fused": lambda: module.greeks(*legs, iv())}, iv)

    return prepare


def py_vollib_vectorized() -> Callable[[Region], Jobs]:
    """Numba; all five Greeks, by differences."""
    return _vollib("py_vollib_vectorized", "vectorized_implied_volatility_black", {})


def fast_vollib() -> Callable[[Region], Jobs]:
    """Numba, several times faster here than its numpy default; all five Greeks."""
    return _vollib("fast_vollib", "fast_implied_volatility_black", {"backend": "numba"})


def _vollib(package: str, solver: str, options: dict[str, str]) -> Callable[[Region], Jobs]:
    module: Any = importlib.import_module(package)
    solve: Any = getattr(module, solver)

    def prepare(region: Region) -> Jobs:
        flags = np.where(region.is_call, "c", "p")
        legs = (region.forward, region.strikes, region.rate, region.years, flags)
        spec = (flags, region.forward, region.strikes, region.years, region.rate)

        def iv() -> Floats:
            found: Floats = solve(
                region.prices, *legs, on_error="ignore", return_as="numpy", **options
            )
            return found

        def fused() -> object:
            found = iv()
            found[np.isnan(found)] = 1.0  # one of the two refuses a chain for one such leg
            return module.get_all_greeks(*spec, found, model="black", return_as="dict", **options)

        return Jobs({"iv": iv, "fused": fused}, iv)

    return prepare


def vanilla_option_pricers() -> Callable[[Region], Jobs]:
    """Numba; IV alone, a chain a call."""
    module: Any = importlib.import_module("vanilla_option_pricers")

    def prepare(region: Region) -> Jobs:
        kinds = np.where(region.is_call, "C", "P")
        terms = (region.years, region.forward, region.discount)
        columns = (region.strikes, kinds, region.prices)
        chains = [
            (
                *(float(term[chain.start]) for term in terms),
                *(np.ascontiguousarray(column[chain]) for column in columns),
            )
            for chain in region.chains()
        ]

        def iv() -> list[Floats]:
            return [module.infer_bsm_ivols_from_slice_prices(*chain) for chain in chains]

        return Jobs({"iv": iv} if chains else {}, lambda: np.concatenate(iv()))

    return prepare


PEERS = {
    "lbriv": Peer("3 Greeks", lbriv),
    "iv-engine": Peer("3 Greeks", iv_engine),
    "pyvolr": Peer("5 Greeks", pyvolr),
    "fast-vollib": Peer("5 Greeks", fast_vollib),
    "py_vollib_vectorized": Peer("5 Greeks", py_vollib_vectorized),
    "vanilla-option-pricers": Peer("IV only", vanilla_option_pricers),
}


def serve(package: str, peer: Peer, folder: Path, core: int) -> None:
    """Answer on stdout what is asked on stdin, until that ends; on one core.

    First it says its version and its jobs, or what is missing. Then a line `[job, region, ns]` is
    answered with `{"least", "median", "calls"}` in ns, the job having been called as often as fits
    into `ns` and at least once; `["volatilities", region, 0]` writes those to a file it names. What
    the solver itself does wrong is answered with `{"error"}`.
    """
    # Whatever a solver prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        prepare = peer.load()
        for call in prepare(Region.load(folder / f"{WARM}.npz")).timed.values():
            call()
        version = metadata.version(package)
    except ImportError as error:
        answer(missing=str(error))
        return
    except Exception as error:
        answer(missing=_said(error))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    answer(version=version, fused=peer.fused)
    prepared: dict[str, Jobs] = {}
    for line in sys.stdin:
        job, region, budget_ns = json.loads(line)
        try:
            if region not in prepared:
                prepared[region] = prepare(Region.load(folder / f"{region}.npz"))
            jobs = prepared[region]
            if job == "volatilities":
                path = folder / f"found-{os.getpid()}-{region}.npy"
                np.save(path, jobs.volatilities())
                answer(path=str(path))
            elif job in jobs.timed:
                answer(**_turn(jobs.timed[job], budget_ns))
            else:
                answer()
        except Exception as error:
            answer(error=_said(error))


def _turn(call: Callable[[], object], budget_ns: int) -> dict[str, float]:
    call()  # whoever had the core before has left the caches full of its own
    taken: list[int] = []
    end = time.perf_counter_ns() + budget_ns
    while not taken or time.perf_counter_ns() < end:
        began = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - began)
    return {"least": min(taken), "median": float(np.median(taken)), "calls": len(taken)}


def _said(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:300]


if __name__ == "__main__":
    serve(sys.argv[1], PEERS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]))
