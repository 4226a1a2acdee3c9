"""Our kernels as a solver that `stockify bench kernels` can ask, in a process of its own.

`python -m stockify.bench.ours FOLDER CORE`; which code numba may make, and where it is kept, say
the variables of that process. Calls only what `pipeline.kernels` offers to everybody.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.kernels import black, greeks
from stockify.bench.peers import Floats, Jobs, Peer, Region, serve


def load() -> Callable[[Region], Jobs]:
    """How our kernels prepare a region; nothing needs to be loaded for it."""
    return prepare


def prepare(region: Region) -> Jobs:
    """Jobs: `fused`, `iv` alone and `price` of the true volatilities, all into given arrays.

    Forward, discount and life go in leg by leg, or as scalars where the region is one chain.
    """
    n = len(region.prices)
    terms = (region.forward, region.discount, region.years)
    is_one_chain = all(np.ptp(column) == 0.0 for column in terms)
    forward, discount, years = (float(c[0]) if is_one_chain else c for c in terms)
    strikes, is_call, prices, truth = region.strikes, region.is_call, region.prices, region.truth
    iv, delta, gamma, theta, vega, rho = (np.empty(n) for _ in range(6))
    status = np.empty(n, np.int8)

    def fused() -> None:
        greeks.solve(
            forward,
            discount,
            years,
            strikes,
            is_call,
            prices,
            iv,
            delta,
            gamma,
            theta,
            vega,
            rho,
            status,
        )

    def only_iv() -> None:
        greeks.volatilities(forward, discount, years, strikes, is_call, prices, iv, status)

    def price() -> None:
        black.price(forward, discount, years, strikes, is_call, truth, delta)

    def volatilities() -> Floats:
        fused()
        return iv.copy()

    return Jobs({"fused": fused, "iv": only_iv, "price": price}, volatilities)


def warmup() -> None:
    """Compile, or load from the cache, every kernel that the bench calls."""
    one = np.ones(1)
    region = Region(one, one, one, one, one, np.ones(1, np.bool_), one / 3.0, one, 0)
    for call in prepare(region).timed.values():
        call()


if __name__ == "__main__":
    serve("stockify", Peer("5 Greeks, status", load), Path(sys.argv[1]), int(sys.argv[2]))
