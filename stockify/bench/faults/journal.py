"""What the feeder was told is safe: one line an entry, written when its hand-over has returned.

An entry that is in the journal must come out; one whose hand-over was cut by a kill may.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["chain", "poison"]


class Promise(msgspec.Struct, frozen=True):
    """An entry that must come out: as rows, or as a dead letter where it is poison."""

    id: str
    kind: Kind


class Journal:
    """The writing end. A line is with the system when `note` returns, whoever is killed then."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, promise: Promise) -> None:
        """Write one line."""
        os.write(self._descriptor, f"{promise.kind} {promise.id}\n".encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class JournalReader:
    """The reading end: every promise so far, in order, for as long as the rig lives."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = open(path, "rb")  # noqa: SIM115 - read on for as long as the rig lives
        self._rest = b""
        self.promises: list[Promise] = []

    def read(self) -> list[Promise]:
        """The promises that came since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        fresh = [_promise(line.decode()) for line in lines]
        self.promises += fresh
        return fresh

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _promise(line: str) -> Promise:
    kind, _, message_id = line.partition(" ")
    return Promise(message_id, "poison" if kind == "poison" else "chain")
