import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stockify import guard
from stockify.guard import Mark

Starter = Callable[..., "subprocess.Popen[bytes]"]
PATIENT = "import time; print(1, flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {PATIENT}"
SLOW = f"""
import signal, sys, time
def leave(*_):
    time.sleep(0.2)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
{PATIENT}
"""
WITH_OTHER_SESSION = """
import os, time
if os.fork() == 0:
    os.setsid()
    print(1, flush=True)
time.sleep(60)
"""


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    directory = tmp_path / "marks"
    directory.mkdir()
    return directory


@pytest.fixture
def begin(marks: Path) -> Iterator[Starter]:
    """Starts a process that holds a mark, and has got far enough to answer signals its own way."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(mark: Mark | None, program: str = PATIENT) -> "subprocess.Popen[bytes]":
        passed: tuple[int, ...] = ()
        if mark is not None:
            passed = (os.open(marks / mark.file_name, os.O_RDONLY | os.O_CREAT),)
        process = subprocess.Popen(
            (sys.executable, "-I", "-S", "-c", program), stdout=subprocess.PIPE, pass_fds=passed
        )
        started.append(process)
        for descriptor in passed:
            os.close(descriptor)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(5)
        assert process.stdout is not None
        process.stdout.close()


def worker(name: str) -> Mark:
    return Mark(guard.WORKER_STAGE, name, (signal.SIGTERM,))


def wait_until_deaf(pid: int) -> None:
    """Until that process ignores SIGINT."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        ignored = next(line.split()[1] for line in lines if line.startswith("SigIgn:"))
        if int(ignored, 16) & 1 << signal.SIGINT - 1:
            return
        time.sleep(0.01)
    raise AssertionError("it still listens")


def test_mark_says_its_content_in_its_name() -> None:
    mark = Mark(guard.ENGINE_STAGE, "postgres", (signal.SIGINT, signal.SIGQUIT))
    assert mark.file_name == "2.postgres.INT.QUIT"
    assert guard.parse_mark(mark.file_name) == mark
    assert guard.parse_mark(f"{mark.file_name} (deleted)") == mark


@pytest.mark.parametrize("name", ["", "lock", "x.y.TERM", "1.name", "1..TERM", "1.name.NOSUCH"])
def test_other_file_is_no_mark(name: str) -> None:
    assert guard.parse_mark(name) is None


def test_holder_of_a_mark_is_a_member_and_nobody_else(begin: Starter, marks: Path) -> None:
    held, other = begin(worker("one")), begin(None)
    found = {member.pid: member.mark.name for member in guard.members(marks)}
    assert found == {held.pid: "one"}
    assert other.poll() is None


def test_mark_is_found_from_the_directory_above(begin: Starter, marks: Path) -> None:
    held = begin(worker("one"))
    assert [member.pid for member in guard.members(marks.parent)] == [held.pid]


def test_child_of_a_member_that_made_its_own_session_is_a_member(
    begin: Starter, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "GRACE_S", {guard.WORKER_STAGE: (0.2,)})
    begin(worker("one"), WITH_OTHER_SESSION)
    assert len(guard.members(marks)) == 2
    assert guard.end_all(marks) == 2
    assert guard.members(marks) == []


def test_members_are_asked_and_leave(begin: Starter, marks: Path) -> None:
    held, other = begin(worker("one")), begin(None)
    assert guard.end_all(marks) == 1
    assert held.wait(1) == -signal.SIGTERM
    assert other.poll() is None


def test_member_that_will_not_leave_is_killed(
    begin: Starter, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "GRACE_S", {guard.WORKER_STAGE: (0.1,)})
    held = begin(worker("one"), STUBBORN)
    guard.end_all(marks)
    assert held.wait(1) == -signal.SIGKILL


def test_engine_is_asked_only_after_the_workers_have_left(begin: Starter, marks: Path) -> None:
    began = time.monotonic()
    slow = begin(worker("slow"), SLOW)
    engine = begin(Mark(guard.ENGINE_STAGE, "engine", (signal.SIGINT, signal.SIGQUIT)))
    guard.end_all(marks)
    assert slow.wait(1) == 0
    assert engine.wait(1) == 1 or engine.returncode == -signal.SIGINT
    assert time.monotonic() - began >= 0.2


def test_whole_end_takes_less_than_ten_seconds() -> None:
    graces = sum(sum(graces) for graces in guard.GRACE_S.values())
    assert graces + guard.KILL_GRACE_S * len(guard.GRACE_S) < 10


def test_end_of_the_pipe_sets_the_guard_to_work(begin: Starter, marks: Path) -> None:
    read_fd, write_fd = os.pipe()
    arguments = (sys.executable, "-I", "-S", guard.__file__, str(marks))
    with (
        subprocess.Popen(arguments, stdin=read_fd, stdout=subprocess.PIPE) as watching,
        contextlib.ExitStack() as failing,
    ):
        failing.callback(watching.kill)  # else a failure waits for it for ever
        os.close(read_fd)
        held = begin(worker("one"))
        wait_until_deaf(watching.pid)
        watching.send_signal(signal.SIGINT)
        assert held.poll() is None
        os.close(write_fd)
        assert held.wait(5) == -signal.SIGTERM
        out, _ = watching.communicate(timeout=5)
    assert b"ended 1 processes" in out
