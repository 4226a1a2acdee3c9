"""A real gateway on a free port, in the test's own event loop, and real clients for it."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec
import websockets

from api import __main__ as gateway_process
from api.gateway import Limits
from pipeline import frames, latest
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.credentials import issue_token
from pipeline.models import EnrichedChain, market_snapshot
from pipeline.runtime import Context, Redis, connect
from pipeline.telemetry import Telemetry
from pipeline.topics import Topics
from tests.support import chains, tokens
from tests.support.servers import free_port

SECRET = tokens.SECRET
EPOCH = "e1"
WAIT_S = 10.0
STOP_S = 20.0  # above what the gateway gives its requests and sessions
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's certificates takes long


@dataclass
class Gateway:
    """A gateway that runs, and what a test needs to talk to it."""

    settings: Settings
    redis: Redis
    http: httpx.AsyncClient
    telemetry: Telemetry
    stopping: asyncio.Event
    topics: Topics
    limits: Limits

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.settings.gateway_port}/v1/ws"

    def token(self, *scopes: str, **changes: Any) -> str:
        return issue_token(SECRET, scopes=scopes or ("live", "history"), **changes)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """A GET with a good token."""
        headers = {"Authorization": f"Bearer {self.token()}"} | options.pop("headers", {})
        return await self.http.get(path, headers=headers, **options)

    async def publish(self, chain: EnrichedChain, seq: int, epoch: str = EPOCH) -> int:
        return await publish(self.redis, self.topics, chain, seq, epoch)

    @contextlib.asynccontextmanager
    async def client(
        self, *, is_authenticated: bool = True, msgpack: bool = False, **options: Any
    ) -> AsyncIterator["Client"]:
        protocol = "stockify.v1.msgpack" if msgpack else "stockify.v1"
        async with websockets.connect(
            self.socket_url, subprotocols=[websockets.Subprotocol(protocol)], **options
        ) as socket:
            client = Client(socket, msgpack)
            if is_authenticated:
                await client.until(lambda message: message["type"] == "hello")
                await client.ask("auth", token=self.token())
            yield client


class Client:
    """A WebSocket client that hands out one message at a time."""

    def __init__(self, socket: websockets.ClientConnection, msgpack: bool = False) -> None:
        self.socket = socket
        self.frames = 0
        self._msgpack = msgpack
        self._waiting: list[dict[str, Any]] = []
        self._id = 0

    async def next(self) -> dict[str, Any]:
        while not self._waiting:
            data = await asyncio.wait_for(self.socket.recv(), WAIT_S)
            self.frames += 1
            if self._msgpack:
                assert isinstance(data, bytes)
                self._waiting = msgspec.msgpack.decode(data, type=list[dict[str, Any]])
            else:
                self._waiting = msgspec.json.decode(data)
                assert isinstance(self._waiting, list)
        return self._waiting.pop(0)

    async def until(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is wanted; others are passed over."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            message = await self.next()
            if is_wanted(message):
                return message
        raise AssertionError("the message did not come")

    async def closed(self) -> int:
        """The code with which the server ends the session."""
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.until(lambda _message: False)
        assert self.socket.close_code is not None
        return self.socket.close_code

    async def send(self, op: str, **fields: Any) -> int:
        self._id += 1
        message = {"op": op, "id": self._id, **fields}
        data = msgspec.msgpack.encode(message) if self._msgpack else json.dumps(message)
        await self.socket.send(data)
        return self._id

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send an operation; its answer."""
        number = await self.send(op, **fields)
        return await self.until(lambda message: message.get("id") == number)

    async def of(self, kind: str, channel: str) -> dict[str, Any]:
        return await self.until(
            lambda message: message["type"] == kind and message.get("channel") == channel
        )


async def publish(
    redis: Redis, topics: Topics, chain: EnrichedChain, seq: int, epoch: str = EPOCH
) -> int:
    """Write a chain as the realtime worker does."""
    position = frames.Position(epoch, seq, chain.header.ts_ingest + 1_000_000)
    texts = frames.encode_client_json(chain, market_snapshot(chain.header), position)
    shard = topics.shard_of(chain.header.underlying)
    return await latest.write_chain(redis, topics, shard, texts, chain.header, position)


def moved(chain: EnrichedChain, *, seconds: int, **columns: dict[int, Any]) -> EnrichedChain:
    """The chain some seconds later, with some elements of some columns changed."""
    legs = dict(chain.legs)
    for name, changes in columns.items():
        column = legs[name].copy()
        for index, value in changes.items():
            column[index] = value
        legs[name] = column
    ts_ingest = chain.header.ts_ingest + seconds * 1_000_000_000
    return EnrichedChain(msgspec.structs.replace(chain.header, ts_ingest=ts_ingest), legs)


@contextlib.asynccontextmanager
async def running(
    redis_url: str, database_url: str = "", *, limits: Limits | None = None, **changes: Any
) -> AsyncIterator[Gateway]:
    """A gateway whose clock stands near the synthetic chains; stopped at the end."""
    settings = Settings(
        redis_url=redis_url,
        database_url=database_url,
        gateway_port=free_port(),
        jwt_secret=changes.pop("jwt_secret", SECRET),
        clock=changes.pop("clock", "2026-01-25T15:30:30+05:30"),
        log_level=changes.pop("log_level", "error"),
        **changes,
    )
    bounds = limits or Limits()
    telemetry = Telemetry("gateway", settings)
    topics = Topics(shards=settings.shards, tagged=settings.redis_cluster)
    stopping = asyncio.Event()
    redis = connect(settings, name="gateway")
    clock = Clock(settings.clock)
    context = Context("gateway", settings, clock, telemetry, redis, topics, stopping)
    serving = asyncio.create_task(gateway_process.serve(context, bounds))
    url = f"http://127.0.0.1:{settings.gateway_port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=WAIT_S, verify=NO_TLS) as http:
            await _answering(http, serving)
            yield Gateway(settings, redis, http, telemetry, stopping, topics, bounds)
    finally:
        stopping.set()
        await asyncio.wait_for(serving, STOP_S)
        await redis.aclose()
        telemetry.close()


async def _answering(http: httpx.AsyncClient, serving: "asyncio.Task[None]") -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        if serving.done():
            await serving
        with contextlib.suppress(httpx.TransportError):
            if (await http.get("/healthz")).status_code == 200:
                return
        assert time.monotonic() < deadline, "the gateway did not start"
        await asyncio.sleep(0.02)


async def until_true(claim: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Poll a claim until it holds."""
    deadline = time.monotonic() + wait_s
    while not claim():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


CHAIN = chains.enriched()
QUICK = replace(Limits(), authenticate_s=0.3, heartbeat_s=0.3, stalled_s=1.0)
