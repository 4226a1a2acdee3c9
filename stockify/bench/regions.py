"""The contracts that `stockify bench kernels` solves: made here, always the same.

`python -m stockify.bench.regions FOLDER CHAINS` writes every region there. Each is a recipe with a
fixed seed, so two machines solve the same prices. Prices come from `pipeline.kernels.black`, whose
accuracy the tests of the kernels hold to fifty digits; nothing here solves for a volatility.

`index_exact`: CHAINS of 200 legs. 100 strikes 50 apart round a forward of 22,000 to 26,000, a
call and a put each; 1 to 90 days (log-uniform); smiles round 9 to 25 %; prices of the formula.
`index_ticks`: the same as an exchange prints them, in multiples of 0.05 and none below that.
`chain_exact`, `chain_ticks`: of these the chain of the median life alone.
`one_chain`: as many legs with one forward and life, so that those can be given as scalars.
`random`: spread as the region of that name in the kernels' reference: forward 1 to 100,000, life
1e-4 to 5 years and volatility 3 to 200 % (all log-uniform), rate -2 to 12 %, distance from the
forward normal with two standard deviations of the underlying.
`high_vol`: spread as that region: 100 to 800 % and strikes 0.5 to 2.4 times a spot of 25,000 (both
log-uniform), a week to two years (the root uniform), rate 6.5 %.
`warm`: the first two index chains, to compile on.
"""

import sys
from pathlib import Path

import numpy as np

from pipeline.kernels import black
from stockify.bench.peers import WARM, Floats, Region

LEGS_PER_CHAIN = 200
TICK = 0.05
RATE = 0.065
_SEED = 20_260_127
_DAYS = 365.0


def make(chains: int) -> dict[str, Region]:
    """Every region by name; the large ones have `chains` times 200 legs."""
    draw = np.random.default_rng(_SEED)
    n = chains * LEGS_PER_CHAIN
    exact = _index(draw, chains)
    ticks = _replace(exact, prices=np.maximum(np.round(exact.prices / TICK), 1.0) * TICK)
    starts = exact.chains()
    lives = exact.years[[chain.start for chain in starts]]
    middle = starts[int(np.argsort(lives)[chains // 2])]
    return {
        WARM: _cut(ticks, slice(0, 2 * LEGS_PER_CHAIN)),
        "index_exact": exact,
        "index_ticks": ticks,
        "one_chain": _one_chain(draw, n),
        "chain_exact": _cut(exact, middle),
        "chain_ticks": _cut(ticks, middle),
        "random": _random(draw, n),
        "high_vol": _high_vol(draw, n),
    }


def _index(draw: np.random.Generator, chains: int) -> Region:
    forward = draw.uniform(22_000.0, 26_000.0, chains)
    years = np.exp(draw.uniform(np.log(1.0), np.log(90.0), chains)) / _DAYS
    at_the_money = draw.uniform(0.09, 0.25, chains)
    ladder = (np.arange(LEGS_PER_CHAIN // 2) - LEGS_PER_CHAIN // 4) * 50.0
    strikes = np.repeat(np.round(forward / 50.0)[:, None] * 50.0 + ladder, 2, axis=1)
    forward, years, at_the_money = (
        np.repeat(column, LEGS_PER_CHAIN) for column in (forward, years, at_the_money)
    )
    strikes = strikes.reshape(-1)
    return _region(
        forward,
        years,
        np.full(len(forward), RATE),
        strikes,
        _smile(np.log(strikes / forward), at_the_money, years),
        legs_per_chain=LEGS_PER_CHAIN,
    )


def _one_chain(draw: np.random.Generator, n: int) -> Region:
    forward, years = np.full(n, 24_000.0), np.full(n, 9.5 / _DAYS)
    strikes = np.repeat(draw.uniform(21_500.0, 26_500.0, n // 2), 2)
    at_the_money = np.repeat(draw.uniform(0.09, 0.25, n // 2), 2)
    volatility = _smile(np.log(strikes / forward), at_the_money, years)
    return _region(forward, years, np.full(n, RATE), strikes, volatility)


def _random(draw: np.random.Generator, n: int) -> Region:
    pairs = n // 2
    forward = np.exp(draw.uniform(np.log(1.0), np.log(1e5), pairs))
    years = np.exp(draw.uniform(np.log(1e-4), np.log(5.0), pairs))
    volatility = np.exp(draw.uniform(np.log(0.03), np.log(2.0), pairs))
    rate = draw.uniform(-0.02, 0.12, pairs)
    distance = draw.normal(0.0, 2.0, pairs) * volatility * np.sqrt(years)
    return _pairs(forward, years, rate, forward * np.exp(-distance), volatility)


def _high_vol(draw: np.random.Generator, n: int) -> Region:
    pairs = n // 2
    years = draw.uniform(np.sqrt(7.0 / _DAYS), np.sqrt(2.0), pairs) ** 2
    strikes = 25_000.0 * np.exp(draw.uniform(np.log(0.5), np.log(2.4), pairs))
    volatility = np.exp(draw.uniform(np.log(1.0), np.log(8.0), pairs))
    forward = 25_000.0 * np.exp(RATE * years)
    return _pairs(forward, years, np.full(pairs, RATE), strikes, volatility)


def _pairs(
    forward: Floats, years: Floats, rate: Floats, strikes: Floats, volatility: Floats
) -> Region:
    """A call and a put of each."""
    forward, years, rate, strikes, volatility = (
        np.repeat(column, 2) for column in (forward, years, rate, strikes, volatility)
    )
    return _region(forward, years, rate, strikes, volatility)


def _smile(distance: Floats, at_the_money: Floats, years: Floats) -> Floats:
    """Wings that rise as the root of the distance and lean to the puts, as those of indices do."""
    z = distance / (at_the_money * np.sqrt(years))
    smile: Floats = at_the_money * np.sqrt(0.5 + 0.5 * np.sqrt(1.0 + z * z) - 0.1 * z)
    return smile


def _region(
    forward: Floats,
    years: Floats,
    rate: Floats,
    strikes: Floats,
    volatility: Floats,
    legs_per_chain: int = 0,
) -> Region:
    n = len(strikes)
    discount, prices = np.exp(-rate * years), np.empty(n)
    is_call = np.tile([True, False], n // 2)
    black.price(forward, discount, years, strikes, is_call, volatility, prices)
    return Region(
        forward, discount, years, rate, strikes, is_call, prices, volatility, legs_per_chain
    )


def _replace(region: Region, **columns: Floats) -> Region:
    return Region(**vars(region) | columns)


def _cut(region: Region, legs: slice) -> Region:
    columns = {
        name: value[legs] for name, value in vars(region).items() if name != "legs_per_chain"
    }
    return Region(**columns, legs_per_chain=region.legs_per_chain)


def main() -> None:
    """Write every region into the folder that the arguments name."""
    for name, region in make(int(sys.argv[2])).items():
        region.save(Path(sys.argv[1]) / f"{name}.npz")


if __name__ == "__main__":
    main()
