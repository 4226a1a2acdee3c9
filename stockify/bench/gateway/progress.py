"""How far the clients are, told to whoever feeds them: one number in a mapped file.

It lets a feeder keep a bounded amount under way, so that a server is at its limit and nothing has
to be thrown away.
"""

import mmap
import struct
from pathlib import Path

_NUMBER = struct.Struct("<q")


class Progress:
    """One count, written by one process and read by others."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_NUMBER.size))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _NUMBER.size)

    @property
    def count(self) -> int:
        """What was told last."""
        return int(_NUMBER.unpack_from(self._memory)[0])

    @count.setter
    def count(self, number: int) -> None:
        _NUMBER.pack_into(self._memory, 0, number)

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()
