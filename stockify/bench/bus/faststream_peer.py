"""FastStream's Redis Streams subscriber as its users write it: one message a chain.

Started by its path with the Python of `.venv-bench`, which has none of this project's packages, so
it imports none. Handlers are given every contract of a chain as Python objects, in one of three
ways: `dicts` (FastStream's default), `pydantic` (a model, as its documentation teaches), `msgspec`
(structs by a decoder of the user's own, the fastest). Never compares: it answers what it is asked.
"""

import asyncio
import importlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("faststream-peer")  # its lines of every message are left out
GROUP, CONSUMER = "storage", "storage-0"
AT_ONCE = 32  # messages of one read, as ours reads


def contract_fields(chains: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Names and types of a contract: what is seen of each field in all of them, or nothing."""
    fields: dict[str, Any] = {}
    for contract in (one for chain in chains for one in chain["contracts"]):
        for name, value in contract.items():
            fields[name] = fields.get(name, type(None)) | type(value)
    return list(fields.items())


class Peer:
    """A broker with one subscriber for each way; the turn's is started, and stopped after it."""

    def __init__(self, url: str, chains: list[dict[str, Any]]) -> None:
        faststream: Any = importlib.import_module("faststream.redis")
        self._broker = faststream.RedisBroker(url, logger=LOGGER)
        self._sub = faststream.StreamSub
        self._chains = chains
        self._wanted = self._contracts = self._messages = 0
        self._done = asyncio.Event()
        self._ways = {
            "dicts": self._dicts(),
            "pydantic": self._pydantic(),
            "msgspec": self._msgspec(),
        }

    @property
    def ways(self) -> list[str]:
        """The names of the ways."""
        return list(self._ways)

    async def connect(self) -> None:
        """Connect, without starting a subscriber."""
        await self._broker.connect()

    async def produce(self, way: str, count: int) -> dict[str, float]:
        """Publish messages one after the other: FastStream has no pipeline for streams."""
        began = _now()
        for number in range(count):
            chain = self._chains[number % len(self._chains)]
            await self._broker.publish(chain, stream=_stream(way))
        return _taken(began, count, count * len(self._chains[0]["contracts"]))

    async def consume(self, way: str, count: int) -> dict[str, float]:
        """Have that many messages handled, and acknowledged by FastStream."""
        self._done.clear()
        self._messages = self._contracts = 0
        self._wanted = count
        subscriber = self._ways[way]
        began = _now()
        await subscriber.start()
        await self._done.wait()
        taken = _taken(began, self._messages, self._contracts)
        await subscriber.stop()
        return taken

    def _count(self, contracts: int) -> None:
        self._messages += 1
        self._contracts += contracts
        if self._messages == self._wanted:
            self._done.set()

    def _subscriber(self, way: str, **options: Any) -> Any:
        stream = self._sub(
            _stream(way), group=GROUP, consumer=CONSUMER, last_id="0", max_records=AT_ONCE
        )
        return self._broker.subscriber(stream=stream, **options)

    def _dicts(self) -> Any:
        subscriber = self._subscriber("dicts")

        async def handle(chain: dict[str, Any]) -> None:
            self._count(len(chain["contracts"]))

        subscriber(handle)
        return subscriber

    def _pydantic(self) -> Any:
        pydantic: Any = importlib.import_module("pydantic")
        fields: Any = {name: (kind, None) for name, kind in contract_fields(self._chains)}
        contract: Any = pydantic.create_model("Contract", **fields)
        header = dict[str, Any]
        chain_model: Any = pydantic.create_model(
            "Chain",
            header=(header, ...),
            contracts=(list[contract], ...),
        )
        subscriber = self._subscriber("pydantic")

        async def handle(chain: Any) -> None:
            self._count(len(chain.contracts))

        handle.__annotations__["chain"] = chain_model
        subscriber(handle)
        return subscriber

    def _msgspec(self) -> Any:
        msgspec: Any = importlib.import_module("msgspec")
        fields = [(name, kind, None) for name, kind in contract_fields(self._chains)]
        contract: Any = msgspec.defstruct("Contract", fields, gc=False)
        chain_struct: Any = msgspec.defstruct(
            "Chain",
            [("header", dict[str, Any]), ("contracts", list[contract])],
        )
        decoder = msgspec.json.Decoder(chain_struct)

        async def decode(message: Any) -> Any:
            return decoder.decode(message.body)

        subscriber = self._subscriber("msgspec", decoder=decode)

        async def handle(chain: Any) -> None:
            self._count(len(chain.contracts))

        subscriber(handle)
        return subscriber


def _stream(way: str) -> str:
    return f"faststream-{way}"


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _taken(began: tuple[float, float], entries: int, contracts: int) -> dict[str, float]:
    wall, cpu = (end - begin for begin, end in zip(began, _now(), strict=True))
    return {"wall_s": wall, "cpu_s": cpu, "entries": entries, "contracts": contracts}


async def serve(url: str, chains: list[dict[str, Any]]) -> None:
    """Answer on stdout each line `{"do", "way", "count"}` of stdin, until that ends."""
    peer = Peer(url, chains)
    await peer.connect()
    _say(ready=peer.ways)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        turn = peer.produce if asked["do"] == "produce" else peer.consume
        _say(**await turn(asked["way"], asked["count"]))


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    try:
        uvloop: Any = importlib.import_module("uvloop")  # as FastStream's command does where it is
        uvloop.run(serve(sys.argv[1], json.loads(Path(sys.argv[2]).read_bytes())))
    except ImportError as error:
        _say(missing=str(error))
