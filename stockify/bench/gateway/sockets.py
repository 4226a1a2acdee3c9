"""Clients of a WebSocket that cost as little as clients can: they count and look at the clock.

Frames are cut by hand; a frame that is known already, by its length and its first bytes, is not
looked through again, since every client is sent the same. Never decodes JSON.
"""

import asyncio
import base64
import os
import time
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import msgspec

START_S = 30.0
_HEAD_BYTES = 240  # tells one frame from another: the first message's channel, seq and instant
_KNOWN = 4_096
KEPT = 4_096  # frames that are kept whole: all of a turn, or those sent last
_ROOM_BYTES = 64 * 1024
_INSTANT = b'"ts_ingest":'
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


class Received(msgspec.Struct, frozen=True):
    """What clients got in a turn; latencies are of messages, in ms, 0 where there were none."""

    messages: int
    frames: int
    size: int
    skipped: int
    p50_ms: float
    p99_ms: float


class Tally:
    """Counts for any number of clients; `tell` is given the number of messages so far."""

    def __init__(self, marker: bytes, tell: Callable[[int], None]) -> None:
        self._marker = marker
        self._tell = tell
        self._known: dict[tuple[int, bytes], tuple[int, int]] = {}
        self.newest: deque[tuple[int, str]] = deque(maxlen=KEPT)
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        self.messages = self.frames = self.size = self.skipped = 0
        self.newest.clear()
        self._latencies: list[tuple[float, int]] = []
        self._tell(0)

    def frame(self, payload: memoryview, now_ns: int) -> None:
        """One frame of one client."""
        key = len(payload), bytes(payload[:_HEAD_BYTES])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[key] = self._looked_through(bytes(payload))
        messages, instant_ns = found
        self.frames += 1
        self.size += len(payload)
        if messages:
            self.messages += messages
            self._latencies.append(((now_ns - instant_ns) / 1e6, messages))

    def told(self) -> None:
        """Say how far it is."""
        self._tell(self.messages)

    def received(self) -> Received:
        """What came since `begin`."""
        p50, p99 = _quantiles(self._latencies, (0.5, 0.99))
        return Received(self.messages, self.frames, self.size, self.skipped, p50, p99)

    def _looked_through(self, text: bytes) -> tuple[int, int]:
        self.skipped += text.count(b'"type":"skipped"')
        messages = text.count(self._marker)
        if not messages:
            return 0, 0
        self.newest.append((messages, text.decode()))
        at = text.find(_INSTANT, text.find(self._marker)) + len(_INSTANT)
        if at < len(_INSTANT):
            raise RuntimeError("a message without an instant")
        return messages, int(text[at : at + 19])


class Client(asyncio.BufferedProtocol):
    """One connection; `ready` is done once the handshake is over."""

    def __init__(self, tally: Tally | None) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tally = tally
        self.heard: Callable[[bytes], None] | None = None
        self.transport: asyncio.Transport | None = None
        self._memory = bytearray(_ROOM_BYTES)
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        if not self.ready.done():
            self.ready.set_exception(RuntimeError("the server hung up"))
        if not self.lost.done():
            self.lost.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room behind what is there."""
        if len(self._memory) - self._filled < _ROOM_BYTES // 2:
            self._memory += bytes(len(self._memory))
        return memoryview(self._memory)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take every frame that is whole."""
        self._filled += nbytes
        start = 0
        if not self.ready.done():
            start = self._memory.find(b"\r\n\r\n", 0, self._filled) + 4
            if start < 4:
                return
            if not self._memory.startswith(b"HTTP/1.1 101"):
                head = bytes(self._memory[: self._filled])
                self.ready.set_exception(RuntimeError(f"no socket: {head[:300]!r}"))
                return
            self.ready.set_result(None)
        start = self._frames(start)
        if start:
            self._memory[: self._filled - start] = self._memory[start : self._filled]
            self._filled -= start

    def send(self, payload: bytes) -> None:
        """One masked text frame; the mask is zero."""
        if self.transport is None:
            raise RuntimeError("not connected")
        length = len(payload)
        head = bytes((0x81, 0x80 | length)) if length < 126 else b"\x81\xfe" + length.to_bytes(2)
        self.transport.write(head + bytes(4) + payload)

    def _frames(self, start: int) -> int:
        view, now_ns, end = memoryview(self._memory), time.time_ns(), self._filled
        any_taken = False
        try:
            while end - start >= 2:
                length, body = view[start + 1], start + 2
                if length == 126:
                    length, body = int.from_bytes(view[start + 2 : start + 4]), start + 4
                elif length == 127:
                    length, body = int.from_bytes(view[start + 2 : start + 10]), start + 10
                if end - body < length:
                    break
                self._frame(view[start] & 15, view[body : body + length], now_ns)
                start, any_taken = body + length, True
        finally:
            view.release()
        if any_taken and self.tally is not None:
            self.tally.told()
        return start

    def _frame(self, code: int, payload: memoryview, now_ns: int) -> None:
        if code == 9 and self.transport is not None:
            self.transport.write(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + bytes(payload))
        elif code in (1, 2):
            if self.heard is not None:
                self.heard(bytes(payload))
            if self.tally is not None:
                self.tally.frame(payload, now_ns)
        payload.release()


async def connect(url: str, tally: Tally | None, headers: dict[str, str]) -> Client:
    """A client whose handshake is over. Raises RuntimeError, OSError."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _transport, client = await loop.create_connection(
        lambda: Client(tally), parts.hostname or "", parts.port or 80
    )
    if client.transport is None:
        raise RuntimeError("not connected")
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    key = base64.b64encode(os.urandom(16)).decode()
    asked = _HANDSHAKE.format(path=parts.path, host=parts.netloc, key=key, more=more)
    client.transport.write(asked.encode())
    async with asyncio.timeout(START_S):
        await client.ready
    return client


def _quantiles(weighted: list[tuple[float, int]], shares: tuple[float, ...]) -> list[float]:
    ordered = sorted(weighted)
    total = sum(weight for _, weight in ordered)
    found, passed, wanted = [], 0, list(shares)
    for value, weight in ordered:
        passed += weight
        while wanted and passed >= wanted[0] * total:
            found.append(value)
            wanted.pop(0)
    return found + [0.0] * len(wanted)
