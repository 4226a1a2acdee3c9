"""One stream's entries on disk: records in order, each with where it was seen to stand.

Records are numbered and never rewritten. They lie in segments, files named after the number of
their first record; a segment is deleted when all of its records are done with, so nothing ever
needs compacting. Beside the segments lies one small file, `position`: which record is the oldest
still kept, which the oldest that is not confirmed, and where the one before that stands.

What is on the disk when: `put` hands a record to the operating system, which outlives a kill of
this process; `sync` with what `unsynced` gave makes it outlive the machine. Acknowledgements and
positions are never waited for, but for the first: where one is lost with the machine, the server
is asked again for what it stood for. A torn end, left by a crash, is cut off at opening.

It knows nothing of servers, and not what a record says.
"""

import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.entries import Appended
from pipeline.streams.segments import (
    EMPTY_SLOT,
    HEAD_BYTES,
    SUFFIX,
    Place,
    Segment,
    pack_slot,
    sync_directory,
    unpack_slot,
)

SEGMENT_BYTES = 8 * 1024 * 1024
NOWHERE = Appended("0-0", 0, "")  # before everything, in any epoch

_MARKS = struct.Struct("<QQ")  # numbers of the oldest record kept and the oldest not confirmed
_CHECK = struct.Struct("<I")
_POSITION_BYTES = _MARKS.size + len(EMPTY_SLOT) + _CHECK.size


class Record(NamedTuple):
    """A record as read back; `acked` is where it was last seen to stand."""

    place: Place
    following: Place
    data: bytes
    acked: Appended | None


