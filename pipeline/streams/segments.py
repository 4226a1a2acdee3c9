"""One file of a spool: records one after the other, each with a slot for where it stands.

A record is a head and its bytes. The head holds their length and checksum, and the slot: empty at
first, filled in place when the record's entry is seen in its stream. What was handed to the
operating system outlives a kill of this process, what was synced outlives the machine. It knows
nothing of the other files.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from pipeline.entries import Appended

SUFFIX = ".v1"

_EPOCH_BYTES = 32
_HEAD = struct.Struct("<II")  # length of the bytes, checksum of them and the record's number
_SLOT = struct.Struct(f"<QQQ{_EPOCH_BYTES}s")  # the two parts of the stream id, seq, epoch
_CHECK = struct.Struct("<I")
SLOT_BYTES = _SLOT.size + _CHECK.size
HEAD_BYTES = _HEAD.size + SLOT_BYTES
EMPTY_SLOT = bytes(SLOT_BYTES)


class Place(NamedTuple):
    """Where a record begins: its number, and its offset in the segment that holds it."""

    number: int
    offset: int


class Segment:
    """The file at `path`, made if need be, named after the number of its first record.

    Opening it finds where its whole records `end`; what is torn behind them is cut off, and
    `cut_bytes` says how much that was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first = int(path.name.removesuffix(SUFFIX))
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        size = os.fstat(self.file).st_size
        self.end = self._end_of_whole_records(size)
        self.cut_bytes = size - self.end.offset
        if self.cut_bytes:
            os.ftruncate(self.file, self.end.offset)

    def put(self, data: bytes) -> Place:
        """Add a record, which is not empty. Raises OSError, and then nothing was added."""
        place = self.end
        head = _HEAD.pack(len(data), _checksum(place.number, data)) + EMPTY_SLOT
        wanted = len(head) + len(data)
        try:
            written = os.pwritev(self.file, (head, data), place.offset)
            if written < wanted:
                raise OSError(f"{self.path}: the disk took {written} of {wanted} bytes")
        except OSError:
            os.ftruncate(self.file, place.offset)
            raise
        self.end = Place(place.number + 1, place.offset + wanted)
        return place

    def head(self, place: Place) -> tuple[Place, Appended | None]:
        """The place after a record, and where the record stands, as far as was noted."""
        head = os.pread(self.file, HEAD_BYTES, place.offset)
        length, _check = _HEAD.unpack_from(head)
        return _following(place, length), unpack_slot(head[_HEAD.size :])

    def find(self, number: int) -> Place:
        """The place of the record with that number, or with the least that is not below it."""
        place = Place(self.first, 0)
        while place.number < min(number, self.end.number):
            place, _stands = self.head(place)
        return place

    def data(self, place: Place, following: Place) -> bytes:
        """The bytes of the record between two places."""
        length = following.offset - place.offset - HEAD_BYTES
        return os.pread(self.file, length, place.offset + HEAD_BYTES)

    def acknowledge(self, place: Place, stands: Appended) -> None:
        """Note where a record stands."""
        os.pwrite(self.file, pack_slot(stands), place.offset + _HEAD.size)

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink()

    def close(self) -> None:
        """Close the file; the records stay."""
        os.close(self.file)

    def _end_of_whole_records(self, size: int) -> Place:
        """The place of the first record that is torn, or that after the last."""
        place = Place(self.first, 0)
        while place.offset + HEAD_BYTES <= size:
            length, check = _HEAD.unpack(os.pread(self.file, _HEAD.size, place.offset))
            following = _following(place, length)
            if not length or following.offset > size:
                break
            if _checksum(place.number, self.data(place, following)) != check:
                break
            place = following
        return place


def pack_slot(stands: Appended) -> bytes:
    """A slot that says where a record stands. Raises ValueError for an epoch too long for it."""
    ms, _, part = stands.stream_id.partition("-")
    epoch = stands.epoch.encode()
    if len(epoch) > _EPOCH_BYTES:
        raise ValueError(f"epoch {stands.epoch!r} is longer than {_EPOCH_BYTES} bytes")
    slot = _SLOT.pack(int(ms), int(part), stands.seq, epoch)
    return slot + _CHECK.pack(zlib.crc32(slot))


def unpack_slot(slot: bytes) -> Appended | None:
    """Where a record stands; None for an empty slot, or one torn while it was written."""
    if _CHECK.pack(zlib.crc32(slot[: _SLOT.size])) != slot[_SLOT.size :]:
        return None
    ms, part, seq, epoch = _SLOT.unpack_from(slot)
    return Appended(f"{ms}-{part}", seq, epoch.rstrip(b"\0").decode())


def sync_directory(directory: Path) -> None:
    """Bring the names of a directory's files to the disk."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _following(place: Place, length: int) -> Place:
    return Place(place.number + 1, place.offset + HEAD_BYTES + length)


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, number & 0xFFFF_FFFF)
