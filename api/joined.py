"""Writes to a connection of one round of the loop, handed to the system by one call.

A server writes the head of an answer and then its body; each call costs about as much as a small
answer does. Knows nothing of HTTP.
"""

import asyncio

HELD_BYTES = 1024 * 1024  # beyond it all goes at once, so that whoever writes on and on is held up


class Joined:
    """A transport to write to; what is written leaves before the loop waits for anything."""

    __slots__ = ("_held", "_loop", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write after all that was written before."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._size += len(data)
        if self._size > HELD_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        held, self._held, self._size = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.writelines(held)
