"""Raw entries in files of whole exchange days, one an underlying, to enrich any day again.

A record is its length, a checksum, and the entry as msgpack with its body as it was received. It is
on the disk when `write` returns. An entry that stands among a file's last is not written again, so
what is redelivered after a crash is harmless. Nothing here decodes a body or removes a file.
"""

import contextlib
import fcntl
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from pipeline.clock import exchange_date
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.models import parse_symbol

# How many of a file's last entries are known by id. What was written and not acknowledged is one
# batch at most, which is far less.
TAIL_RECORDS = 1_024
MOST_OPEN_FILES = 64  # a day has a file an underlying; a replay of many days takes turns

_PREFIX = struct.Struct("<II")  # length and crc32 of what follows
_pack = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder(Entry)


def place(entry: Entry) -> Path:
    """Where an entry belongs below the archive: `2026-01-27/NIFTY.raw`. Raises DecodeError."""
    symbol = parse_symbol(entry.key)
    underlying = symbol if isinstance(symbol, str) else symbol.underlying
    if entry.ts <= 0:
        raise DecodeError(f"no time of receipt: {entry.ts}")
    try:
        day = exchange_date(entry.ts)
    except OverflowError as error:
        raise DecodeError(f"no day has the instant {entry.ts}") from error
    return Path(day.isoformat(), f"{underlying}.raw")


def read_archive(path: Path) -> Iterator[Entry]:
    """The entries of a file in the order in which they were read from the stream.

    A record not yet written to its end is left out. Raises DecodeError where one is damaged.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while (record := _record(file, file.tell(), size)) is not None:
            yield _decoded(path, record)


class Archive:
    """The files below `root`, for one process at a time; may be called from any thread.

    Every call may raise OSError and may then be repeated: what was written by halves is cut first.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[Path, _DayFile] = {}  # the one used last stands last
        self._held = contextlib.ExitStack()
        self._is_held = False
        self._turn = threading.Lock()  # nothing is closed under a write

    def write(self, where: Path, entries: Sequence[Entry]) -> tuple[int, int]:
        """Append those entries that the file does not have, and wait for the disk.

        Gives how many entries and bytes were written.
        """
        with self._turn:
            self._hold()
            return self._opened(where).append(entries)

    def close(self) -> None:
        """Close the files and let go of the directory."""
        with self._turn:
            for file in self._files.values():
                file.close()
            self._files.clear()
            self._held.close()
            self._is_held = False

    def _hold(self) -> None:
        """Keep other processes out: two that cut what they take for torn would lose records."""
        if self._is_held:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context(open(self._root / "lock", "ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(error.errno, "another archiver writes here") from error
            self._held = opened.pop_all()
        self._is_held = True

    def _opened(self, where: Path) -> "_DayFile":
        file = self._files.pop(where, None) or _DayFile(self._root / where)
        self._files[where] = file
        if len(self._files) > MOST_OPEN_FILES:
            self._files.pop(next(iter(self._files))).close()
        return file


class _DayFile:
    """One file, open at its end; what stands before `_size` is whole and on the disk."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with contextlib.ExitStack() as opened:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._file = opened.enter_context(open(descriptor, "r+b", buffering=0))
            self._ids: dict[str, None] = {}
            self._size = self._recovered()
            # A killed process may leave in memory what this one is about to take for written.
            os.fsync(descriptor)
            for directory in (path.parent, path.parent.parent):
                _sync_directory(directory)
            self._is_torn = False
            opened.pop_all()

    def append(self, entries: Iterable[Entry]) -> tuple[int, int]:
        fresh: dict[str, Entry] = {}
        for entry in entries:
            if _id(entry) not in self._ids:
                fresh.setdefault(_id(entry), entry)
        if not fresh:
            return 0, 0
        records = b"".join(_encoded(entry) for entry in fresh.values())
        if self._is_torn:
            self._file.truncate(self._size)
        self._is_torn = True
        self._file.seek(self._size)
        rest = memoryview(records)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
        self._is_torn = False
        self._size += len(records)
        for key in fresh:
            self._remember(key)
        return len(fresh), len(records)

    def close(self) -> None:
        self._file.close()

    def _recovered(self) -> int:
        """Read the tail, cut what follows its last whole record; gives the size that is left."""
        end, size = 0, os.fstat(self._file.fileno()).st_size
        tail: deque[int] = deque(maxlen=TAIL_RECORDS)
        while (length := _length(self._file, end, size)) is not None:
            tail.append(end)
            end += _PREFIX.size + length
        for position in tail:
            record = _record(self._file, position, size)
            try:
                entry = _decoded(self._path, record or b"")
            except DecodeError:
                end = position
                break
            self._remember(_id(entry))
        if end < size:
            self._set_aside(end)
            self._file.truncate(end)
        return end

    def _set_aside(self, end: int) -> None:
        """Keep what is about to be cut: it may be more than the torn end of a last write."""
        self._file.seek(end)
        with open(self._path.with_suffix(f".torn-{end}"), "wb") as kept:
            while chunk := self._file.read(1 << 20):
                kept.write(chunk)

    def _remember(self, key: str) -> None:
        self._ids[key] = None
        if len(self._ids) > TAIL_RECORDS:
            del self._ids[next(iter(self._ids))]


def _id(entry: Entry) -> str:
    return entry.id or entry.stream_id


def _encoded(entry: Entry) -> bytes:
    # How often it was delivered says nothing of the entry.
    packed = _pack.encode(msgspec.structs.replace(entry, attempts=1))
    return _PREFIX.pack(len(packed), zlib.crc32(packed)) + packed


def _decoded(path: Path, record: bytes) -> Entry:
    checksum, packed = record[:4], record[4:]
    if not packed or zlib.crc32(packed) != int.from_bytes(checksum, "little"):
        raise DecodeError(f"{path}: a record is damaged")
    try:
        return _unpack.decode(packed)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"{path}: a record is no entry: {error}") from error


def _length(file: BinaryIO, position: int, size: int) -> int | None:
    """The length of the record there; None where it is not whole, or never reached the disk."""
    file.seek(position)
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        return None
    length = int(_PREFIX.unpack(prefix)[0])
    # A file that had grown before its data was written ends in zeros.
    return length if 0 < length <= size - position - _PREFIX.size else None


def _record(file: BinaryIO, position: int, size: int) -> bytes | None:
    """Checksum and content of the record there, leaving the file at its end; None as above."""
    length = _length(file, position, size)
    if length is None:
        return None
    file.seek(position + 4)
    return file.read(4 + length)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
