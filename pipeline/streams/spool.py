"""A bounded queue of records on disk, for what cannot go to Redis yet; first in, first out.

Records are length-prefixed bytes in one file; the position of the oldest is beside it. A record is
on the disk when `put` returns. A torn last record, left by a crash, is cut off at the next start.
"""

import os
import struct
from pathlib import Path

_LENGTH = struct.Struct("<I")


class Spool:
    """The queue in `directory`; holds at most `limit_bytes` of file."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._limit_bytes = limit_bytes
        self._position_path = directory / "position"
        self._file = open(directory / "records", "a+b", buffering=0)  # noqa: SIM115
        self._size = self._cut_torn_record()
        self._position = min(self._read_position(), self._size)
        self.records = self._count()

    def put(self, record: bytes) -> bool:
        """Add a record; False when it does not fit, and then nothing is written."""
        if self._size - self._position + len(record) + _LENGTH.size > self._limit_bytes:
            return False
        self._file.write(_LENGTH.pack(len(record)) + record)
        os.fsync(self._file.fileno())
        self._size += _LENGTH.size + len(record)
        self.records += 1
        return True

    def peek(self) -> bytes | None:
        """The oldest record, or None."""
        return self._record_at(self._position)

    def drop(self) -> None:
        """Remove the oldest record."""
        record = self.peek()
        if record is None:
            return
        self._position += _LENGTH.size + len(record)
        self.records -= 1
        if self._position == self._size:
            # The position goes first: a crash in between sends records twice, never loses one.
            self._write_position(0)
            self._file.truncate(0)
            self._position = self._size = 0
        else:
            self._write_position(self._position)

    def close(self) -> None:
        """Close the file; the records stay."""
        self._file.close()

    def _record_at(self, position: int) -> bytes | None:
        if position >= self._size:
            return None
        self._file.seek(position)
        (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
        return self._file.read(length)

    def _read_position(self) -> int:
        try:
            return int(self._position_path.read_text())
        except (OSError, ValueError):
            return 0

    def _write_position(self, position: int) -> None:
        temporary = self._position_path.with_suffix(".new")
        temporary.write_text(str(position))
        temporary.replace(self._position_path)

    def _cut_torn_record(self) -> int:
        size = os.fstat(self._file.fileno()).st_size
        position = 0
        while position + _LENGTH.size <= size:
            self._file.seek(position)
            (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
            if position + _LENGTH.size + length > size:
                break
            position += _LENGTH.size + length
        self._file.truncate(position)
        return position

    def _count(self) -> int:
        count, position = 0, self._position
        while (record := self._record_at(position)) is not None:
            count += 1
            position += _LENGTH.size + len(record)
        return count
