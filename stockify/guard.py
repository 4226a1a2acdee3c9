"""The guard: when the supervisor is gone, end whatever it left, workers first, then engines.

It runs as a process of its own, with the standard library alone (`python -I -S`, a few megabytes),
in a session of its own, and waits for the end of the pipe whose other end only the supervisor has.
It keeps no list: every child inherits an open descriptor of its mark, a file in the instance's
marks directory, so `/proc` tells who belongs to the instance, also a child that was started in the
supervisor's last instant or that made a session of its own. It never touches any other process.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

WORKER_STAGE = 1
ENGINE_STAGE = 2
# Together under 10 s: what somebody who killed the supervisor may wait before starting again.
# An engine is asked twice (Postgres: SIGINT rolls back and checkpoints, SIGQUIT leaves at once).
GRACE_S = {WORKER_STAGE: (3.0,), ENGINE_STAGE: (3.0, 1.0)}
KILL_GRACE_S = 1.0
POLL_S = 0.05


class Mark(NamedTuple):
    """What the name of a mark says: `1.processor.TERM`, `2.postgres.INT.QUIT`."""

    stage: int
    name: str
    signals: tuple[signal.Signals, ...]

    @property
    def file_name(self) -> str:
        """The name that `parse_mark` reads back."""
        words = (asked.name.removeprefix("SIG") for asked in self.signals)
        return ".".join((str(self.stage), self.name, *words))


class Member(NamedTuple):
    """A process that holds a mark; a leader is one whose parent does not hold it too."""

    pid: int
    parent: int
    mark: Mark


def parse_mark(file_name: str) -> Mark | None:
    """The mark of that file name; None where it is none."""
    stage, _, rest = file_name.removesuffix(" (deleted)").partition(".")
    name, *words = rest.split(".")
    signals = tuple(s for s in map(_signal, words) if s is not None)
    if not stage.isdigit() or not name or not signals:
        return None
    return Mark(int(stage), name, signals)


def members(marks: Path) -> list[Member]:
    """Every process but this one that has a mark open in that directory or below it."""
    prefix = f"{os.path.realpath(marks)}/"
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        mark = _held_mark(entry, prefix)
        parent = _parent(entry) if mark else None
        if mark is not None and parent is not None:
            found.append(Member(int(entry), parent, mark))
    return found


def end_all(marks: Path) -> int:
    """End every member, stage by stage: asked first, then killed. Gives how many there were."""
    ended: set[int] = set()
    for stage, graces in GRACE_S.items():
        for attempt, grace_s in enumerate(graces):
            ended.update(member.pid for member in _ask(marks, stage, attempt))
            if _gone_within(marks, stage, grace_s):
                break
        else:
            for member in _at(marks, stage):
                _send(member.pid, signal.SIGKILL)
            _gone_within(marks, stage, KILL_GRACE_S)
    return len(ended)


def main() -> None:
    """Wait for the end of standard input, then end all; the marks directory is the argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # a Ctrl-C is the supervisor's to answer
    marks = Path(sys.argv[1])
    while os.read(sys.stdin.fileno(), 4096):
        pass
    count = end_all(marks)
    if count:
        print(f"guard: the supervisor is gone; ended {count} processes", flush=True)


def _ask(marks: Path, stage: int, attempt: int) -> list[Member]:
    present = _at(marks, stage)
    pids = {member.pid for member in present}
    for member in present:
        if member.parent not in pids:  # Postgres and Valkey see to their own children
            _send(member.pid, member.mark.signals[min(attempt, len(member.mark.signals) - 1)])
    return present


def _gone_within(marks: Path, stage: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _at(marks, stage):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _at(marks: Path, stage: int) -> list[Member]:
    return [member for member in members(marks) if member.mark.stage == stage]


def _send(pid: int, asked: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, asked)


def _signal(word: str) -> signal.Signals | None:
    return signal.Signals.__members__.get(f"SIG{word}")


def _held_mark(pid: str, prefix: str) -> Mark | None:
    for target in _open_files(pid):
        if target.startswith(prefix):
            mark = parse_mark(target.rpartition("/")[2])
            if mark is not None:
                return mark
    return None


def _open_files(pid: str) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:  # gone, a zombie, or somebody else's
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            yield os.readlink(f"{folder}/{descriptor}")


def _parent(pid: str) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


if __name__ == "__main__":
    main()
