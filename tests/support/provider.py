"""A provider that answers as it is told: an HTTP server on a free port, byte for byte."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date

LISTED = json.dumps({"data": ["2031-01-28", "2031-02-04"], "status": "success"}).encode()
EXPIRY = date(2031, 1, 28)


@dataclass
class Provider:
    """`script` gives the chain answers in turn, the last one for ever after."""

    script: list[tuple[int, bytes]]
    port: int = 0
    asked: list[dict[str, object]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    answered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    connected: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.connected.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                path = first.split()[1]
                status, answer = self._answer(path, headers, json.loads(body))
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\n"
                    "Date: Tue, 28 Jan 2025 09:33:32 GMT\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
        self.connected.discard(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def cut(self) -> None:
        """End every connection there is."""
        for writer in self.connected:
            writer.close()

    def _answer(
        self, path: str, headers: dict[str, str], asked: dict[str, object]
    ) -> tuple[int, bytes]:
        self.asked.append(asked)
        self.headers.append(headers)
        self.answered[path] += 1
        if path.endswith("/expirylist"):
            return 200, LISTED
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@contextlib.asynccontextmanager
async def answering(*script: tuple[int, bytes]) -> AsyncIterator[Provider]:
    provider = Provider(list(script))
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
        await asyncio.sleep(0)
