"""Feeds raw entries at a steady rate, the way ingest does.

A worker like any other, with a spool of its own under its state directory; it may be killed and
goes on where it was. What it was told is safe it notes in a journal. Started as a module it takes
the directory, the rate and every how many entries is poison.
"""

import asyncio
import functools
import itertools
import sys
from pathlib import Path

import msgspec

from pipeline.clock import Clock
from pipeline.runtime import Context, pause, run
from pipeline.streams import Outbox, open_outbox
from stockify.bench.faults import chains
from stockify.bench.faults.chains import Chains
from stockify.bench.faults.journal import Journal, Promise

MICROSECOND_NS = 1_000  # Postgres keeps no less, and an instant is what tells chains apart


class Order(msgspec.Struct, frozen=True):
    """What to feed: where chains and journal lie, entries/s, every how many is poison (0: none)."""

    directory: Path
    rate: float
    poison_every: int = 0

    @property
    def chains(self) -> Path:
        """The file of the chains."""
        return self.directory / "chains"

    @property
    def journal(self) -> Path:
        """The file of what is safe."""
        return self.directory / "journal"


class Instants:
    """Instants of receipt, each its own and each after the last, across restarts too."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._last = 0

    def next(self) -> int:
        """Now, or just after the last."""
        now = self._clock.now_ns() // MICROSECOND_NS * MICROSECOND_NS
        self._last = max(now, self._last + MICROSECOND_NS)
        return self._last


async def feed(order: Order, context: Context) -> None:
    """Feed every underlying at its share of the rate until stopping."""
    made = chains.read(order.chains)

    def route(_stream: str, symbol: str) -> str:
        return context.topics.raw(context.topics.shard_of(symbol.partition("-")[0]))

    async with open_outbox(context, route) as outbox:
        feeding = _Feeding(order, context, outbox)
        context.telemetry.set_state("ready")
        try:
            async with asyncio.TaskGroup() as group:
                for one in made:
                    group.create_task(feeding.follow(one, order.rate / len(made)))
        finally:
            feeding.close()


class _Feeding:
    def __init__(self, order: Order, context: Context, outbox: Outbox) -> None:
        self._poison_every = order.poison_every
        self._context = context
        self._outbox = outbox
        self._journal = Journal(order.journal)
        self._instants = Instants()
        self._count = itertools.count(1)

    def close(self) -> None:
        self._journal.close()

    async def follow(self, made: Chains, rate: float) -> None:
        """One underlying's chain, over and over; behind its time it never hurries."""
        topics, loop = self._context.topics, asyncio.get_running_loop()
        stream = topics.raw(topics.shard_of(made.underlying))
        due = loop.time()
        for lap in itertools.count():
            due = max(due + 1 / rate, loop.time())
            await pause(self._context.stopping, due - loop.time())
            if self._context.stopping.is_set():
                return
            is_poison = self._poison_every > 0 and next(self._count) % self._poison_every == 0
            ts = self._instants.next()
            entry = made.poison(ts) if is_poison else made.entry(lap, ts)
            if await self._outbox.put(stream, entry) != "dropped":
                self._journal.note(Promise(entry.id, "poison" if is_poison else "chain"))


def main() -> None:
    """Run the feeder that the arguments describe."""
    directory, rate, poison_every = sys.argv[1:4]
    order = Order(Path(directory), float(rate), int(poison_every))
    run("feeder", functools.partial(feed, order))


if __name__ == "__main__":
    main()
