"""The newest chain over REST beside a constant answer of the same bytes."""

import statistics
import urllib.request
from collections.abc import Callable

import msgspec

from stockify.bench.gateway.asking import Asked
from stockify.bench.gateway.constant_peer import BARE, ROUTE
from stockify.bench.gateway.rig import Rig, Server
from stockify.bench.report import Line

CLIENTS = 8


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 7
    seconds: float = 1.5


QUICK = Size(rounds=1, seconds=0.3)


class Turn(msgspec.Struct, frozen=True):
    """Answers, by the wall and by the server's CPU."""

    asked: Asked
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.asked.requests / self.asked.wall_s

    @property
    def cpu_us(self) -> float:
        """The server's CPU of an answer."""
        return self.cpu_s / self.asked.requests * 1e6


def measure_get(rig: Rig, gateway: Server, size: Size, say: Callable[[str], None]) -> list[Line]:
    """Turns of all three, one after the other."""
    (symbol,) = rig.sample.chains("whole")
    underlying, _, expiry = symbol.partition("-")
    url = f"http://{gateway.address}/v1/chains/{underlying}/{expiry}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {rig.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own gateway
        body = answer.read()
    constant = rig.constant(body)
    places = {
        "chain": (gateway, url, rig.token),
        "constant": (constant, f"http://{constant.address}{ROUTE}", ""),
        "bare": (constant, f"http://{constant.address}{BARE}", ""),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in places}
    for number in range(size.rounds + 1):  # the first warms up
        say(f"chains over REST, round {number} of {size.rounds} …")
        for name, (server, asked, token) in places.items():
            turn = _turn(rig, server, asked, token, size.seconds)
            turns[name] += [turn] if number else []
    return _lines(turns, len(body))


def _turn(rig: Rig, server: Server, url: str, token: str, seconds: float) -> Turn:
    before = server.cpu_s
    asked = rig.load.ask(Asked, do="get", url=url, token=token, clients=CLIENTS, seconds=seconds)
    return Turn(asked, server.cpu_s - before)


def _lines(turns: dict[str, list[Turn]], size: int) -> list[Line]:
    def rate(name: str) -> float:
        return statistics.median(turn.per_s for turn in turns[name])

    def ratio(of: Callable[[Turn, Turn], float], to: str) -> float:
        return statistics.median(map(of, turns["chain"], turns[to]))

    return [
        Line(
            "chain_get_fraction",
            f"a chain of {size / 1e3:,.0f} kB, to a constant route of these bytes",
            ratio(lambda ours, other: ours.per_s / other.per_s, "constant"),
            "",
            2,
            "≥ 0.4",
        ),
        Line(
            "chain_get_fraction_cpu",
            "the same by the server's CPU",
            ratio(lambda ours, other: other.cpu_us / ours.cpu_us, "constant"),
            "",
            2,
        ),
        Line(
            "chain_get_fraction_asgi",
            "to an ASGI application without a framework, by the wall",
            ratio(lambda ours, other: ours.per_s / other.per_s, "bare"),
            "",
            2,
        ),
        Line("chain_get_per_s", "chains over REST", rate("chain"), "requests/s"),
        Line("constant_per_s", "constant answers", rate("constant"), "requests/s"),
        Line(
            "chain_get_cpu_us",
            "the gateway's CPU of a chain",
            statistics.median(turn.cpu_us for turn in turns["chain"]),
            "µs",
        ),
    ]
