"""A process that puts numbered entries into an outbox until it is killed, and says which it has.

`python -m tests.support.putting <stream> <first number>`: each line of its output is a number whose
`put` has returned, so from then on the entry must not be lost.
"""

import asyncio
import itertools
import sys

import uvloop

from pipeline import config
from pipeline.clock import Clock
from pipeline.runtime import Context, connect
from pipeline.streams import open_outbox
from pipeline.telemetry import Telemetry
from pipeline.topics import Topics
from tests.support import bus


async def put_for_ever(stream: str, first: int) -> None:
    settings = config.load()
    context = Context(
        "putting",
        settings,
        Clock(),
        Telemetry("putting", settings),
        connect(settings),
        Topics(),
        asyncio.Event(),
    )
    async with open_outbox(context) as outbox:
        for number in itertools.count(first, 4):
            four = [bus.entry(one) for one in range(number, number + 4)]
            await asyncio.gather(*(outbox.put(stream, entry) for entry in four))
            sys.stderr.write("".join(f"{entry.ts}\n" for entry in four))


if __name__ == "__main__":
    uvloop.run(put_for_ever(sys.argv[1], int(sys.argv[2])))
