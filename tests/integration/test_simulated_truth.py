"""Two implementations that share no code: what the simulator priced, enrichment must find again."""

from datetime import date, datetime

import numpy as np
import pytest

from pipeline import dhan_chain, enrich
from pipeline.clock import IST, SECOND_NS, to_ns
from pipeline.models import IvStatus, RequestContext
from workers.simulator import answers, exchange, smile
from workers.simulator.market import Market

NOW = to_ns(datetime(2026, 1, 22, 12, 0, tzinfo=IST))
SEED = 11
CHAINS = [
    pytest.param(underlying, expiry, id=f"{underlying.name} {expiry}")
    for underlying in exchange.UNDERLYINGS
    for expiry in exchange.expiries(underlying, NOW)[:3]
]


@pytest.fixture(scope="module", autouse=True)
def compiled_kernels() -> None:
    enrich.warmup()


@pytest.mark.parametrize(("underlying", "expiry"), CHAINS)
def test_forward_lot_and_volatility_of_the_simulated_market_are_found_again(
    underlying: exchange.Underlying, expiry: date
) -> None:
    body = answers.chain(Market(SEED).chain(underlying, expiry, NOW)).encode()
    context = RequestContext(
        provider="simulator",
        underlying=underlying.name,
        expiry=expiry,
        security_id=underlying.security_id,
        segment=exchange.INDEX_SEGMENT,
        path="/optionchain",
        status=200,
    )
    found = enrich.enrich(dhan_chain.map_chain(body, context, NOW), rate=smile.RATE)

    true_forward = smile.forward(SEED, underlying, expiry, NOW)
    assert found.header.forward_source == "parity"
    assert found.header.forward == pytest.approx(true_forward, rel=5e-5)
    assert found.header.lot == exchange.lot(underlying, expiry)

    strikes, iv = found.legs["strike"], found.legs["iv"]
    day = exchange.market_day(NOW)
    since_s = np.array([(NOW - exchange.day_start_ns(day)) / SECOND_NS])
    true_iv = smile.truth(SEED, underlying, expiry, day, since_s, strikes).iv
    is_near = (np.abs(strikes / true_forward - 1) < 0.02) & (found.legs["iv_status"] == IvStatus.OK)
    assert is_near.sum() > 20
    assert np.median(np.abs(iv - true_iv)[is_near]) < 0.001
