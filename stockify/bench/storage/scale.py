"""What a second storage worker brings: two processes on two shards beside one on one.

Both load the same rows of two underlyings into the same tables, in turns.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

import msgspec
import redis.asyncio

from pipeline import topics
from pipeline.entries import NewEntry
from pipeline.streams.leases import Membership
from pipeline.topics import Topics
from stockify.bench.report import Line
from stockify.bench.storage import chains, servers
from stockify.bench.storage.loads import Loads, Took
from stockify.bench.storage.rates import define
from stockify.bench.storage.worker import GROUP, Worker, storing

UNDERLYINGS = ("NIFTY", "FINNIFTY")
SHARDS = 3  # two of which have one of them each; of two shards one would have both
HAND_OVER_S = 60.0
LEASE_MS = 12_000


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 9
    batches: int = 6  # for each underlying
    batch_rows: int = 20_000
    instants: int = 12


QUICK = Size(rounds=2, batches=2, batch_rows=5_000, instants=1)


def measure_scale(say: Callable[[str], None], *, quick: bool) -> list[Line]:
    """One and two processes on plain PostgreSQL."""
    size = QUICK if quick else Size()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(servers.open_directory())
        say("starting servers and making chains …")
        url = stack.enter_context(servers.running(directory, (servers.PLAIN,)))[servers.PLAIN]
        parts = [
            chains.make(
                *(size.batches, size.batch_rows),
                instants=size.instants,
                underlyings=(underlying,),
            )
            for underlying in UNDERLYINGS
        ]
        stored = [asyncio.run(define(url, part)) for part in parts]
        batches = [batch for part in stored for batch in chains.batches(part, size.batch_rows)]
        loads = Loads(url, batches)
        stack.callback(loads.close)
        loads.write_files()
        one, two = (
            stack.enter_context(
                storing(
                    directory / f"storing-{processes}",
                    url,
                    batch_rows=size.batch_rows,
                    processes=processes,
                    shards=shards,
                    lease_ms=LEASE_MS,
                )
            )
            for processes, shards in ((1, 1), (2, SHARDS))
        )
        entries = [entry for part in parts for entry in part.entries]
        one.load(entries)
        _share(two, entries)
        rounds: list[tuple[Took, Took, Took]] = []
        for number in range(size.rounds):
            say(f"round {number + 1} of {size.rounds} …")
            turns: dict[str, Callable[[], Took]] = {
                "ceiling": loads.ceiling,
                "one": lambda: one.load(entries),
                "two": lambda: two.load(entries),
            }
            order = list(turns) if number % 2 else list(reversed(turns))
            took = {name: turns[name]() for name in order}
            rounds.append((took["ceiling"], took["one"], took["two"]))
    return _lines(rounds)


def _share(two: Worker, entries: Sequence[NewEntry]) -> None:
    """See to it that each process has a shard: whoever came first has taken both."""
    two.load(entries)
    shards = Topics(SHARDS)
    streams = [shards.enriched(shards.shard_of(name)) for name in UNDERLYINGS]
    asyncio.run(_hand_over(two, streams))
    two.load(entries)


async def _hand_over(two: Worker, streams: Sequence[str]) -> None:
    """Let go of the last stream for the one process that owns it, so that the other takes it."""
    client = redis.asyncio.Redis.from_url(two.redis_url)
    async with contextlib.aclosing(client):
        owners = [await _owner(client, stream) for stream in streams]
        if len(set(owners)) == len(streams):
            return
        deadline = time.monotonic() + HAND_OVER_S
        while len(set(owners)) < len(streams):
            if time.monotonic() > deadline:
                raise RuntimeError("one process keeps both shards")
            has_all = Membership(streams[-1], GROUP, owners[-1], exclusive=True, lease_ms=LEASE_MS)
            has_all.slot = "0"
            await has_all.leave(client)
            await asyncio.sleep(0.2)
            owners = [await _owner(client, stream) for stream in streams]


async def _owner(client: "redis.asyncio.Redis", stream: str) -> str:
    held = await client.hget(topics.lease(stream, GROUP), f"{stream}|owner")
    return held.decode() if isinstance(held, bytes) else ""


def _lines(rounds: Sequence[tuple[Took, Took, Took]]) -> list[Line]:
    def median(of: Callable[[tuple[Took, Took, Took]], float]) -> float:
        return statistics.median(of(turns) for turns in rounds)

    return [
        Line(
            "scale_ratio",
            "two workers on two shards to one on one",
            median(lambda turns: turns[2].rows_per_s / turns[1].rows_per_s),
            "×",
            2,
        ),
        Line("one_rows_per_s", "by one", median(lambda turns: turns[1].rows_per_s), "rows/s"),
        Line("two_rows_per_s", "by two", median(lambda turns: turns[2].rows_per_s), "rows/s"),
        Line(
            "scale_ceiling_fraction",
            "two, to one server-side COPY",
            median(lambda turns: turns[2].rows_per_s / turns[0].rows_per_s),
            "",
            2,
        ),
        Line(
            "two_client_us_per_row",
            "CPU of both workers",
            median(lambda turns: turns[2].client_us),
            "µs/row",
            2,
        ),
    ]
