"""One server and a cluster, one shard and six: what one and two processes append and read.

Six servers and the processes share this machine, so a cluster shows what it costs here, not what it
brings where each node has cores of its own. The failover is timed by `stockify bench faults`.
"""

import contextlib
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from pipeline.config import Settings
from stockify import plan, warm
from stockify.bench import embedded
from stockify.bench.bus import frames
from stockify.bench.bus.children import Child, Taken
from stockify.bench.report import Column, Grid, Line, Report
from stockify.engines import cluster

SHARDS = 6
MODULE = "stockify.bench.cluster.client"


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 5
    entries: int = 1_200  # a turn
    gets: int = 2_000
    get_turns: int = 5  # in a round


QUICK = Size(rounds=1, entries=240, gets=300, get_turns=2)


class Setting(msgspec.Struct, frozen=True):
    """Where processes work: a name for the table, and their settings."""

    name: str
    settings: Settings


def measure(say: Callable[[str], None], *, quick: bool = False) -> Report:
    """Run everything."""
    size = QUICK if quick else Size()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockify-bench-")))
        say("making chains …")
        if "processor" in warm.cold_roles():
            say("compiling kernels, once on this machine …")
        sample = frames.make(folder / "entries", folder / "chains.json")
        rates: dict[str, dict[str, list[float]]] = {}
        gets: dict[str, list[float]] = defaultdict(list)  # µs, through the cluster's client or not
        for name, start in (("one", _one_server), ("six", _one_server), ("cluster", _cluster)):
            shards = 1 if name == "one" else SHARDS
            say(f"{_title(name)} …")
            place = folder / name
            place.mkdir()
            with start(place, shards) as settings:
                rates[name] = _rates(settings, folder / "entries", size, gets)
    return _report(rates, gets, sample)


@contextlib.contextmanager
def _one_server(directory: Path, shards: int) -> Iterator[Settings]:
    with embedded.valkey(directory) as url:
        yield Settings(redis_url=url, shards=shards, state_dir=str(directory / "state"))


@contextlib.contextmanager
def _cluster(directory: Path, shards: int) -> Iterator[Settings]:
    with cluster.running(directory) as nodes:
        yield Settings(
            redis_url=nodes.urls,
            redis_cluster=True,
            shards=shards,
            state_dir=str(directory / "state"),
        )


def _rates(
    settings: Settings, entries: Path, size: Size, gets: dict[str, list[float]]
) -> dict[str, list[float]]:
    """Entries/s of each turn, by `<what>_<processes>`; µs of a GET on a cluster into `gets`."""
    found: dict[str, list[float]] = defaultdict(list)
    for processes in (1, 2):
        shares = [list(range(settings.shards))[n::processes] for n in range(processes)]
        shares = [share or [0] for share in shares]  # of one shard, both append to it
        with contextlib.ExitStack() as stack:
            children = [
                stack.enter_context(_child(settings, entries, share, number))
                for number, share in enumerate(shares)
            ]
            readers = children[: len({tuple(share) for share in shares})]  # one has the lease
            _turn(children, "produce", 240)
            _turn(readers, "consume", 240)
            for _ in range(size.rounds):
                found[f"produce_{processes}"].append(_turn(children, "produce", size.entries))
                found[f"consume_{processes}"].append(_turn(readers, "consume", size.entries))
                for child in readers:
                    child.ask(Taken, do="clear", count=0)
                for do in ("get", "get_direct") * (size.get_turns * settings.redis_cluster):
                    gets[do].append(1e6 / _turn(children[:1], do, size.gets))
    return found


def _turn(children: Sequence[Child], do: str, count: int) -> float:
    """Entries/s of all together: by the slowest of them."""
    for child in children:
        child.tell(do=do, count=count // len(children))
    taken = [child.answer(Taken) for child in children]
    return sum(one.entries for one in taken) / max(one.wall_s for one in taken)


@contextlib.contextmanager
def _child(settings: Settings, entries: Path, shards: list[int], number: int) -> Iterator[Child]:
    arguments = (str(entries), ",".join(map(str, shards)))
    argv = (sys.executable, "-m", MODULE, *arguments)
    log = Path(settings.state_dir).with_name(f"client-{number}.log")
    child = Child(f"client {number}", argv, plan.environment(settings, "bench"), log)
    try:
        yield child
    finally:
        child.close()


def _title(name: str) -> str:
    return {
        "one": "one server, 1 shard",
        "six": f"one server, {SHARDS} shards",
        "cluster": f"3 primaries with a replica each, {SHARDS} shards",
    }[name]


def _report(
    rates: dict[str, dict[str, list[float]]], gets: dict[str, list[float]], sample: frames.Sample
) -> Report:
    # The quickest turns: what others do on the machine only ever adds.
    through, direct = min(gets["get"]), min(gets["get_direct"])
    return Report(
        title="One server and a cluster",
        caption=f"{frames.LEGS} contracts in a frame of {sample.payload_bytes / 1e3:,.1f} kB",
        lines=[
            Line("get_us", "a GET of a node of the cluster, plain client", direct, "µs"),
            Line("get_cluster_us", "the same by the cluster's client", through, "µs"),
            Line("get_ratio", "that to a plain one", through / direct, "×", 2),
        ],
        grids=[
            Grid(
                title="frames/s",
                columns=(
                    Column("produce_1", "appended by 1 process"),
                    Column("produce_2", "by 2"),
                    Column("consume_1", "read by 1 process"),
                    Column("consume_2", "by 2"),
                ),
                rows={
                    name: {what: statistics.median(turns) for what, turns in found.items()}
                    for name, found in rates.items()
                },
                caption="\n".join(
                    (
                        *(f"{name}: {_title(name)}" for name in rates),
                        "a shard has one reader at a time: of one shard, the second stands by",
                    )
                ),
            )
        ],
    )
