"""What the bus carries a second: one producing and one consuming process, beside other people's.

Everybody works at one embedded Valkey, log synced every second, and all take short turns, so that a
ratio compares what happened within a second. Every client is a process of its own.
"""

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pipeline.config import Settings
from pipeline.topics import Topics
from stockify import plan, warm
from stockify.bench import embedded
from stockify.bench.bus import frames
from stockify.bench.bus.children import Child, Taken
from stockify.bench.bus.server import CEILING_STREAM, PLAIN_STREAM, Server, redis_benchmark
from stockify.bench.report import Column, Grid, Line, MissingPeer, Report

PEER_PYTHON = Path(__file__).resolve().parents[3] / ".venv-bench" / "bin" / "python"
DEPTH = 8  # entries of one call of ours, and redis-benchmark's pipeline
UNDER_WAY = 2  # calls of ours
BEST_WAY = "msgspec"  # of FastStream's: ratios are to this one
STREAM = Topics().enriched(0)


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 11
    entries: int = 2_400  # a turn
    chains: int = 320  # a turn of FastStream
    rounds_of_slow: int = 2  # of its slower ways


QUICK = Size(rounds=2, entries=480, chains=32, rounds_of_slow=1)


class _Peer(msgspec.Struct, frozen=True):
    ready: list[str] = []
    missing: str = ""


class _Round(msgspec.Struct):
    """The turns of one round."""

    ceiling: float
    deeper: float
    produce: Taken
    plain: Taken
    columns: Taken
    structs: Taken
    published: Taken
    peers: dict[str, Taken]


def measure(say: Callable[[str], None], *, quick: bool = False) -> Report:
    """Run everything. Raises MissingPeer where redis-benchmark or FastStream is missing."""
    size = QUICK if quick else Size()
    if not PEER_PYTHON.exists():
        raise MissingPeer("faststream is not installed")
    redis_benchmark()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockify-bench-")))
        say("making chains …")
        if "processor" in warm.cold_roles():
            say("compiling kernels, once on this machine …")
        sample = frames.make(folder / "entries", folder / "chains.json")
        server = Server(stack.enter_context(embedded.valkey(folder)))
        stack.callback(server.close)
        ours, peer, ways = stack.enter_context(_clients(server, folder))
        bench = _Bench(server, ours, peer, sample, size)
        bench.begin()
        rounds = []
        for number in range(size.rounds):
            say(f"round {number + 1} of {size.rounds} …")
            slow = ways if number < size.rounds_of_slow else [BEST_WAY]
            rounds.append(bench.round(slow, ceiling_first=number % 2 == 0))
    return _report(rounds, sample)


class _Bench:
    """The turns: who has one, in which order, and what must be true after it."""

    def __init__(
        self, server: Server, ours: Child, peer: Child, sample: frames.Sample, size: Size
    ) -> None:
        self._server, self._ours, self._peer = server, ours, peer
        self._sample, self._size = sample, size

    def begin(self) -> None:
        """Connections, leases and memory are there before the first round counts."""
        self._our("produce", 4 * DEPTH)
        self._ours.ask(dict, do="join")
        self._server.clear(STREAM)
        self.round([BEST_WAY], ceiling_first=True)

    def round(self, ways: list[str], *, ceiling_first: bool) -> _Round:
        """One turn for everybody."""
        entries = self._size.entries
        ceiling = self._ceiling(DEPTH) if ceiling_first else 0.0
        produce = self._our("produce", entries)
        if self._server.length(STREAM) != entries:
            raise RuntimeError("the producer did not append what it was told to")
        self._server.rest()
        ceiling = ceiling or self._ceiling(DEPTH)
        deeper = self._ceiling(DEPTH * UNDER_WAY)
        columns, structs = self._our("columns", entries), self._our("structs", entries)
        if any(self._server.pending(STREAM, group) for group in ("columns", "structs")):
            raise RuntimeError("the consumer left something pending")
        self._server.clear(STREAM)
        plain = self._our("plain", entries)
        self._server.clear(PLAIN_STREAM)
        published, peers = None, {}
        for way in ways:
            published = self._peer.ask(Taken, do="produce", way=way, count=self._size.chains)
            self._server.rest()
            peers[way] = self._peer.ask(Taken, do="consume", way=way, count=self._size.chains)
            self._server.clear(f"faststream-{way}")
        self._server.shrink_log()
        if published is None:
            raise ValueError("a round has one way of FastStream's at least")
        return _Round(ceiling, deeper, produce, plain, columns, structs, published, peers)

    def _ceiling(self, depth: int) -> float:
        rate = self._server.ceiling(self._sample.entries[0], self._size.entries, depth)
        self._server.clear(CEILING_STREAM)
        return rate

    def _our(self, do: str, count: int) -> Taken:
        return self._ours.ask(Taken, do=do, count=count)


