"""The usual fan-out: FastAPI on uvicorn, redis-py's Pub/Sub, a frame a message to each client.

`python fastapi_peer.py REDIS_URL PORT CHANNELS`, with the Python of `.venv-bench`, which has none
of this project's packages, so it imports none. It is written as FastAPI's documentation writes a
hub, and has what its users install: uvloop, httptools, hiredis, the `websockets` protocol.
"""

import asyncio
import contextlib
import importlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any


class ConnectionManager:
    """Who is connected."""

    def __init__(self) -> None:
        self._active: list[Any] = []

    async def connect(self, websocket: Any) -> None:
        """Take a client in."""
        await websocket.accept()
        self._active.append(websocket)

    def disconnect(self, websocket: Any) -> None:
        """Let a client go."""
        if websocket in self._active:
            self._active.remove(websocket)

    async def broadcast(self, message: str) -> None:
        """One message to each."""
        for connection in list(self._active):
            try:
                await connection.send_text(message)
            except Exception:
                self.disconnect(connection)


async def relay(url: str, channels: list[str], manager: ConnectionManager) -> None:
    """Every message of the channels to every client."""
    redis: Any = importlib.import_module("redis.asyncio")
    client = redis.Redis.from_url(url, decode_responses=True)
    pubsub = client.pubsub()
    await pubsub.subscribe(*channels)
    async for message in pubsub.listen():
        if message["type"] == "message":
            await manager.broadcast(message["data"])


def application(url: str, channels: list[str]) -> Any:
    """The FastAPI application."""
    fastapi: Any = importlib.import_module("fastapi")
    manager = ConnectionManager()

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        relaying = asyncio.create_task(relay(url, channels, manager))
        yield
        relaying.cancel()

    app = fastapi.FastAPI(lifespan=lifespan)

    async def stream(websocket: Any) -> None:
        await manager.connect(websocket)
        try:
            while True:
                await websocket.receive_text()
        except fastapi.WebSocketDisconnect:
            manager.disconnect(websocket)

    stream.__annotations__["websocket"] = fastapi.WebSocket
    app.websocket("/ws")(stream)
    return app


def main() -> None:
    """Serve until told to stop."""
    url, port, channels = sys.argv[1:]
    uvicorn: Any = importlib.import_module("uvicorn")
    app = application(url, json.loads(Path(channels).read_bytes()))
    uvicorn.run(app, host="127.0.0.1", port=int(port), ws="websockets", log_level="error")


if __name__ == "__main__":
    main()
