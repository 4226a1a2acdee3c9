"""What waits to be sent to one client: bounded, and when it is full, cut as the client chose.

A channel whose updates were dropped is owed a snapshot, before which the client is told how many
updates it missed. Nothing here waits for the network.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from api.live.batches import Batch
from api.live.messages import Packet, encode_message
from api.live.operations import Slow
from api.live.wire import Message, Skipped

BACKLOG_BYTES = 1024 * 1024  # some seven whole chains; beyond that it is for the slow policy
FRAME_BYTES = 256 * 1024  # a frame is cut here, so that one client never holds the loop for long
ANSWERS_BYTES = 4 * 1024 * 1024  # a client that asks and does not read is cut here
REPLAY_BACKLOGS = 16  # as many times the bound may what is sent again be; more is a snapshot


class _Skip:
    __slots__ = ("first", "last", "n", "reason")

    def __init__(
        self, first: int, last: int, reason: Literal["slow", "lost"], n: int | None
    ) -> None:
        self.first = first
        self.last = last
        self.reason = reason
        self.n = n

    def count(self, packet: Packet) -> None:
        self.last = packet.seq
        if self.n is not None:
            self.n += packet.n


class Backlog:
    """One client's queue. `ready` is set while there is something to send.

    `cut` is called when there is no room for an answer, or for a channel whose client would rather
    be cut.
    """

    def __init__(
        self,
        *,
        is_msgpack: bool,
        limit_bytes: int = BACKLOG_BYTES,
        cut: Callable[[], None] | None = None,
    ) -> None:
        self.is_msgpack = is_msgpack
        self.ready = asyncio.Event()
        self.skipped = 0
        # Sends a batch at once, where it can: what is not queued costs a client least.
        self.pass_on: Callable[[Batch], bool] | None = None
        self._cut = cut
        self._limit_bytes = limit_bytes
        self._controls: deque[bytes] = deque()
        self._controls_bytes = 0
        self._replayed: deque[Packet] = deque()
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._owed: dict[str, _Skip | None] = {}
        self._held: dict[str, list[Packet]] = {}
        self._slow: dict[str, Slow] = {}

    def choose(self, channel: str, slow: Slow) -> None:
        """What is to become of a channel's updates for which there is no room."""
        if slow == "conflate":
            self._slow.pop(channel, None)
        else:
            self._slow[channel] = slow

    def tell(self, message: Message) -> None:
        """Queue a message of this session's own: an answer, an error, a heartbeat.

        None can be left out; a client that takes too few of them is cut.
        """
        encoded = encode_message(message, self.is_msgpack)
        if self._controls and self._controls_bytes + len(encoded) > ANSWERS_BYTES:
            if self._cut is not None:
                self._cut()
            return
        self._controls.append(encoded)
        self._controls_bytes += len(encoded)
        self.ready.set()

    def owe(self, channel: str) -> None:
        """Send a snapshot of the channel before any update of it."""
        self.forget(channel)
        self._owed[channel] = None
        self.ready.set()

    def miss(self, channel: str, first: int, last: int) -> None:
        """The same, after telling that the updates from a seq to another were lost on the way."""
        if self._owed.get(channel, self) is None:
            return  # it knows nothing of the channel yet
        skip = self._owed.get(channel)
        waiting = [*self._replayed, *self._waiting(), *self._held.get(channel, ())]
        firsts = [packet.prev for packet in waiting if packet.channel == channel]
        if skip is not None:
            firsts.append(skip.first)
        self.forget(channel)
        self._owed[channel] = _Skip(min([*firsts, first]), last, "lost", None)
        self.ready.set()

    def hold(self, channel: str) -> None:
        """Keep the channel's updates until `release` puts earlier ones before them."""
        self.forget(channel)
        self._held[channel] = []

    def release(self, channel: str, earlier: Sequence[Packet]) -> bool:
        """Queue earlier updates and those held behind them; False where they do not fit.

        Also False where the channel is not held any more, since it was owed a snapshot meanwhile.
        """
        held = self._held.pop(channel, None)
        size = sum(len(packet.json) for packet in (*self._replayed, *earlier))
        if held is None or size > REPLAY_BACKLOGS * self._limit_bytes:
            return False
        self._replayed.extend(earlier)
        for packet in held:
            self.offer(packet)
        if earlier:
            self.ready.set()
        return True

    def forget(self, channel: str) -> None:
        """Drop whatever waits for a channel."""
        self._owed.pop(channel, None)
        self._held.pop(channel, None)
        if self._replayed:
            self._replayed = deque(one for one in self._replayed if one.channel != channel)
        if self._batches:
            kept = (batch.without(channel) for batch in self._batches)
            self._queue(batch for batch in kept if batch is not None)

    def offer(self, packet: Packet) -> None:
        """Queue an update; if there is no room, owe snapshots for all that is dropped."""
        channel = packet.channel
        if channel in self._held:
            self._keep_held(packet)
        elif channel in self._owed:
            self._skip(packet)
        elif self._batches and self._bytes + len(packet.json) > self._limit_bytes:
            self._overflow(packet)
        else:
            self._batches.append(Batch((packet,)))
            self._bytes += len(packet.json)
        self.ready.set()

    def offer_batch(self, batch: Batch) -> None:
        """The same for some updates at once, which stay together where there is room for them."""
        some_wait = self._batches or self._controls or self._replayed or self._owed or self._held
        if not some_wait and self.pass_on is not None and self.pass_on(batch):
            return
        is_plain = not self._held and not self._owed
        if is_plain and (not self._batches or self._bytes + batch.size <= self._limit_bytes):
            self._batches.append(batch)
            self._bytes += batch.size
            self.ready.set()
        else:
            for packet in batch.packets:
                self.offer(packet)

    def take_batch(self) -> Batch | None:
        """The next batch, where nothing has to go before it or with it; else use `take`."""
        if not self._batches or self._controls or self._replayed or self._owed:
            return None
        batch = self._batches.popleft()
        self._bytes -= batch.size
        if not self._batches:
            self.ready.clear()
        return batch

    def take(self, snapshot: Callable[[str], Packet | None]) -> list[bytes]:
        """The messages of the next frame, in order; `ready` stays set while more wait.

        `snapshot` gives a channel's state as of the last update, or None while it has none.
        """
        messages = list(self._controls)
        self._controls.clear()
        size, self._controls_bytes = self._controls_bytes, 0
        while self._replayed and size < FRAME_BYTES:
            packet = self._replayed.popleft()
            messages.append(packet.encoded(self.is_msgpack))
            size += len(packet.json)
        while self._batches and not self._replayed and size < FRAME_BYTES:
            batch = self._batches.popleft()
            self._bytes -= batch.size
            messages += [packet.encoded(self.is_msgpack) for packet in batch.packets]
            size += batch.size
        is_complete = not self._batches and not self._replayed
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
        notice = Skipped(
            channel=channel, first=skip.first, to=skip.last, n=skip.n, reason=skip.reason
        )
        return [encode_message(notice, self.is_msgpack), whole.encoded(self.is_msgpack)]

    def _keep_held(self, packet: Packet) -> None:
        held = self._held[packet.channel]
        held.append(packet)
        if sum(len(one.json) for one in held) > self._limit_bytes:
            self.owe(packet.channel)

    def _overflow(self, packet: Packet) -> None:
        """No room for an update: by the choice of its channel, and of those that take the room."""
        slow = self._slow.get(packet.channel, "conflate")
        if slow == "disconnect" and self._cut is not None:
            self._cut()
        if slow == "conflate":
            kept = []
            for one in self._waiting():
                if one.channel in self._slow:
                    kept.append(Batch((one,)))
                else:
                    self._skip(one)
            self._queue(kept)
        self._skip(packet)

    def _waiting(self) -> list[Packet]:
        return [packet for batch in self._batches for packet in batch.packets]

    def _queue(self, batches: Iterable[Batch]) -> None:
        self._batches = deque(batches)
        self._bytes = sum(batch.size for batch in self._batches)

    def _skip(self, packet: Packet) -> None:
        channel = packet.channel
        if channel not in self._owed:
            self._owed[channel] = _Skip(packet.prev, packet.seq, "slow", 0)
        skip = self._owed[channel]
        if skip is not None:
            skip.count(packet)
            self.skipped += packet.n
