"""The bench: every fault on its rig, and the table of what came out."""

import asyncio
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from stockify.bench.faults import RATE, failover, scenes
from stockify.bench.faults.failover import running_on_cluster
from stockify.bench.faults.rig import Rig, running
from stockify.bench.faults.scenes import Dose, Fault, NotAvailable
from stockify.bench.faults.trial import Outcome, trial
from stockify.bench.report import Column, Grid, Report

FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            name="kill_worker",
            says="kill -9 of workers and feeder, one after the other",
            scene=scenes.on_the_rig(scenes.kill_worker),
            full=Dose(56),
            short=Dose(7),
            overlapping=True,
        ),
        Fault(
            name="stop_worker",
            says="SIGSTOP of the worker that has the work",
            scene=scenes.on_the_rig(scenes.stop_worker),
            full=Dose(6, 10.0),
            short=Dose(2, 4.0),
        ),
        Fault(
            name="kill_redis",
            says="kill -9 of Redis, restart on its append-only file",
            scene=scenes.on_the_rig(scenes.kill_redis),
            full=Dose(6, 1.0),
            short=Dose(1, 0.5),
        ),
        Fault(
            name="stall_redis",
            says="SIGSTOP of Redis",
            scene=scenes.on_the_rig(scenes.stall_redis),
            full=Dose(4, 10.0),
            short=Dose(1, 6.0),
        ),
        Fault(
            name="reset_connections",
            says="connections reset, half of them with answers cut off",
            scene=scenes.reset_connections,
            full=Dose(30),
            short=Dose(4),
            overlapping=True,
        ),
        Fault(
            name="out_of_memory",
            says="Redis refuses writes",
            scene=scenes.on_the_rig(scenes.out_of_memory),
            full=Dose(5, 6.0),
            short=Dose(1, 3.0),
        ),
        Fault(
            name="delete_raw",
            says="DEL of the raw streams",
            scene=scenes.on_the_rig(scenes.delete_raw),
            full=Dose(5),
            short=Dose(1),
        ),
        Fault(
            name="delete_enriched",
            says="DEL of the enriched streams",
            scene=scenes.on_the_rig(scenes.delete_enriched),
            full=Dose(5),
            short=Dose(1),
        ),
        Fault(
            name="poison",
            says="every 100th entry cannot be decoded",
            scene=scenes.on_the_rig(scenes.poison),
            full=Dose(3, 10.0),
            short=Dose(1, 3.0),
            poison_every=scenes.POISON_EVERY,
        ),
        Fault(
            name="clock_jump",
            says="the clock of Redis an hour ahead and back, those at work killed",
            scene=scenes.clock_jump,
            full=Dose(4, 5.0),
            short=Dose(1, 2.0),
        ),
    )
}
PARTS = (*FAULTS, failover.FAULT.name)  # what `--only` takes

_COLUMNS = (
    Column("runs", "runs"),
    Column("entries", "entries"),
    Column("lost", "lost"),
    Column("double", "double"),
    Column("disorder", "order"),
    Column("audit", "audit"),
    Column("dead_letters", "dead"),
    Column("healed", "healed"),
    Column("crashes", "crashes"),
    Column("recovery_s_max", "back, s", ".1f"),
)


def measure(say: Callable[[str], None], *, quick: bool = False, only: str = "") -> Report:
    """Break a rig in every way, or in one."""
    everything = [*FAULTS.values(), failover.FAULT]
    chosen = [fault for fault in everything if only in ("", fault.name)]
    with tempfile.TemporaryDirectory(prefix="stockify-faults-") as directory:
        outcomes, missing = asyncio.run(_measure(Path(directory), chosen, say, quick))
    return Report(
        title="faults",
        caption="",
        lines=[],
        grids=[
            Grid(
                title="faults under load",
                columns=_COLUMNS,
                rows={outcome.name: _row(outcome) for outcome in outcomes},
                caption="\n".join([_caption(outcomes), *missing]),
                key="faults",
            )
        ],
    )


async def _measure(
    directory: Path, chosen: Sequence[Fault], say: Callable[[str], None], quick: bool
) -> tuple[list[Outcome], list[str]]:
    outcomes: list[Outcome] = []
    missing: list[str] = []
    task = asyncio.current_task()
    if task is not None:  # told to end, it ends what it has started too
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rigs = (
        (running, "one server", [fault for fault in chosen if fault is not failover.FAULT]),
        (running_on_cluster, "a cluster", [fault for fault in chosen if fault is failover.FAULT]),
    )
    for started, name, faults in rigs:
        if not faults:
            continue
        say(f"starting engines on {name}, workers and feeder …")
        place = directory / name.replace(" ", "-")
        place.mkdir()
        async with started(place, RATE) as rig:
            for fault in faults:
                await _try(rig, fault, say, quick, outcomes, missing)
    return outcomes, missing


async def _try(
    rig: Rig,
    fault: Fault,
    say: Callable[[str], None],
    quick: bool,
    outcomes: list[Outcome],
    missing: list[str],
) -> None:
    dose = fault.short if quick else fault.full
    say(f"{fault.name}: {fault.says}, {dose.runs}× …")
    try:
        outcome = await trial(rig, fault, dose)
    except NotAvailable as reason:
        missing.append(f"{fault.name} was left out: {reason}")
        return
    for line in _complaints(outcome):
        say(line)
    outcomes.append(outcome)


def _row(outcome: Outcome) -> dict[str, float]:
    counted = outcome.counted
    return {
        "runs": outcome.runs,
        "entries": counted.entries,
        "lost": len(counted.lost),
        "double": len(counted.double),
        "disorder": len(counted.disorder),
        "audit": len(outcome.audit),
        "dead_letters": counted.dead_letters,
        "healed": outcome.healed,
        "crashes": len(outcome.crashes),
        "recovery_s_max": outcome.recovery_s_max,
    }


def _caption(outcomes: list[Outcome]) -> str:
    entries = sum(outcome.counted.entries for outcome in outcomes)
    return (
        f"{entries:,} entries promised, each looked for in Postgres and in the dead letters\n"
        "healed: acknowledged by Redis, lost by it, and appended again"
    )


def _complaints(outcome: Outcome) -> list[str]:
    """What is wrong, a few lines of each kind."""
    counted = outcome.counted
    kinds = {
        "lost": counted.lost,
        "double": counted.double,
        "out of order": counted.disorder,
        "set aside": counted.refused,
        "audit": outcome.audit,
        "stuck": outcome.stuck,
        "crashed": outcome.crashes,
    }
    return [f"  {kind}: {one}" for kind, found in kinds.items() for one in found[:5]]
