"""Synthetic smiles: legs priced on a known curve, quoted to the tick, and solved back."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import black, greeks, smile

Floats = NDArray[np.float64]
TICK = greeks.TICK


def raw_svi(k: Floats, a: float, b: float, rho: float, m: float, sigma: float) -> Floats:
    """Total variance of a raw SVI curve."""
    w: Floats = a + b * (rho * (k - m) + np.sqrt((k - m) ** 2 + sigma**2))
    return w


def legs(
    strikes: Floats,
    iv_of: Callable[[Floats], Floats],
    *,
    forward: float = 25_000.0,
    years: float = 7 / 365,
    half_spread: float = 0.0,
    tick: float = 0.0,
) -> dict[str, Any]:
    """Arguments of `smile.fit`: a call and a put a strike, their volatility from their own mid.

    `iv_of` takes k. With a tick, bid and ask are rounded outwards to it and none is below one tick.
    """
    strikes = np.repeat(strikes, 2)
    is_call = np.arange(strikes.size) % 2 == 0
    price = np.empty(strikes.size)
    true_iv = np.asarray(iv_of(np.log(strikes / forward)), np.float64)
    black.price(forward, 1.0, years, strikes, is_call, true_iv, price)
    bid, ask = price - half_spread, price + half_spread
    if tick > 0.0:
        bid = np.maximum(np.floor(bid / tick + 1e-9), 1.0) * tick
        ask = np.maximum(np.ceil(ask / tick - 1e-9) * tick, bid + tick)
    return solved(forward, years, strikes, is_call, 0.5 * (bid + ask), ask - bid)


def solved(
    forward: float, years: float, strikes: Floats, is_call: Any, price: Floats, spread: Floats
) -> dict[str, Any]:
    """Arguments of `smile.fit` for legs of known prices."""
    iv, delta, gamma, theta, vega, rho = (np.empty(strikes.size) for _ in range(6))
    status = np.empty(strikes.size, np.int8)
    greeks.solve(
        *(forward, 1.0, years, strikes, is_call, price),
        *(iv, delta, gamma, theta, vega, rho, status),
    )
    return {
        "forward": forward,
        "years": years,
        "strikes": strikes,
        "is_call": is_call,
        "iv": iv,
        "vega": vega,
        "spread": spread,
        "status": status,
    }


def price_of(legs: dict[str, Any]) -> Floats:
    """The undiscounted price that each leg's volatility stands for; zero where it has none."""
    price = np.empty(legs["iv"].size)
    iv = np.nan_to_num(legs["iv"])
    black.price(legs["forward"], 1.0, legs["years"], legs["strikes"], legs["is_call"], iv, price)
    return price


def fitted(legs: dict[str, Any], **changes: Any) -> tuple[smile.SmileFit, Floats]:
    """The fit of such legs, and iv_fit of each."""
    out = np.full(np.size(legs["strikes"]), math.nan)
    return smile.fit(**(legs | changes), out_iv_fit=out), out
