"""Updates that go out together: what is the same for many clients is put together once.

A server's frames are alike for all its clients, so those who get the same updates are written the
same bytes. Nothing here knows who they are.
"""

from collections.abc import Iterator, Sequence

from api.live.messages import Packet, join_frame
from api.live.protocol import frame_of


class Batch:
    """Some updates in their order; `size` is that of their JSON, in bytes."""

    __slots__ = ("_frames", "packets", "size")

    def __init__(self, packets: tuple[Packet, ...]) -> None:
        self.packets = packets
        self.size = sum([len(packet.json) for packet in packets])
        self._frames: dict[bool, bytes] = {}

    def frame(self, is_msgpack: bool) -> bytes:
        """The WebSocket frame of all of them, made when it is first asked for."""
        frame = self._frames.get(is_msgpack)
        if frame is None:
            if is_msgpack:
                messages = [packet.encoded(is_msgpack) for packet in self.packets]
            else:
                messages = [packet.json for packet in self.packets]
            frame = frame_of(join_frame(messages, is_msgpack), is_binary=is_msgpack)
            self._frames[is_msgpack] = frame
        return frame

    def without(self, channel: str) -> "Batch | None":
        """The same but for one channel's; None where nothing is left."""
        packets = tuple(packet for packet in self.packets if packet.channel != channel)
        if len(packets) == len(self.packets):
            return self
        return Batch(packets) if packets else None


def cut(packets: Sequence[Packet], limit_bytes: int) -> Iterator[Batch]:
    """Batches of no more than so many bytes, but for an update that alone is larger."""
    whole = Batch(tuple(packets))
    if whole.size <= limit_bytes:
        yield whole
        return
    some: list[Packet] = []
    size = 0
    for packet in whole.packets:
        if some and size + len(packet.json) > limit_bytes:
            yield Batch(tuple(some))
            some, size = [], 0
        some.append(packet)
        size += len(packet.json)
    if some:
        yield Batch(tuple(some))
