"""Clients of a REST route that cost as little as clients can: they read lengths and throw bytes away."""

import asyncio
import time
from typing import cast
from urllib.parse import urlsplit

import msgspec

_ROOM_BYTES = 512 * 1024
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Asked(msgspec.Struct, frozen=True):
    """Answers to one path over and over, and how long that took on the wall."""

    requests: int
    size: int
    wall_s: float


class _Asker(asyncio.BufferedProtocol):
    """One connection with one request under way; `done` has the answers and the last's length."""

    def __init__(self, request: bytes, until: float) -> None:
        self.done: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self._request = request
        self._until = until
        self._memory = bytearray(_ROOM_BYTES)
        self._head_bytes = self._missing = self._size = self._count = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        if not self.done.done():
            self.done.set_exception(RuntimeError("the server hung up"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room; a body is written over again and again."""
        return memoryview(self._memory)[self._head_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        """Count down what is missing of the answer, and ask again."""
        if not self._missing:
            nbytes = self._head(self._head_bytes + nbytes)
            if not self._missing:
                return
        self._missing -= nbytes
        if self._missing or self._transport is None:
            return
        self._count += 1
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        else:
            self.done.set_result((self._count, self._size))
            self._transport.close()

    def _head(self, filled: int) -> int:
        """Read the head where it is whole; gives how much of the body came with it."""
        end = self._memory.find(_END, 0, filled)
        if end < 0:
            self._head_bytes = filled
            return 0
        self._head_bytes = 0
        head = bytes(self._memory[:end]).lower()
        if not head.startswith(b"http/1.1 200") or _LENGTH not in head:
            self.done.set_exception(RuntimeError(f"refused: {head[:300]!r}"))
            return 0
        self._size = self._missing = int(head.split(_LENGTH)[1].split(b"\r\n")[0])
        return filled - end - len(_END)


async def ask(url: str, headers: dict[str, str], clients: int, seconds: float) -> Asked:
    """Ask for a URL on so many connections for so long. Raises RuntimeError."""
    parts = urlsplit(url)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{more}\r\n".encode()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()

    async def one() -> tuple[int, int]:
        _, asker = await loop.create_connection(
            lambda: _Asker(request, began + seconds), parts.hostname or "", parts.port or 80
        )
        return await asker.done

    pairs = await asyncio.gather(*(one() for _ in range(clients)))
    wall_s = time.perf_counter() - began
    return Asked(sum(count for count, _ in pairs), max(size for _, size in pairs), wall_s)
