"""Clients of REST that cost as little as clients can: they read lengths and throw bytes away."""

import asyncio
import time
from typing import cast
from urllib.parse import SplitResult, urlsplit

import msgspec

_ROOM_BYTES = 512 * 1024
_HEAD_BYTES = 1_024
_LAST_CHUNK = b"0\r\n\r\n"
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Asked(msgspec.Struct, frozen=True):
    """Answers to one path over and over, and how long that took on the wall."""

    requests: int
    size: int
    wall_s: float


class Fetched(msgspec.Struct, frozen=True):
    """One whole answer of unknown length: its bytes on the wire, and how long it took."""

    size: int
    wall_s: float


class _Fetcher(asyncio.BufferedProtocol):
    """Reads an answer to the end of its connection; `done` has its bytes on the wire."""

    def __init__(self, request: bytes) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._request = request
        self._memory = bytearray(_ROOM_BYTES)
        self._size = 0
        self._start = self._end = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        cast(asyncio.Transport, transport).write(self._request)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Room that is written over again and again."""
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        """Keep both ends."""
        if len(self._start) < _HEAD_BYTES:
            self._start += bytes(self._memory[: min(nbytes, _HEAD_BYTES)])
        self._end = (self._end + bytes(self._memory[max(0, nbytes - 5) : nbytes]))[-5:]
        self._size += nbytes

    def connection_lost(self, exc: Exception | None) -> None:
        """It is whole where its last chunk is empty."""
        if not self._start.startswith(b"HTTP/1.1 200") or self._end != _LAST_CHUNK:
            self.done.set_exception(RuntimeError(f"not whole: {self._start[:600]!r}"))
        else:
            self.done.set_result(self._size)


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
    parts, request = _request(url, headers)
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


async def fetch(url: str, headers: dict[str, str]) -> Fetched:
    """Ask once, and read to the end. Raises RuntimeError where that does not come."""
    parts, request = _request(url, headers | {"Connection": "close"})
    began = time.perf_counter()
    _, fetcher = await asyncio.get_running_loop().create_connection(
        lambda: _Fetcher(request), parts.hostname or "", parts.port or 80
    )
    size = await fetcher.done
    return Fetched(size, time.perf_counter() - began)


def _request(url: str, headers: dict[str, str]) -> tuple[SplitResult, bytes]:
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return parts, f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{more}\r\n".encode()
