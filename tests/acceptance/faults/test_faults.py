"""Nothing is lost, nothing is double, and everybody gets on: after each fault, under load."""

import pytest

from stockify.bench.faults.measuring import FAULTS
from stockify.bench.faults.rig import Rig
from stockify.bench.faults.scenes import Fault, NotAvailable
from stockify.bench.faults.trial import trial

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
async def test_nothing_is_lost_or_double_after(fault: Fault, rig: Rig) -> None:
    try:
        outcome = await trial(rig, fault, fault.short)
    except NotAvailable as reason:
        pytest.skip(str(reason))
    counted = outcome.counted
    assert counted.lost == []
    assert counted.double == []
    assert counted.disorder == []
    assert counted.refused == []
    assert outcome.stuck == []
    assert outcome.audit == []
    assert outcome.is_clean
    assert counted.entries > 100  # there was load
    assert (counted.dead_letters > 0) == (fault.poison_every > 0)
