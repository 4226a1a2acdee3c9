"""What it costs to keep many clients at one value each 100 ms while four hundred contracts move."""

import statistics
from collections.abc import Callable

import msgspec

from stockify.bench.gateway.feeder import Fed
from stockify.bench.gateway.rig import Rig, Server
from stockify.bench.gateway.sockets import Received
from stockify.bench.gateway.texts import LEGS
from stockify.bench.report import Line

INTERVAL_MS = 100
UPDATES_PER_S = 2_000
FIELDS = ("last", "bid", "ask", "iv", "delta")  # what a ticker shows


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 3
    seconds: float = 4.0
    clients: int = 200


QUICK = Size(rounds=1, seconds=0.5, clients=20)


class Turn(msgspec.Struct, frozen=True):
    """The share of a core the gateway took, and what came."""

    share: float
    received: Received
    wall_s: float


def measure_conflation(
    rig: Rig, gateway: Server, size: Size, say: Callable[[str], None]
) -> list[Line]:
    """Turns with whole rows and with five fields of them."""
    turns: dict[str, list[Turn]] = {"whole": [], "fields": []}
    for number in range(size.rounds):
        say(f"one value each {INTERVAL_MS} ms, round {number + 1} of {size.rounds} …")
        turns["fields"].append(_turn(rig, gateway, size, FIELDS))
        turns["whole"].append(_turn(rig, gateway, size, ()))
    return _lines(turns, size.clients)


def _turn(rig: Rig, gateway: Server, size: Size, fields: tuple[str, ...]) -> Turn:
    channels = [f"chain:{symbol}" for symbol in rig.sample.chains("batched")]
    asked = {"channels": channels, "interval_ms": INTERVAL_MS, "fields": fields}
    rig.open(gateway, size.clients, asked)
    rig.load.ask(int, do="begin")
    before = gateway.cpu_s
    writes = {"writes_per_s": UPDATES_PER_S / LEGS, "seconds": size.seconds}
    fed = rig.feeder.ask(Fed, do="paced", feed="batched", drawn=True, **writes)
    share = (gateway.cpu_s - before) / fed.wall_s
    rig.load.ask(int, do="settle")
    received = rig.load.ask(Received, do="end")
    rig.load.ask(int, do="close")
    return Turn(share, received, fed.wall_s)


def _lines(turns: dict[str, list[Turn]], clients: int) -> list[Line]:
    def median(kind: str, of: Callable[[Turn], float]) -> float:
        return statistics.median(of(turn) for turn in turns[kind])

    return [
        Line(
            "conflation_share",
            f"{clients} clients each {INTERVAL_MS} ms, 2,000 updates/s, five fields: of a core",
            median("fields", lambda turn: turn.share),
            "",
            2,
            "≤ 0.20",
        ),
        Line(
            "conflation_share_whole",
            "the same with whole rows",
            median("whole", lambda turn: turn.share),
            "",
            2,
        ),
        Line(
            "conflation_p99_ms",
            "Redis to client, the wait for the interval included, p99",
            median("fields", lambda turn: turn.received.p99_ms),
            "ms",
            1,
        ),
        Line(
            "conflation_mb_per_s",
            "what goes out with whole rows",
            median("whole", lambda turn: turn.received.size / turn.wall_s / 1e6),
            "MB/s",
        ),
    ]