class Spool:
    """The records in `directory`, made if need be; one process at a time may have it open.

    `head` is the oldest record kept, `confirmed` the oldest that is not confirmed: these and `end`
    only move forward, except that `doubt` takes `confirmed` back to `head`. `after` says where the
    record before `confirmed` stands; None until `begin` says what the stream held before any.
    """

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._unsynced: set[Segment] = set()
        self._syncing: set[Segment] = set()
        self._position = os.open(directory / "position", os.O_RDWR | os.O_CREAT, 0o600)
        head, confirmed, self.after = self._read_position()
        self._segments = [Segment(path) for path in sorted(directory.glob(f"*{SUFFIX}"))]
        self.cut_bytes = sum(segment.cut_bytes for segment in self._segments)
        self.head = Place(head, 0)
        self.head, self.confirmed = self._first_from(head), self._first_from(confirmed)
        self._remove_segments()

    @property
    def end(self) -> Place:
        """Where the next record will begin."""
        return self._segments[-1].end if self._segments else self.head

    @property
    def size(self) -> int:
        """Bytes that the segments take on disk."""
        return sum(segment.end.offset for segment in self._segments)

    def put(self, data: bytes) -> Place:
        """Add a record, which is not empty. Raises OSError, and then nothing was added."""
        if not self._segments or self._segments[-1].end.offset >= self._segment_bytes:
            self._begin_segment()
        place = self._segments[-1].put(data)
        self._unsynced.add(self._segments[-1])
        return place

    def read(self, start: Place, stop: int, most_bytes: int) -> list[Record]:
        """Records from `start` to below the number `stop`: at least one if there is one."""
        records: list[Record] = []
        size = 0
        for segment, place, following, acked in self._walk(start, stop):
            data = segment.data(place, following)
            records.append(Record(place, following, data, acked))
            size += len(data)
            if size >= most_bytes:
                break
        return records

    def acknowledged(self, start: Place, stop: int) -> Iterator[tuple[Place, Appended | None]]:
        """The place after each record from `start` to below `stop`, and where that one stands."""
        for _segment, _place, following, acked in self._walk(start, stop):
            yield following, acked

    def acknowledge(self, place: Place, stands: Appended) -> None:
        """Note where a record stands."""
        found = self._at(place)
        if found is not None:
            found[0].acknowledge(found[1], stands)

    def begin(self, after: Appended) -> None:
        """Note what the stream held before any record was sent; on the disk when it returns."""
        self.after = after
        self._write_position()
        os.fdatasync(self._position)
        sync_directory(self._directory)

    def confirm(self, to: Place, after: Appended) -> None:
        """The records before `to` are confirmed; `after` is where the last of them stands."""
        self.confirmed, self.after = to, after
        self._write_position()

    def doubt(self, after: Appended) -> None:
        """No record is confirmed any more; all stand after `after`, where they stand at all."""
        self.confirmed, self.after = self.head, after
        self._write_position()

    def drop(self, to: Place) -> None:
        """Keep the records before `to` no longer, and delete segments that hold only such."""
        self.head, self.confirmed = to, max(to, self.confirmed)
        # The position goes first: a crash in between leaves files that the next start removes.
        self._write_position()
        self._remove_segments()

    def let_go(self) -> int | None:
        """Make room: keep the oldest segment's records no longer, if all of them are confirmed.

        Gives how many went with it; None where there is no such segment.
        """
        oldest = self._segments[0] if self._segments else None
        if oldest is None or oldest in self._syncing or not oldest.end.offset:
            return None
        if oldest.end.number > self.confirmed.number:
            return None
        if len(self._segments) == 1:
            self._begin_segment()
        went = max(0, oldest.end.number - self.head.number)
        self.drop(max(self.head, Place(self._segments[1].first, 0)))
        return went

    def unsynced(self) -> list[int]:
        """Files that wait for `sync`, which may run in a thread; afterwards say `synced`."""
        self._syncing, self._unsynced = self._unsynced, set()
        return [segment.file for segment in self._syncing]

    def synced(self) -> None:
        """What `unsynced` gave is on the disk, or cannot be brought there."""
        self._syncing = set()

    def close(self) -> None:
        """Close the files; the records stay."""
        for segment in self._segments:
            segment.close()
        os.close(self._position)

    def _walk(
        self, start: Place, stop: int
    ) -> Iterator[tuple[Segment, Place, Place, Appended | None]]:
        place = start
        while (found := self._at(place)) is not None and found[1].number < stop:
            segment, place = found
            following, acked = segment.head(place)
            yield segment, place, following, acked
            place = following

    def _at(self, place: Place) -> tuple[Segment, Place] | None:
        """The segment of a record, or of the next there is, and its place; None at the end."""
        index = bisect_right(self._segments, place.number, key=lambda segment: segment.first) - 1
        for segment in self._segments[max(index, 0) :]:
            if place.number <= segment.first:
                place = Place(segment.first, 0)
            if place.number < segment.end.number:
                return segment, place
        return None

    def _first_from(self, number: int) -> Place:
        """The place of the first record with that number or a later one, found while opening."""
        for segment in self._segments:
            if number < segment.end.number:
                return segment.find(number)
        return self.end

    def _begin_segment(self) -> None:
        self._segments.append(Segment(self._directory / f"{self.end.number:020d}{SUFFIX}"))
        sync_directory(self._directory)

    def _remove_segments(self) -> None:
        """Delete segments of which nothing is kept; the newest stays until it is full."""
        while self._segments:
            oldest = self._segments[0]
            if oldest.end.number > self.head.number or oldest in self._syncing:
                return
            if len(self._segments) == 1 and oldest.end.offset < self._segment_bytes:
                return
            self._segments.pop(0)
            self._unsynced.discard(oldest)
            oldest.remove()

    def _read_position(self) -> tuple[int, int, Appended | None]:
        text = os.pread(self._position, _POSITION_BYTES + 1, 0)
        if not text:
            return 0, 0, None
        body, check = text[: -_CHECK.size], text[-_CHECK.size :]
        if len(text) != _POSITION_BYTES or _CHECK.pack(zlib.crc32(body)) != check:
            return 0, 0, NOWHERE  # torn with the machine: every record is asked for again
        head, confirmed = _MARKS.unpack_from(body)
        return head, max(head, confirmed), unpack_slot(body[_MARKS.size :])

    def _write_position(self) -> None:
        slot = pack_slot(self.after) if self.after is not None else EMPTY_SLOT
        body = _MARKS.pack(self.head.number, self.confirmed.number) + slot
        os.pwrite(self._position, body + _CHECK.pack(zlib.crc32(body)), 0)


def record_bytes(data: bytes) -> int:
    """What a record takes on disk."""
    return HEAD_BYTES + len(data)


def sync(files: Iterable[int]) -> None:
    """Bring files to the disk. Raises OSError."""
    for file in files:
        os.fdatasync(file)
