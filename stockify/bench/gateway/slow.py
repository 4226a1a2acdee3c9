"""Two hundred healthy clients with and without a slow and a stalled one beside them."""

import statistics
from collections.abc import Callable

import msgspec

from stockify.bench.gateway.feeder import Fed
from stockify.bench.gateway.rig import Rig, Server
from stockify.bench.gateway.sockets import Received
from stockify.bench.gateway.texts import LEGS
from stockify.bench.report import Line

UPDATES_PER_S = 200  # to each, every one of them


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 5
    seconds: float = 2.5
    clients: int = 200


QUICK = Size(rounds=1, seconds=0.5, clients=20)


def measure_slow(rig: Rig, gateway: Server, size: Size, say: Callable[[str], None]) -> list[Line]:
    """Turns with and without, one right after the other."""
    alone: list[Received] = []
    beside: list[Received] = []
    for number in range(size.rounds):
        say(f"a slow and a stalled client, round {number + 1} of {size.rounds} …")
        for is_beside in (number % 2 == 1, number % 2 == 0):
            (beside if is_beside else alone).append(_turn(rig, gateway, size, is_beside))
    ratio = statistics.median(b.p99_ms / a.p99_ms for a, b in zip(alone, beside, strict=True))
    lost = sum(turn.skipped for turn in alone + beside)
    return [
        Line("healthy_p99_ms", f"{size.clients} healthy clients, p99", _median(alone), "ms", 1),
        Line("healthy_p99_ms_beside", "beside a slow and a stalled one", _median(beside), "ms", 1),
        Line("slow_ratio", "the second to the first", ratio, "×", 2, "0.8 to 1.2"),
        Line("healthy_skips", "skipped for healthy clients", lost, "", 0, "0"),
    ]


def _turn(rig: Rig, gateway: Server, size: Size, is_beside: bool) -> Received:
    channels = [f"contract:{symbol}" for symbol in rig.sample.contracts("batched")]
    asked = {"channels": channels, "interval_ms": 0}
    rig.open(gateway, size.clients, asked)
    if is_beside:
        url = f"ws://{gateway.address}/v1/ws"
        rig.load.ask(int, do="beside", url=url, subscribe=asked, token=rig.token)
    rig.load.ask(int, do="begin")
    writes = {"writes_per_s": UPDATES_PER_S / LEGS, "seconds": size.seconds}
    fed = rig.feeder.ask(Fed, do="paced", feed="batched", drawn=False, **writes)
    rig.load.ask(int, do="settle")
    received = rig.load.ask(Received, do="end")
    rig.load.ask(int, do="close")
    missing = fed.updates * size.clients - received.messages
    if missing and not received.skipped:
        raise RuntimeError(f"{missing} messages were lost")
    return received


def _median(turns: list[Received]) -> float:
    return statistics.median(turn.p99_ms for turn in turns)
