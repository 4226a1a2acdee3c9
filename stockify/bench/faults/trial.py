"""One fault, from the first entry fed to the count of what came out."""

import asyncio

import msgspec

from stockify.bench.faults.books import Counted
from stockify.bench.faults.members import Member
from stockify.bench.faults.rig import RECOVERY_S, Rig
from stockify.bench.faults.scenes import Dose, Fault, Strike


class Outcome(msgspec.Struct, frozen=True):
    """What a fault did. `stuck` says who did not get on; `crashes` are ends nobody asked for."""

    name: str
    runs: int
    recovery_s_max: float
    counted: Counted
    stuck: list[str]
    crashes: dict[str, int]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is lost, double or out of order, and everybody got on."""
        counted = self.counted
        return not (counted.lost or counted.double or counted.disorder or self.stuck)


async def trial(rig: Rig, fault: Fault, dose: Dose) -> Outcome:
    """Feed, strike as often as the dose says, wait for each recovery, and count.

    Raises NotAvailable where the fault cannot be had here.
    """
    async with fault.scene(rig) as strike:
        await rig.feed(poison_every=fault.poison_every)
        before = {member.name: member.crashes for member in rig.members}
        recoveries = await _struck(rig, strike, fault, dose)
        crashes = _crashes(rig.members, before)
        await rig.stop_feeding()
        behind = await rig.finish()
        counted = await rig.books.count()
    stuck = ["a group did not get on in time"] * recoveries.count(None) + behind
    return Outcome(
        name=fault.name,
        runs=dose.runs,
        recovery_s_max=max(RECOVERY_S if one is None else one for one in recoveries),
        counted=counted,
        stuck=stuck,
        crashes=crashes,
    )


async def _struck(rig: Rig, strike: Strike, fault: Fault, dose: Dose) -> list[float | None]:
    """The seconds each recovery took; None where it was not seen."""
    watching: list[asyncio.Task[float | None]] = []
    for number in range(dose.runs):
        await strike(number, dose.seconds)
        watching.append(asyncio.create_task(rig.recovery()))
        if not fault.overlapping:
            await watching[-1]
    return list(await asyncio.gather(*watching))


def _crashes(members: list[Member], before: dict[str, int]) -> dict[str, int]:
    found = {member.name: member.crashes - before.get(member.name, 0) for member in members}
    return {name: count for name, count in found.items() if count}
