"""What waits to be sent to one client: bounded, and when it is full, conflated to the newest.

A channel whose updates were dropped is owed a snapshot, before which the client is told how many
updates it missed. Nothing here waits for the network.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from api.live.messages import Packet, encode_message

BACKLOG_BYTES = 1024 * 1024  # some seven whole chains; beyond that a client gets newest values only
FRAME_BYTES = 256 * 1024  # a frame is cut here, so that one client never holds the loop for long


class _Skip:
    __slots__ = ("first", "last", "n")

    def __init__(self, packet: Packet) -> None:
        self.first = packet.prev
        self.last = packet.seq
        self.n = 0

    def count(self, packet: Packet) -> None:
        self.last = packet.seq
        self.n += packet.n


class Backlog:
    """One client's queue. `ready` is set while there is something to send."""

    def __init__(self, *, is_msgpack: bool, limit_bytes: int = BACKLOG_BYTES) -> None:
        self.is_msgpack = is_msgpack
        self.ready = asyncio.Event()
        self.skipped = 0
        self._limit_bytes = limit_bytes
        self._controls: deque[bytes] = deque()
        self._packets: deque[Packet] = deque()
        self._bytes = 0
        self._owed: dict[str, _Skip | None] = {}

    def tell(self, message: Mapping[str, Any]) -> None:
        """Queue a message of this session's own: an answer, an error, a heartbeat."""
        self._controls.append(encode_message(message, self.is_msgpack))
        self.ready.set()

    def owe(self, channel: str) -> None:
        """Send a snapshot of the channel before any update of it."""
        self.forget(channel)
        self._owed[channel] = None
        self.ready.set()

    def forget(self, channel: str) -> None:
        """Drop whatever waits for a channel."""
        self._owed.pop(channel, None)
        self._packets = deque(packet for packet in self._packets if packet.channel != channel)
        self._bytes = sum(len(packet.json) for packet in self._packets)

    def offer(self, packet: Packet) -> None:
        """Queue an update; if there is no room, owe snapshots for all that is dropped."""
        if packet.channel in self._owed:
            self._skip(packet)
        elif self._packets and self._bytes + len(packet.json) > self._limit_bytes:
            for waiting in self._packets:
                self._skip(waiting)
            self._skip(packet)
            self._packets.clear()
            self._bytes = 0
        else:
            self._packets.append(packet)
            self._bytes += len(packet.json)
        self.ready.set()

    def take(self, snapshot: Callable[[str], Packet | None]) -> list[bytes]:
        """The messages of the next frame, in order; `ready` stays set while more wait.

        `snapshot` gives a channel's state as of the last update, or None while it has none.
        """
        messages = list(self._controls)
        self._controls.clear()
        size = sum(map(len, messages))
        while self._packets and size < FRAME_BYTES:
            packet = self._packets.popleft()
            self._bytes -= len(packet.json)
            messages.append(packet.encoded(self.is_msgpack))
            size += len(packet.json)
        is_complete = not self._packets
        for channel in list(self._owed):
            if size >= FRAME_BYTES:
                is_complete = False
                break
            whole = snapshot(channel)
            if whole is not None:
                messages += self._settle(channel, whole)
                size += len(whole.json)
        if is_complete:
            self.ready.clear()
        return messages

    def _settle(self, channel: str, whole: Packet) -> list[bytes]:
        """The snapshot a channel is owed, after the notice of what was skipped."""
        skip = self._owed.pop(channel)
        if skip is None:
            return [whole.encoded(self.is_msgpack)]
        notice = {
            "type": "skipped",
            "channel": channel,
            "from": skip.first,
            "to": skip.last,
            "n": skip.n,
            "reason": "slow",
        }
        return [encode_message(notice, self.is_msgpack), whole.encoded(self.is_msgpack)]

    def _skip(self, packet: Packet) -> None:
        if packet.channel not in self._owed:
            self._owed[packet.channel] = _Skip(packet)
        skip = self._owed[packet.channel]
        if skip is not None:
            skip.count(packet)
            self.skipped += packet.n
