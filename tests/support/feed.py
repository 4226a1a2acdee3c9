"""A market that is published for real, and what clients of the live feed hold of it."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import websockets

from pipeline import frames, latest, models
from pipeline.entries import NewEntry
from pipeline.models import EnrichedChain
from pipeline.runtime import Context
from pipeline.streams import Producer
from tests.support import bus, chains
from tests.support.gateway import CHAIN, WAIT_S, Client, Gateway, moved
from workers import realtime

CHANNEL = "chain:NIFTY-20260127"
CONTRACT = "contract:NIFTY-20260127-25000-CE"
OTHER = chains.enriched(underlying="BANKNIFTY")


def snapshot(number: int, chain: EnrichedChain = CHAIN) -> NewEntry:
    """The entry of a chain's `number`th snapshot, a second after the one before."""
    later = moved(chain, seconds=number, last={number % 40: 50.0 + number, 41: 1.0 + number})
    return NewEntry(
        id=f"{chain.header.underlying}-{number}",
        type=models.ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=later.header.ts_ingest,
        te=later.header.ts_ingest + 1_000_000,
        data=frames.encode_frame(later),
        contracts=later.header.n,
    )


class Market:
    """An enriched stream that is written to, and a realtime worker at work on it."""

    def __init__(self, context: Context, producer: Producer) -> None:
        self.context = context
        self._producer = producer
        self._stream = context.topics.enriched(context.topics.shard_of("NIFTY"))

    async def append(self, *numbers: int, chain: EnrichedChain = CHAIN) -> list[int]:
        """Append a chain's snapshots of those numbers, all at once; gives their seqs."""
        entries = [snapshot(number, chain) for number in numbers]
        calls = [self._producer.append(self._stream, one) for one in entries]
        return [one.seq for one in await asyncio.gather(*calls)]

    async def open(self) -> int:
        """Append the first snapshot and wait until it can be subscribed to; gives its seq."""
        (first,) = await self.append(0)
        await self.published(CHANNEL, first)
        return first

    async def published(self, channel: str, seq: int) -> None:
        """Wait until a channel's newest value is that one."""
        symbol = channel.partition(":")[2]
        source = latest.Latest(self.context.redis, self.context.topics)
        async with asyncio.timeout(WAIT_S):
            while True:
                (text,) = await source.texts([symbol])
                if text is not None and latest.decode_latest(symbol, text).position.seq >= seq:
                    return
                await asyncio.sleep(0.01)

    async def epoch(self) -> str:
        """The epoch of the stream."""
        ((_id, fields),) = await self.context.redis.xrevrange(self._stream, count=1)
        return str(fields[b"epoch"].decode())

    async def trim(self, kept: int) -> None:
        """Leave only the newest entries of the stream."""
        await self.context.redis.xtrim(self._stream, maxlen=kept, approximate=False)


@contextlib.asynccontextmanager
async def market(redis_url: str) -> AsyncIterator[Market]:
    async with bus.context(redis_url, "realtime") as context:
        producer = Producer(context.settings, "producer")
        try:
            async with bus.working(context, realtime.publish):
                yield Market(context, producer)
        finally:
            await producer.close()


class Held:
    """What a client holds of a channel; every message must follow the one before."""

    def __init__(self, channel: str = CHANNEL) -> None:
        self.channel = channel
        self.rows: dict[str, Any] = {}
        self.epoch = ""
        self.first = self.last = 0
        self.seqs: list[int] = []
        self.merged = 0
        self.snapshots = 0
        self.skipped = 0

    @property
    def since(self) -> dict[str, dict[str, Any]]:
        """What the client says to resume."""
        return {self.channel: {"epoch": self.epoch, "seq": self.last}}

    def apply(self, message: dict[str, Any]) -> None:
        if message.get("channel") != self.channel:
            return
        if message["type"] == "skipped":
            assert message["from"] == self.last
            self.skipped += message["n"] or 0
            return
        if message["type"] == "snapshot":
            self.rows = {}
            self.epoch = message["epoch"]
            self.snapshots += 1
            self.first = self.first or message["seq"]
        elif message["type"] == "update":
            assert (message["epoch"], message["prev"]) == (self.epoch, self.last)
            self.seqs.append(message["seq"])
            self.merged += message["n"] - 1
        else:
            return
        self.last = message["seq"]
        self.rows |= {row["symbol"]: row for row in message["rows"]}
        for name in message.get("removed", ()):
            del self.rows[name]

    async def follow(self, client: Client, until: int) -> "Held":
        """Read messages until the channel is at a seq."""
        while self.last < until:
            self.apply(await client.next())
        return self


async def opened(served: Gateway, **options: Any) -> Client:
    """A client that is let in; whoever asked for it closes its socket."""
    connection = await websockets.connect(
        served.socket_url,
        subprotocols=[websockets.Subprotocol("stockify.v1")],
        additional_headers={"Authorization": f"Bearer {served.token()}"},
        compression=None,
        **options,
    )
    client = Client(connection)
    await client.until(lambda message: message["type"] == "ack")
    return client


async def stalled(served: Gateway) -> socket.socket:
    """A raw connection that subscribes and then reads nothing at all."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", served.settings.gateway_port))
    request = (
        "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Authorization: Bearer {served.token()}\r\n\r\n"
    )
    await loop.sock_sendall(raw, request.encode())
    assert b" 101 " in await loop.sock_recv(raw, 64)
    message = json.dumps({"op": "subscribe", "channels": [CHANNEL], "interval_ms": 0}).encode()
    assert len(message) < 126
    await loop.sock_sendall(raw, bytes((0x81, 0x80 | len(message))) + bytes(4) + message)
    return raw
