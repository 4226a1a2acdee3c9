"""A clock of its own for a server process: libfaketime in front of the system's, told by a file.

Only what a process reads as the time of day is moved; its monotonic clock stays the real one, as it
does when the clock of a machine is set.
"""

import platform
from pathlib import Path

from pipeline import config

LIBRARY = "libfaketimeMT.so.1"  # a server has threads


class ServerClock:
    """How far a process's time of day is off, from the start and at any moment after it."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        self.move(0)

    @property
    def environment(self) -> dict[str, str]:
        """What the process is started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def move(self, seconds: int) -> None:
        """Put the clock that many seconds before or behind the true time, at once."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}\n")
        temporary.chmod(0o644)
        temporary.replace(self._file)


def faketime() -> Path | None:
    """Where libfaketime is: in the cache, or of the system; None where it is not."""
    folder = Path("usr/lib") / f"{platform.machine()}-linux-gnu" / "faketime" / LIBRARY
    places = (config.cache_path() / "faketime" / folder, Path("/") / folder)
    return next((place for place in places if place.is_file()), None)
