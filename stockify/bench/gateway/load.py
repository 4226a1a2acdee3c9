"""The clients of a turn, in a process of their own, told what to do line by line.

`python -m stockify.bench.gateway.load PROGRESS`. `{"do": "open", …}` connects clients and waits
until they are served, `begin` and `end` enclose what counts, `close` hangs up, `get` asks for one
path over and over. Never compares: it answers each line of stdin.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from stockify.bench.gateway import sockets
from stockify.bench.gateway.asking import Asked, Fetched, ask, fetch
from stockify.bench.gateway.progress import Progress
from stockify.bench.gateway.sockets import Client, Received, Tally

AT_ONCE = 40  # handshakes under way
SERVED_S = 30.0
SETTLED_S, QUIET_S = 3.0, 0.1
SLOW_S = 0.1  # a slow client reads once in that time, 64 kB at most


class Load:
    """The clients that are connected."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._clients: list[Client] = []
        self._beside: list[tuple[Client, asyncio.Task[None] | None]] = []
        self._tally: Tally | None = None

    async def open(
        self, url: str, clients: int, subscribe: dict[str, Any], token: str, marker: str
    ) -> int:
        """Connect clients; with a subscription wait until each has all its snapshots."""
        self._tally = Tally(marker.encode(), self._tell)
        headers = _headers(token)
        for first in range(0, clients, AT_ONCE):
            count = min(AT_ONCE, clients - first)
            self._clients += await asyncio.gather(
                *(_served(url, self._tally, headers, subscribe) for _ in range(count))
            )
        return len(self._clients)

    async def beside(self, url: str, subscribe: dict[str, Any], token: str) -> int:
        """Connect a slow client and one that stops reading; nothing of them is counted."""
        for is_slow in (True, False):
            client = await _served(url, None, _headers(token), subscribe)
            if client.transport is None:
                raise RuntimeError("not connected")
            client.transport.pause_reading()
            reading = asyncio.create_task(_read_slowly(client)) if is_slow else None
            self._beside.append((client, reading))
        return len(self._beside)

    async def begin(self) -> int:
        """Count from here."""
        if self._tally is None:
            raise RuntimeError("nobody is connected")
        self._tally.begin()
        return 0

    async def settle(self) -> int:
        """Wait until nothing comes any more; gives what came."""
        before, deadline = -1, time.monotonic() + SETTLED_S
        while before != self._progress.count and time.monotonic() < deadline:
            before = self._progress.count
            await asyncio.sleep(QUIET_S)
        return before

    async def keep(self, path: str) -> int:
        """Write the newest frames that had messages in them, for others to send."""
        if self._tally is None or not self._tally.newest:
            raise RuntimeError("nothing came")
        text = msgspec.json.encode(list(self._tally.newest))
        return await asyncio.get_running_loop().run_in_executor(None, Path(path).write_bytes, text)

    async def end(self) -> Received:
        """What came since `begin`. Raises RuntimeError where a client was cut off."""
        if self._tally is None or any(client.lost.done() for client in self._clients):
            raise RuntimeError("a client was cut off")
        return self._tally.received()

    async def close(self) -> int:
        """Hang up."""
        for _, reading in self._beside:
            if reading is not None:
                reading.cancel()
        clients = [*self._clients, *(client for client, _ in self._beside)]
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
        await asyncio.gather(*(client.lost for client in clients))
        self._clients, self._beside, self._tally = [], [], None
        return len(clients)

    async def get(self, url: str, token: str, clients: int, seconds: float) -> Asked:
        """Ask for one URL, one request at a time on each connection."""
        return await ask(url, _headers(token), clients, seconds)

    async def fetch(self, url: str, token: str) -> Fetched:
        """Fetch one answer of any length."""
        return await fetch(url, _headers(token))

    def _tell(self, messages: int) -> None:
        self._progress.count = messages


async def _served(
    url: str, tally: Tally | None, headers: dict[str, str], subscribe: dict[str, Any]
) -> Client:
    client = await sockets.connect(url, tally, headers)
    if not subscribe:
        return client
    waiting = len(subscribe["channels"])
    served = asyncio.get_running_loop().create_future()

    def heard(payload: bytes) -> None:
        nonlocal waiting
        waiting -= payload.count(b'"type":"snapshot"')
        if b'"code":' in payload and not served.done():
            served.set_exception(RuntimeError(f"refused: {payload[-300:]!r}"))
        elif waiting <= 0 and not served.done():
            served.set_result(None)

    client.heard = heard
    client.send(msgspec.json.encode({"op": "subscribe", "id": 1, **subscribe}))
    async with asyncio.timeout(SERVED_S):
        await served
    client.heard = None
    return client


async def _read_slowly(client: Client) -> None:
    """Let the transport read for a moment now and then."""
    while client.transport is not None and not client.lost.done():
        client.transport.resume_reading()
        await asyncio.sleep(0)
        client.transport.pause_reading()
        await asyncio.sleep(SLOW_S)


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def serve(progress: Progress) -> None:
    """Answer on stdout until stdin ends."""
    load = Load(progress)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked: dict[str, Any] = msgspec.json.decode(line)
        answer: object = await getattr(load, asked.pop("do"))(**asked)
        os.write(1, msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    uvloop.run(serve(Progress(Path(sys.argv[1]))))
