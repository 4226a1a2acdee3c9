"""Asking children how they are: `/healthz` of our processes, and rates from its counters."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

ASK_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 1024 * 1024
WINDOW_S = 10.0  # chains come every few seconds; a shorter window shows beats, not rates


class Health(msgspec.Struct, frozen=True):
    """What a process says of itself; fields it does not give keep their defaults."""

    state: str = "ready"
    reason: str = ""
    counters: dict[str, float] = {}
    gauges: dict[str, float] = {}


Probe = Callable[[], Awaitable[Health | None]]


class Rates:
    """Counters seen over the last seconds, as amounts per second; a restart begins anew."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, counters: dict[str, float], now_s: float | None = None) -> None:
        """Counters as they are now."""
        now_s = time.monotonic() if now_s is None else now_s
        if self._seen and any(
            counters.get(name, 0) < value for name, value in self._seen[-1][1].items()
        ):
            self._seen.clear()
        self._seen.append((now_s, counters))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= self._window_s:
            self._seen.popleft()

    def per_second(self) -> dict[str, float]:
        """Each counter's growth per second over the window; nothing from a single sight."""
        if len(self._seen) < 2:
            return {}
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        elapsed_s = last_s - first_s
        if elapsed_s <= 0:
            return {}
        return {
            name: round((value - first.get(name, 0)) / elapsed_s, 2) for name, value in last.items()
        }


def over_http(host: str, port: int) -> Probe:
    """A probe of a process's metrics port; it gives None while nobody answers there."""

    async def ask() -> Health | None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return msgspec.json.decode(await _get(host, port, "/healthz"), type=Health)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            return None

    return ask


async def _get(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        answer = await reader.read(MAX_ANSWER_BYTES)
        while not reader.at_eof() and len(answer) < MAX_ANSWER_BYTES:
            answer += await reader.read(MAX_ANSWER_BYTES)
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2]
