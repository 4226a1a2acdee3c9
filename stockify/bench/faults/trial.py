"""One fault, from the first entry fed to the count of what came out."""

import asyncio

import msgspec

from stockify.bench.faults.books import Counted
from stockify.bench.faults.members import Member
from stockify.bench.faults.rig import RECOVERY_S, Rig
from stockify.bench.faults.scenes import Dose, Fault, Strike

LOSSES = ("entries_lost_by_server", "entries_restored")  # lines of the outbox's log


class Outcome(msgspec.Struct, frozen=True):
    """What a fault did.

    `audit` are the faulty minutes of `stockify audit`, `stuck` says who did not get on, `crashes`
    are ends nobody asked for.
    """

    name: str
    runs: int
    recovery_s_max: float
    counted: Counted
    audit: list[str]
    stuck: list[str]
    crashes: list[str]
    healed: int = 0  # entries that Redis acknowledged and lost, and the outbox appended again

    @property
    def is_clean(self) -> bool:
        """Whether nothing is lost, double, out of order or set aside, and everybody got on."""
        counted = self.counted
        wrong = (counted.lost, counted.double, counted.disorder, counted.refused)
        return not any((*wrong, self.audit, self.stuck))


async def trial(rig: Rig, fault: Fault, dose: Dose) -> Outcome:
    """Feed, strike as often as the dose says, wait for each recovery, and count.

    Raises NotAvailable where the fault cannot be had here.
    """
    async with fault.scene(rig) as strike:
        healed = await asyncio.to_thread(_healed, rig)
        await rig.feed(poison_every=fault.poison_every)
        before = {member.name: len(member.crashes) for member in rig.members}
        recoveries = await _struck(rig, strike, fault, dose)
        crashes = _crashes(rig.members, before)
        await rig.stop_feeding()
        behind = await rig.finish()
        counted = await rig.books.count()
        audit = await rig.audits.findings()
    stuck = ["a group did not get on in time"] * recoveries.count(None) + behind
    return Outcome(
        name=fault.name,
        runs=dose.runs,
        recovery_s_max=max(RECOVERY_S if one is None else one for one in recoveries),
        counted=counted,
        audit=audit,
        stuck=stuck,
        crashes=crashes,
        healed=await asyncio.to_thread(_healed, rig) - healed,
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


def _crashes(members: list[Member], before: dict[str, int]) -> list[str]:
    return [words for one in members for words in one.crashes[before.get(one.name, 0) :]]


def _healed(rig: Rig) -> int:
    """How many entries the feeder has said, in all, that it appended again after a loss."""
    path = rig.directory / "feeder.log"
    lines = path.read_bytes().splitlines() if path.exists() else []
    told = [msgspec.json.decode(line) for line in lines if line.startswith(b"{")]
    return sum(one["count"] for one in told if one["event"] in LOSSES)
