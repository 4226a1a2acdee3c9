"""Messages from Redis to clients: ours, FastAPI's hub, and the frames alone by `websockets`.

Two feeds: `batched`, in which twenty contracts change together, and `single`, in which one does.
Two kinds of turns: as fast as the clients take it, for rates and CPU, and at a rate, for latencies.
Those of the ratios are short and many, one server right after the other.
"""

import statistics
from collections.abc import Callable, Iterator

import msgspec

from pipeline.topics import Topics
from stockify.bench.gateway.feeder import Fed
from stockify.bench.gateway.rig import Rig, Server
from stockify.bench.gateway.sockets import Received
from stockify.bench.gateway.texts import LEGS
from stockify.bench.report import Column, Grid, Line

OURS, FASTAPI, BARE = "gateway", "fastapi", "websockets"
CLIENTS = (1, 50, 400)
MANY = 50  # clients of the ratios
WINDOW = 20  # writes ahead of the clients; of single messages one, or frames would hold several
DELIVERED_PER_S = {"batched": 100_000, "single": 20_000}
MOST_UPDATES_PER_S = {"batched": 2_000, "single": 1_000}


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 3
    trios: int = 3  # turns of all three servers in a round, for the ratios
    full_s: float = 0.8  # a turn at the limit
    paced_s: float = 1.5  # a turn at a rate
    clients: tuple[int, ...] = CLIENTS


QUICK = Size(rounds=1, trios=1, full_s=0.3, paced_s=0.3, clients=(MANY,))


class Turn(msgspec.Struct, frozen=True):
    """One turn: what came, by the wall and by the server's CPU."""

    received: Received
    wall_s: float
    cpu_s: float
    late_ms: float  # how late the machine woke who waited for an instant, p99

    @property
    def per_s(self) -> float:
        """Messages delivered a second."""
        return self.received.messages / self.wall_s

    @property
    def per_cpu_s(self) -> float:
        """Messages delivered a second of the server's CPU."""
        return self.received.messages / max(self.cpu_s, 1e-3)


class Pair(msgspec.Struct, frozen=True):
    """A server's turns with so many clients, the second where there was one."""

    full: Turn
    paced: Turn | None


Turns = dict[tuple[str, str, int], list[Pair]]


class FanOut:
    """The servers, and whose turn it is."""

    def __init__(self, rig: Rig, gateway: Server, size: Size) -> None:
        self._rig, self._gateway, self._size = rig, gateway, size
        topics, contracts = Topics(), {k: rig.sample.contracts(k) for k in DELIVERED_PER_S}
        self._channels = {
            kind: [f"contract:{one}" for one in contracts[kind]] for kind in contracts
        }
        live = [topics.live(symbol) for symbols in contracts.values() for symbol in symbols]
        self._fastapi = rig.fastapi(live)
        self._bare, self._broadcaster = rig.bare()
        self._frames = rig.folder / "frames.json"

    def round(self) -> Iterator[tuple[tuple[str, str, int], Pair]]:
        """A turn for everybody, one after the other."""
        for clients in self._size.clients:
            for kind in DELIVERED_PER_S:
                for number in range(self._size.trios if self._is_of_ratios(kind, clients) else 1):
                    is_first = number == 0
                    yield (OURS, kind, clients), self._ours(kind, clients, is_paced=True)
                    if self._is_of_ratios(kind, clients):
                        yield (BARE, kind, clients), self._broadcast(clients)
                    yield (FASTAPI, kind, clients), self._theirs(kind, clients, is_first)

    @staticmethod
    def _is_of_ratios(kind: str, clients: int) -> bool:
        return (kind, clients) == ("batched", MANY)

    def _ours(self, kind: str, clients: int, is_paced: bool) -> Pair:
        asked = {"channels": self._channels[kind], "interval_ms": 0}
        self._rig.open(self._gateway, clients, asked)
        return self._closed(self._pair(self._gateway, kind, clients, is_paced))

    def _theirs(self, kind: str, clients: int, is_paced: bool) -> Pair:
        self._rig.open(self._fastapi, clients, path="/ws", marker='"type":"contract"')
        return self._closed(self._pair(self._fastapi, kind, clients, is_paced))

    def _broadcast(self, clients: int) -> Pair:
        self._rig.open(self._bare, clients, path="/")
        asked = {"frames": str(self._frames), "window": 2, "seconds": self._size.full_s}
        full = self._turn(self._bare, lambda: self._broadcaster.ask(Fed, **asked))
        return self._closed(Pair(full, None))

    def _closed(self, pair: Pair) -> Pair:
        self._rig.load.ask(int, do="close")
        return pair

    def _pair(self, server: Server, kind: str, clients: int, is_paced: bool) -> Pair:
        feeder, size = self._rig.feeder, self._size
        window = WINDOW if kind == "batched" else 1
        closed = {"do": "closed", "feed": kind, "window": window, "clients": clients}
        full = self._turn(server, lambda: feeder.ask(Fed, seconds=size.full_s, **closed))
        if server is self._gateway and self._is_of_ratios(kind, clients):
            self._rig.load.ask(int, do="keep", path=str(self._frames))
        if not is_paced:
            return Pair(full, None)
        updates = min(MOST_UPDATES_PER_S[kind], DELIVERED_PER_S[kind] / clients)
        writes_per_s = updates / LEGS if kind == "batched" else updates
        paced = {"do": "paced", "feed": kind, "writes_per_s": writes_per_s, "drawn": False}
        return Pair(
            full, self._turn(server, lambda: feeder.ask(Fed, seconds=size.paced_s, **paced))
        )

    def _turn(self, server: Server, feed: Callable[[], Fed]) -> Turn:
        self._rig.load.ask(int, do="begin")
        before = server.cpu_s
        fed = feed()
        cpu_s = server.cpu_s - before
        self._rig.load.ask(int, do="settle")
        received = self._rig.load.ask(Received, do="end")
        return Turn(received, fed.wall_s, cpu_s, fed.late_ms)


