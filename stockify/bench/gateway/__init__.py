"""What the gateway delivers, beside the usual hub, a bare library and a constant answer.

Every server, the feeder and the clients are processes of their own on this machine; whoever is
compared takes short turns, so that a ratio compares what happened within seconds.
"""

from collections.abc import Callable

from stockify.bench.gateway import chain_get, conflation, exporting, fan_out, rig, slow
from stockify.bench.report import Grid, Line, Report

PARTS = ("feed", "get", "conflation", "slow", "export")


def measure(say: Callable[[str], None], *, quick: bool = False, only: str = "") -> Report:
    """Run everything, or one part. Raises MissingPeer where a peer is missing."""
    lines: list[Line] = []
    grids: list[Grid] = []
    if only in ("", "feed"):
        rig.check_peers()
    with rig.running(say) as running:
        if only != "export":
            gateway = running.gateway()
        if only in ("", "feed"):
            size = fan_out.QUICK if quick else fan_out.Size()
            turns = fan_out.measure_fan_out(running, gateway, size, say)
            lines += fan_out.lines(turns)
            grids.append(fan_out.grid(turns))
        if only in ("", "get"):
            get_size = chain_get.QUICK if quick else chain_get.Size()
            lines += chain_get.measure_get(running, gateway, get_size, say)
        if only in ("", "conflation"):
            interval_size = conflation.QUICK if quick else conflation.Size()
            lines += conflation.measure_conflation(running, gateway, interval_size, say)
        if only in ("", "slow"):
            slow_size = slow.QUICK if quick else slow.Size()
            lines += slow.measure_slow(running, gateway, slow_size, say)
        if only in ("", "export"):
            lines += exporting.measure_exports(
                running, exporting.QUICK if quick else exporting.Size(), say
            )
    return Report("The gateway", "", lines, grids)
