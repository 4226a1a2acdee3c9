"""Log files of the children, bounded in size; writing one never fails its process.

Reading them is `log_reader`'s work.
"""

import contextlib
import os
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5  # with the live one: at most 60 MB a process


class RotatingLog:
    """A file that is cut at a line end when it reaches its bound; `name.log.1` is the next older.

    Writing never raises: a full disk loses log lines, not the process; `lost_bytes` counts them.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT_FILES) -> None:
        self.path = path
        self.lost_bytes = 0
        self._max_bytes = max_bytes
        self._kept = kept
        self._descriptor: int | None = None
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """Append bytes as they come; they need not end with a line."""
        try:
            self._write(chunk)
        except OSError:
            self.lost_bytes += len(chunk)

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _write(self, chunk: bytes) -> None:
        descriptor = self._open()
        if self._size + len(chunk) > self._max_bytes:
            end = chunk.rfind(b"\n") + 1
            # Inside a long line: wait for its end, but not for ever.
            if end or self._size + len(chunk) > 2 * self._max_bytes:
                self._append(descriptor, chunk[:end])
                self._rotate()
                descriptor, chunk = self._open(), chunk[end:]
        self._append(descriptor, chunk)

    def _append(self, descriptor: int, chunk: bytes) -> None:
        while chunk:
            written = os.write(descriptor, chunk)
            self._size += written
            chunk = chunk[written:]

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size
        return self._descriptor

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