def measure_fan_out(rig: Rig, gateway: Server, size: Size, say: Callable[[str], None]) -> Turns:
    """All rounds."""
    fan_out, turns = FanOut(rig, gateway, size), Turns()
    for number in range(size.rounds):
        say(f"messages to clients, round {number + 1} of {size.rounds} …")
        for key, pair in fan_out.round():
            turns.setdefault(key, []).append(pair)
    return turns


def lines(turns: Turns) -> list[Line]:
    """The figures that have targets, and what a message costs."""
    ours, bare = turns[OURS, "batched", MANY], turns[BARE, "batched", MANY]
    theirs = turns[FASTAPI, "batched", MANY]
    paced = [pair.paced for pair in ours if pair.paced]
    return [
        Line(
            "ratio_fastapi",
            "messages by CPU, to FastAPI's hub, 50 clients",
            statistics.median(
                a.full.per_cpu_s / b.full.per_cpu_s for a, b in zip(ours, theirs, strict=True)
            ),
            "×",
            1,
            "≥ 10",
        ),
        Line(
            "fraction_bare",
            "the same, to `websockets` broadcasting the same frames",
            statistics.median(
                a.full.per_cpu_s / b.full.per_cpu_s for a, b in zip(ours, bare, strict=True)
            ),
            "",
            2,
            "≥ 0.6",
        ),
        Line(
            "p99_ms_100k",
            "Redis to client at 100,000 messages/s, p99",
            statistics.median(turn.received.p99_ms for turn in paced),
            "ms",
            1,
            "≤ 10",
        ),
        Line(
            "late_ms",
            "how late this machine woke a sleeper meanwhile, p99",
            statistics.median(turn.late_ms for turn in paced),
            "ms",
            1,
        ),
    ]


def grid(turns: Turns) -> Grid:
    """Every server, feed and number of clients."""
    rows = {}
    for (name, kind, clients), pairs in turns.items():
        paced = [pair.paced.received for pair in pairs if pair.paced]
        row = {
            "per_s": statistics.median(pair.full.per_s for pair in pairs),
            "cpu_us": statistics.median(1e6 / pair.full.per_cpu_s for pair in pairs),
            "a_frame": statistics.median(
                pair.full.received.messages / max(1, pair.full.received.frames) for pair in pairs
            ),
            "bytes": statistics.median(
                pair.full.received.size / max(1, pair.full.received.messages) for pair in pairs
            ),
        }
        if paced:
            row |= {
                "p50_ms": statistics.median(one.p50_ms for one in paced),
                "p99_ms": statistics.median(one.p99_ms for one in paced),
                "skipped": sum(one.skipped for one in paced),
            }
        rows[f"{name}, {kind}, {clients}"] = row
    return Grid(
        title="Messages to clients: server, feed, clients",
        columns=(
            Column("per_s", "messages/s"),
            Column("cpu_us", "CPU µs each", ",.2f"),
            Column("a_frame", "a frame", ",.0f"),
            Column("bytes", "bytes each"),
            Column("p50_ms", "p50 ms", ",.1f"),
            Column("p99_ms", "p99 ms", ",.1f"),
            Column("skipped", "skips"),
        ),
        rows=rows,
        caption="rates at the limit; latencies at 100,000 messages/s batched and 20,000 single",
        key="fan_out",
    )
