"""Processes that do what they are told line by line, and say what it took."""

import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

ANSWER_S = 120.0

Answer = TypeVar("Answer")


class Taken(msgspec.Struct, frozen=True):
    """What a turn took a process: seconds of wall and of its own CPU; entries and contracts."""

    wall_s: float
    cpu_s: float
    entries: int
    contracts: int

    @property
    def entries_per_s(self) -> float:
        """Entries by the clock on the wall."""
        return self.entries / self.wall_s

    @property
    def contracts_per_cpu_s(self) -> float:
        """Contracts by the process's CPU."""
        return self.contracts / self.cpu_s


class Child:
    """One such process; ends when it is closed."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._log = log
        with open(log, "wb") as errors:
            self._process = subprocess.Popen(
                argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, kind: type[Answer], **question: object) -> Answer:
        """What it answers. Raises RuntimeError where it ended or went silent."""
        self.tell(**question)
        return self.answer(kind)

    def tell(self, **question: object) -> None:
        """Have it begin; its answer is to be taken. Raises RuntimeError where it has ended."""
        if self._process.stdin is None:
            raise RuntimeError(f"{self._name}: no pipe")
        try:
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._said()) from None

    def answer(self, kind: type[Answer]) -> Answer:
        """Its next line. Raises RuntimeError where it ended or went silent."""
        output = self._process.stdout
        if output is None or not select.select([output], [], [], ANSWER_S)[0]:
            raise RuntimeError(f"{self._name}: no answer within {ANSWER_S:.0f} s")
        line = output.readline()
        if not line:
            raise RuntimeError(self._said())
        return msgspec.json.decode(line, type=kind)

    def close(self) -> None:
        """Let it end; kill it where it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _said(self) -> str:
        return f"{self._name} ended:\n{self._log.read_text(errors='replace')[-3_000:]}"
