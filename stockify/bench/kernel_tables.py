"""What `stockify bench kernels` shows of the turns taken: lines with targets, a grid for each code
of ours, a grid of all solvers. Measures nothing.
"""

from collections.abc import Callable, Mapping, Sequence

from stockify.bench.report import Column, Grid, Line, Report
from stockify.bench.turns import Solver, Turns

OURS, OURS_AVX2 = "stockify", "stockify_avx2"
NEEDED_PEER = "lbriv"
# Names of regions: with many legs, and with those of one chain as it comes.
LARGE = ("index_exact", "index_ticks", "random", "high_vol")
CHAINS = ("chain_exact", "chain_ticks")
ONE_CHAIN = "one_chain"  # as many legs as the large ones


def report(
    turns: Turns,
    solvers: Mapping[str, Solver],
    accuracy: Mapping[str, dict[str, float]],
    first_s: float,
) -> Report:
    """The report; accuracy by solver's name and the key of its column."""
    worse = max(LARGE[:2], key=lambda region: turns.median(OURS, "fused", region))
    chain = max(CHAINS, key=lambda region: turns.least(OURS, "fused", region))
    chain_us = turns.legs(chain) / 1e3  # from ns a leg to µs a chain
    lines = [
        _fused(turns, "fused_ns", "index chains", worse, "≤ 25"),
        Line("fused_min_ns", "the fastest call", turns.least(OURS, "fused", worse), "ns", 1),
        _ratio(turns, "ratio_lbriv", "index chains", LARGE[:2], "≥ 15"),
        _fused(turns, "random_ns", "random", "random"),
        _ratio(turns, "ratio_random", "random", ("random",), "≥ 6"),
        _fused(turns, "high_vol_ns", "high_vol", "high_vol"),
        _ratio(turns, "ratio_high_vol", "high_vol", ("high_vol",), "≥ 3"),
        Line(
            "n200_us",
            "one chain of 200, Python call included, fastest",
            turns.least(OURS, "fused", chain) * chain_us,
            "µs",
            2,
            "≤ 6",
        ),
        Line("n200_median_us", "median", turns.median(OURS, "fused", chain) * chain_us, "µs", 2),
        Line("first_result_s", "a fresh process's first chain", first_s, "s", 2, "≤ 1.5"),
    ]
    if OURS_AVX2 in solvers:
        avx2 = turns.median(OURS_AVX2, "fused", worse)
        ratio = turns.ratio(NEEDED_PEER, OURS_AVX2, "fused", worse)
        lines[3:3] = [
            Line("fused_avx2_ns", "with AVX2 code", avx2, "ns", 1),
            Line("ratio_lbriv_avx2", f"{NEEDED_PEER} / ours with AVX2 code", ratio, "×", 1),
        ]
    grids = [_own_grid(turns, name) for name in (OURS, OURS_AVX2) if name in solvers]
    return Report(
        title="IV, five Greeks and status of a leg, on one core",
        caption=f"{worse}, the slower of exact and tick prices; ratios are medians of rounds, "
        f"lbriv with IV and three Greeks",
        lines=lines,
        grids=[*grids, _peer_grid(turns, solvers, accuracy)],
    )


def _fused(turns: Turns, key: str, name: str, region: str, target: str = "") -> Line:
    return Line(key, f"fused, {name}", turns.median(OURS, "fused", region), "ns", 1, target)


def _ratio(turns: Turns, key: str, name: str, regions: Sequence[str], target: str) -> Line:
    """The least of the regions' ratios."""
    ratios = (turns.ratio(NEEDED_PEER, OURS, "fused", region) for region in regions)
    return Line(key, f"{NEEDED_PEER} / ours, {name}", min(ratios), "×", 1, target)


def _own_grid(turns: Turns, solver: str) -> Grid:
    """Ours by region; the rows are named after the code where it is not this machine's own."""
    ending = "_avx2" if solver == OURS_AVX2 else ""
    columns: tuple[tuple[Column, Callable[[str], float]], ...] = (
        (Column("iv_ns", "IV", ",.1f"), lambda at: turns.median(solver, "iv", at)),
        (Column("iv_least_ns", "least", ",.1f"), lambda at: turns.least(solver, "iv", at)),
        (Column("greeks_ns", "Greeks", ",.1f"), lambda at: turns.added(solver, "fused", "iv", at)),
        (Column("fused_ns", "both", ",.1f"), lambda at: turns.median(solver, "fused", at)),
        (Column("fused_least_ns", "least", ",.1f"), lambda at: turns.least(solver, "fused", at)),
        (Column("price_ns", "price", ",.1f"), lambda at: turns.median(solver, "price", at)),
    )
    return Grid(
        f"ns a leg, {'AVX2 code' if ending else 'code for this machine'}",
        tuple(column for column, _figure in columns),
        {
            region + ending: {column.key: figure(region) for column, figure in columns}
            for region in (*LARGE, ONE_CHAIN, *CHAINS)
        },
        "medians, and the least beside them. Greeks: what they add. chain_*: legs of one chain, "
        "the Python call among them; these and one_chain with scalars for forward, discount, life",
    )


def _peer_grid(
    turns: Turns,
    solvers: Mapping[str, Solver],
    accuracy: Mapping[str, dict[str, float]],
) -> Grid:
    jobs = {"iv": ("index_exact",), "fused": LARGE}
    rows = {
        name: {
            f"{job}_{region}_ns": turns.median(name, job, region)
            for job, regions in jobs.items()
            for region in regions
            if turns.has(name, job, region)
        }
        | accuracy.get(name, {})
        for name in solvers
    }
    said = ", ".join(f"{one.name} {one.version}: {one.fused}" for one in solvers.values())
    return Grid(
        "medians in ns a leg: IV alone of exact index chains, then fused",
        (
            Column("iv_index_exact_ns", "IV"),
            *(
                Column(f"fused_{name}_ns", name.removeprefix("index_").replace("_", " "))
                for name in LARGE
            ),
            Column("worst_error", "error", ".0e"),
            Column("answered", "solved", ".0%"),
        ),
        rows,
        f"fused is IV and what follows: {said}. error: the largest relative one of IV, out of the "
        "money, exact prices; solved: the share of all these legs given a volatility",
    )