@contextlib.contextmanager
def _clients(server: Server, folder: Path) -> Iterator[tuple[Child, Child, list[str]]]:
    """Our process and FastStream's, with the ways it knows. Raises MissingPeer without it."""
    settings = Settings(redis_url=server.url, state_dir=str(folder / "state"))
    with contextlib.ExitStack() as stack:

        def start(name: str, *argv: str) -> Child:
            environment = plan.environment(settings if name == "ours" else Settings(), "bench")
            child = Child(name, argv, environment, folder / f"{name}.log")
            stack.callback(child.close)
            return child

        script = str(Path(__file__).with_name("faststream_peer.py"))
        chains, python = str(folder / "chains.json"), str(PEER_PYTHON)
        peer = start("faststream", python, "-I", script, server.url, chains)
        hello = peer.answer(_Peer)
        if hello.missing:
            raise MissingPeer(f"faststream: {hello.missing}")
        module = ("-m", "stockify.bench.bus.clients")
        ours = start("ours", sys.executable, *module, str(folder / "entries"))
        yield ours, peer, hello.ready


def _report(rounds: list[_Round], sample: frames.Sample) -> Report:
    def median(of: Callable[[_Round], float]) -> float:
        return statistics.median(of(one) for one in rounds)

    def to_best(one: Taken, of: _Round) -> float:
        return one.contracts_per_cpu_s / of.peers[BEST_WAY].contracts_per_cpu_s

    consumed = median(lambda one: one.columns.entries_per_s)
    return Report(
        title="The bus, one process a client",
        caption=f"{frames.LEGS} contracts in a frame of {sample.payload_bytes / 1e3:,.1f} kB",
        lines=[
            Line(
                "ceiling_fraction",
                "appended, to redis-benchmark's at the same depth",
                median(lambda one: one.produce.entries_per_s / one.ceiling),
                "",
                2,
                "≥ 0.70",
            ),
            Line(
                "ceiling_fraction_16",
                "the same to redis-benchmark's at twice the depth",
                median(lambda one: one.produce.entries_per_s / one.deeper),
                "",
                2,
            ),
            Line(
                "plain_fraction",
                "redis-py's pipeline to the same, without the promises",
                median(lambda one: one.plain.entries_per_s / one.ceiling),
                "",
                2,
            ),
            Line(
                "consume_contracts_per_s",
                "contracts read, decoded to columns, acknowledged",
                consumed * frames.LEGS,
                "contracts/s",
                target="≥ 2,000,000",
            ),
            Line(
                "ratio_faststream",
                "the same by CPU, to FastStream's subscriber with structs",
                median(lambda one: to_best(one.columns, one)),
                "×",
                1,
                "≥ 5",
            ),
            Line(
                "ratio_faststream_structs",
                "with a struct a contract on our side too",
                median(lambda one: to_best(one.structs, one)),
                "×",
                1,
            ),
            *_lines(rounds, median),
        ],
        grids=[_ways(rounds)],
    )


def _lines(
    rounds: list[_Round], median: Callable[[Callable[[_Round], float]], float]
) -> list[Line]:
    def us(of: Callable[[_Round], Taken]) -> float:
        return median(lambda one: of(one).cpu_s / of(one).entries * 1e6)

    ceiling, produced = (
        median(lambda one: one.ceiling),
        median(lambda one: one.produce.entries_per_s),
    )
    return [
        Line("ceiling_frames_per_s", "redis-benchmark's appends", ceiling, "frames/s"),
        Line("produce_frames_per_s", "our appends", produced, "frames/s"),
        Line("produce_contracts_per_s", "of contracts", produced * frames.LEGS, "contracts/s"),
        Line(
            "consume_frames_per_s",
            "our reads",
            median(lambda one: one.columns.entries_per_s),
            "frames/s",
        ),
        Line("produce_cpu_us", "CPU of an append", us(lambda one: one.produce), "µs a frame"),
        Line("plain_cpu_us", "of one by redis-py's pipeline", us(lambda one: one.plain), "µs"),
        Line("consume_cpu_us", "CPU of a read, to columns", us(lambda one: one.columns), "µs"),
        Line("structs_cpu_us", "of one to structs", us(lambda one: one.structs), "µs a frame"),
        Line(
            "ratio_faststream_publish",
            "contracts appended by CPU, to FastStream's publisher",
            median(lambda one: one.produce.contracts_per_cpu_s / one.published.contracts_per_cpu_s),
            "×",
            1,
        ),
    ]


def _ways(rounds: list[_Round]) -> Grid:
    rows = {}
    for way in rounds[0].peers:
        turns = [one.peers[way] for one in rounds if way in one.peers]
        rows[way] = {
            "contracts_per_cpu_s": statistics.median(t.contracts_per_cpu_s for t in turns),
            "contracts_per_s": statistics.median(t.contracts / t.wall_s for t in turns),
        }
    return Grid(
        title="FastStream's subscriber, one message a chain",
        columns=(
            Column("contracts_per_cpu_s", "contracts a CPU-second"),
            Column("contracts_per_s", "contracts a second"),
        ),
        rows=rows,
        caption="structs of msgspec by a decoder of the user's; models; dicts, the default",
        key="faststream",
    )
