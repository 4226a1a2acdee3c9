"""The slow, obvious twin of the pricing kernels: textbook formulas in 60 digits of mpmath."""

from typing import Any, NamedTuple

from mpmath import mp

DIGITS = 60
context = mp.clone()
context.dps = DIGITS


class Values(NamedTuple):
    """Price and Greeks of one leg in the units of the pipeline, as mpmath numbers."""

    price: Any
    time_value: Any  # undiscounted
    delta: Any
    gamma: Any
    theta: Any
    vega: Any
    rho: Any
    condition: Any  # price/(iv·dV/div): a relative error of the price moves iv by so much more


def black76(
    forward: float, discount: Any, years: float, strike: float, is_call: bool, iv: Any
) -> Values:
    """Black-76 by d1 and d2; the discount may be an mpmath number or a float taken as exact."""
    f, d, t, k, v = (context.mpf(a) for a in (forward, discount, years, strike, iv))
    deviation = v * context.sqrt(t)
    d1 = context.log(f / k) / deviation + deviation / 2
    d2 = d1 - deviation
    call = f * context.ncdf(d1) - k * context.ncdf(d2)
    put = k * context.ncdf(-d2) - f * context.ncdf(-d1)
    price = d * (call if is_call else put)
    density = context.npdf(d1)
    vega = d * f * density * context.sqrt(t)
    rate = -context.log(d) / t
    return Values(
        price=price,
        time_value=put if f > k else call,
        delta=d * (context.ncdf(d1) if is_call else -context.ncdf(-d1)),
        gamma=d * density / (f * deviation),
        theta=(rate * price - d * f * density * v / (2 * context.sqrt(t))) / 365,
        vega=vega / 100,
        rho=-t * price / 100,
        condition=price / (v * vega) if vega else context.inf,
    )


def implied(
    forward: float,
    discount: Any,
    years: float,
    strike: float,
    is_call: bool,
    price: float,
    near: float,
) -> Any:
    """The volatility that gives the price, taken as exact: Newton's rule from one close by."""
    iv = context.mpf(near)
    for _ in range(60):
        values = black76(forward, discount, years, strike, is_call, iv)
        step = (context.mpf(price) - values.price) / (100 * values.vega)
        iv += step
        if abs(step) < iv * context.mpf(10) ** -30:
            return iv
    raise ArithmeticError(f"no volatility near {near} gives {price}")


def mills(z: float) -> Any:
    """N(-z)/n(z)."""
    return context.ncdf(-context.mpf(z)) / context.npdf(context.mpf(z))


def relative(value: float, truth: Any) -> float:
    """|value/truth - 1|, in full precision until the end."""
    return float(abs(context.mpf(value) / truth - 1))


def mills_difference(y: float, h: float) -> Any:
    """R(y-h) - R(y+h), the two arguments exact."""
    y, h = context.mpf(y), context.mpf(h)
    low, high = y - h, y + h
    return context.ncdf(-low) / context.npdf(low) - context.ncdf(-high) / context.npdf(high)
