"""Solvers that take turns: each a process of its own on one core, asked for a little at a time.

A machine's speed wanders by the second, so what is to be compared stands beside each other: in a
round every solver has one short turn, and a ratio is the median of the rounds' ratios.
"""

import contextlib
import os
import select
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from stockify.bench.peers import Floats

ANSWER_S = 300.0  # a peer that compiles everything anew takes one minute


class SolverGone(Exception):
    """A solver is not installed, or its process ended or went silent; the message says which."""


class Turn(msgspec.Struct, frozen=True):
    """What one turn of one solver took, in ns a call."""

    least: float
    median: float


class _Answer(msgspec.Struct):
    missing: str | None = None
    error: str | None = None
    version: str = ""
    fused: str = ""
    path: str = ""
    least: float = 0.0
    median: float = 0.0
    calls: int = 0


class Solver:
    """One solver's process; `ready` must be asked first."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.version = ""
        self.fused = ""
        self.failures: list[str] = []
        with open(log, "wb") as errors:
            self._process = subprocess.Popen(
                argv,
                env=env,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )

    def ready(self) -> None:
        """Wait until it has compiled what it needs. Raises SolverGone."""
        hello = self._answer()
        if hello.missing is not None:
            raise SolverGone(f"{self.name}: {hello.missing}")
        self.version, self.fused = hello.version, hello.fused

    def turn(self, job: str, region: str, budget_ns: int) -> Turn | None:
        """Its turn; None where it does not do that job there. Raises SolverGone."""
        answer = self._ask(job, region, budget_ns)
        if answer.error is not None:
            self.failures.append(f"{self.name}: {job} of {region}: {answer.error}")
        return Turn(answer.least, answer.median) if answer.calls else None

    def volatilities(self, region: str) -> Floats | None:
        """What it finds for each leg of a region, NaN for none. Raises SolverGone."""
        path = self._ask("volatilities", region, 0).path
        if not path:
            return None
        found: Floats = np.asarray(np.load(path), np.float64)
        return found

    def close(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, job: str, region: str, budget_ns: int) -> _Answer:
        if self._process.stdin is None:
            raise SolverGone(f"{self.name}: no pipe")
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells
            self._process.stdin.write(msgspec.json.encode((job, region, budget_ns)) + b"\n")
        return self._answer()

    def _answer(self) -> _Answer:
        if self._process.stdout is None:
            raise SolverGone(f"{self.name}: no pipe")
        line, descriptor = b"", self._process.stdout.fileno()
        while not line.endswith(b"\n"):
            if not select.select([descriptor], [], [], ANSWER_S)[0]:
                raise SolverGone(f"{self.name}: no answer within {ANSWER_S:.0f} s")
            part = os.read(descriptor, 65_536)
            if not part:
                raise SolverGone(f"{self.name}: ended with {self._process.wait()}")
            line += part
        return msgspec.json.decode(line, type=_Answer)


class Turns:
    """All turns, by solver, job and region; figures are in ns a leg."""

    def __init__(self, legs: Mapping[str, int], budget_ns: int) -> None:
        self._legs = legs
        self._budget_ns = budget_ns
        self._taken: dict[tuple[str, str, str], list[Turn]] = {}

    def round(self, asked: Sequence[tuple[Solver, str]], region: str) -> None:
        """A turn for each solver and job; who cannot do it is left out. Raises SolverGone."""
        for solver, job in asked:
            turn = solver.turn(job, region, self._budget_ns)
            if turn is not None:
                self._taken.setdefault((solver.name, job, region), []).append(turn)

    def legs(self, region: str) -> int:
        """How many legs a region has."""
        return self._legs[region]

    def has(self, solver: str, job: str, region: str) -> bool:
        """Whether it had a turn."""
        return (solver, job, region) in self._taken

    def median(self, solver: str, job: str, region: str) -> float:
        """The median of its turns' medians."""
        turns = self._taken[solver, job, region]
        return statistics.median(turn.median for turn in turns) / self._legs[region]

    def least(self, solver: str, job: str, region: str) -> float:
        """Its fastest call."""
        turns = self._taken[solver, job, region]
        return min(turn.least for turn in turns) / self._legs[region]

    def ratio(self, slow: str, fast: str, job: str, region: str) -> float:
        """How many times as long `slow` takes: the median over rounds that both took part in."""
        pairs = zip(self._taken[slow, job, region], self._taken[fast, job, region], strict=True)
        return statistics.median(one.median / other.median for one, other in pairs)

    def added(self, solver: str, whole: str, part: str, region: str) -> float:
        """How much longer the whole takes than its part: the median over rounds with both."""
        pairs = zip(
            self._taken[solver, whole, region], self._taken[solver, part, region], strict=True
        )
        return (
            statistics.median(one.median - other.median for one, other in pairs)
            / self._legs[region]
        )
