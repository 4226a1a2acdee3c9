"""A bare `websockets` server that broadcasts ready frames: what the library alone costs.

`python websockets_peer.py PORT PROGRESS`, with the Python of `.venv-bench`, which has none of this
project's packages, so it imports none. It reads no Redis and encodes nothing: the frames were
kept from what the gateway sent. It answers each line of stdin.
"""

import asyncio
import importlib
import json
import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

AWAY_S = 20.0


class Peer:
    """The connections, and the clients' count of messages."""

    def __init__(self, progress: mmap.mmap) -> None:
        self._library: Any = importlib.import_module("websockets.asyncio.server")
        self._progress = progress
        self._connections: set[Any] = set()

    async def listen(self, port: int) -> None:
        """Serve from now on."""
        await self._library.serve(self._stream, "127.0.0.1", port)

    async def broadcast(self, frames: str, window: int, seconds: float) -> dict[str, float]:
        """Broadcast the frames of a file over and over, as fast as the clients take them.

        The file has a JSON list of `[messages, text]`; `window` frames are under way.
        """
        kept = await asyncio.get_running_loop().run_in_executor(None, Path(frames).read_bytes)
        ready: list[tuple[int, str]] = json.loads(kept)
        count, sent, under_way = len(self._connections), 0, [0] * window
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            for messages, text in ready:
                await self._until(under_way[0])
                self._library.broadcast(self._connections, text)
                sent += messages * count
                under_way = [*under_way[1:], sent]
        await self._until(sent)
        return {"writes": 0, "updates": sent // count, "wall_s": time.perf_counter() - began}

    async def _stream(self, connection: Any) -> None:
        self._connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            self._connections.discard(connection)

    async def _until(self, received: int) -> None:
        deadline = time.monotonic() + AWAY_S
        while struct.unpack_from("<q", self._progress)[0] < received:
            if time.monotonic() > deadline:
                raise RuntimeError("the clients take nothing")
            await asyncio.sleep(0.0001)


async def serve(port: int, progress: mmap.mmap) -> None:
    """Answer on stdout until stdin ends."""
    peer = Peer(progress)
    await peer.listen(port)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer = await peer.broadcast(**json.loads(line))
        os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Run until stdin ends, on uvloop."""
    uvloop: Any = importlib.import_module("uvloop")
    with open(sys.argv[2], "r+b") as file:
        progress = mmap.mmap(file.fileno(), 8)
    uvloop.run(serve(int(sys.argv[1]), progress))


if __name__ == "__main__":
    main()
